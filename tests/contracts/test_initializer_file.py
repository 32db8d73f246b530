"""Learning that starts from a learned file: its rows as they are, or a sentence why not."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal

import pytest
import torch

from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import ComposeConfig, DebiasConfig
from oneword.config.scoring import StudyConfig
from oneword.config.tuning import TuningConfig
from oneword.errors import ConfigError
from oneword.models.loading import load_backbone
from oneword.runs.events import Stepped
from oneword.runs.train import dry_run, train
from oneword.study.plan import Study
from oneword.training.job import Job, JobError
from oneword.training.loop import invert
from oneword.training.parts import rows_of_file


def word(num=1, seed=0, **dims):
    g = torch.Generator().manual_seed(seed)
    rows = {name: torch.randn(num, dim, generator=g) for name, dim in dims.items()}
    return Concept(placeholder_token="<mine>", rows=rows, provenance={})


def save(concept, path, layout="oneword"):
    return formats.save_concept(concept, path, layout)[0]


@pytest.fixture
def width(tiny_sd):
    return tiny_sd.vocabularies["clip"].dim


@pytest.fixture
def start(make, tiny_sd):
    """Settings of a run that starts from a file."""

    def config(file, output="run", **settings):
        own = {"initializer_token": None, "initializer_file": file, "max_train_steps": 6}
        return make(output, inversion=own | settings)

    return config


# InvokeAI's takes no word as narrow as this one
@pytest.mark.parametrize("layout", [name for name in formats.WRITERS if name != "invokeai"])
def test_rows_of_every_tool_are_copied(tiny_sd, width, tmp_path, layout):
    given = word(2, clip=width)
    file = save(given, tmp_path / f"word{formats.WRITERS[layout][0]}", layout)
    found = rows_of_file(tiny_sd, file, 2)
    assert torch.equal(found["clip"], given.rows["clip"])
    wider = rows_of_file(tiny_sd, file, 4)["clip"]
    assert torch.equal(wider, given.rows["clip"][[0, 1, 1, 1]])
    with pytest.raises(JobError, match=r"of the learned file .*, 2, got 1"):
        rows_of_file(tiny_sd, file, 1)


def test_every_text_encoder_of_a_model_has_its_rows(folders, tmp_path):
    backbone = load_backbone(ModelConfig(model=str(folders["sdxl"]), device="cpu"))
    dims = {name: vocabulary.dim for name, vocabulary in backbone.vocabularies.items()}
    assert len(dims) == 2
    given = word(**dims)
    file = save(given, tmp_path / "word.safetensors", "kohya")
    config = InversionConfig(
        initializer_file=file, max_train_steps=1, learning_rate=0.0, num_evaluation_samples=2
    )
    side = backbone.resolution
    job = Job(name="x", pictures=torch.zeros(1, 3, side, side), config=config)
    found = invert(backbone, job).concept
    for name, rows in given.rows.items():
        assert torch.equal(found.rows[name], rows)
    first, second = dims
    half = save(word(**{first: dims[first]}), tmp_path / "half.safetensors")
    text = rf"\({first} {dims[first]}, {second} {dims[second]}\), got {first} {dims[first]};"
    with pytest.raises(JobError, match=text):
        rows_of_file(backbone, half, 1)


def test_other_widths_and_other_words_are_refused(tiny_sd, width, tmp_path):
    wide = save(word(clip=width + 1), tmp_path / "wide.safetensors")
    with pytest.raises(JobError, match=rf"of their width \(clip {width}\), got clip {width + 1};"):
        rows_of_file(tiny_sd, wide, 1)
    one = word(clip=width)
    xti = dataclasses.replace(one, kind="xti", tensors={"clip/layers": torch.zeros(3, 1, width)})
    with pytest.raises(JobError, match="because it has a word of kind xti"):
        rows_of_file(tiny_sd, save(xti, tmp_path / "xti.safetensors"), 1)
    tuned = dataclasses.replace(one, deltas={"unet.conv_in.diff": torch.ones(2, 2)})
    with pytest.raises(JobError, match="it has 1 weight deltas"):
        rows_of_file(tiny_sd, save(tuned, tmp_path / "tuned.safetensors"), 1)
    two = [one, one.named("<other>")]
    with pytest.raises(formats.FormatError, match="must contain one word here, got 2"):
        rows_of_file(tiny_sd, save(two, tmp_path / "two.safetensors"), 1)
    with pytest.raises(formats.FormatError, match="nowhere"):
        rows_of_file(tiny_sd, tmp_path / "nowhere.pt", 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"initializer_token": "cat"}, "initializer_token"),
        ({"cross_initialization": True}, "cross_initialization"),
        ({"vectors_at": "output"}, "vectors_at 'output'"),
        ({"setup": "lora-dreambooth"}, "setup lora-dreambooth"),
        ({"form": "captions-long"}, "form captions-long"),
    ],
)
def test_what_else_a_word_would_start_from_is_refused(settings, said, tmp_path):
    with pytest.raises(ConfigError, match=f"use initializer_file with {said} because"):
        InversionConfig(initializer_file=tmp_path / "x.pt", **settings)


def test_setups_that_start_from_something_else_are_refused(tmp_path):
    for setup in ("cross-init", "captions-short"):
        with pytest.raises(ConfigError, match="a learned file must be the only"):
            InversionConfig(initializer_file=tmp_path / "x.pt", setup=setup).resolved("ldm")


@pytest.mark.parametrize("form", ["rows", "progressive", "per-image", "xti", "dreamartist"])
def test_every_form_that_has_rows_starts_from_them(start, tiny_sd, width, tmp_path, form):
    given = word(2, clip=width)
    file = save(given, tmp_path / "word.safetensors")
    config = start(file, form=form, num_vectors=2, learning_rate=0.0, num_negative_vectors=2)
    outcome = train(config, backbone=tiny_sd)
    found = outcome.result.concept
    assert torch.allclose(found.rows["clip"], given.rows["clip"], rtol=0, atol=1e-7)
    assert "common nouns" not in "".join(outcome.result.messages)
    assert found.provenance["initializer_token"] is None
    assert found.provenance["config"]["initializer_file"] == str(file)


def test_a_run_keeps_its_start_and_is_resumed(start, tiny_sd, width, tmp_path):
    file = save(word(clip=width), tmp_path / "word.safetensors")

    def stop(event):
        if isinstance(event, Stepped) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    assert train(start(file), on_event=stop, backbone=tiny_sd).result.status == "interrupted"
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["inversion"]["initializer_file"] == str(file)
    assert record["initializer_sha256"] == formats.load_concept(file).sha256()
    # the same word elsewhere, in another tool's file, is the same start
    moved = save(word(clip=width), tmp_path / "moved.pt", "a1111")
    file.unlink()
    save(word(clip=width, seed=1), file)
    with pytest.raises(ConfigError, match="the learned file to start from has changed"):
        train(start(file), backbone=tiny_sd)
    with pytest.raises(ConfigError, match="initializer_token was None and is 'cat'"):
        train(start(None, initializer_token="cat"), backbone=tiny_sd)
    assert train(start(moved), backbone=tiny_sd).result.status == "finished"
    train(start(moved, "whole"), backbone=tiny_sd)
    rows = [formats.load_concept(tmp_path / name).rows["clip"] for name in ("run", "whole")]
    assert torch.equal(*rows)
    assert not torch.equal(rows[0], word(clip=width).rows["clip"])


def test_pivotal_tuning_starts_from_it_and_names_its_class(start, tiny_sd, width, tmp_path):
    file = save(word(clip=width), tmp_path / "word.safetensors")
    tuned = TuningConfig(tuning_steps=2, tuned_weights="lora", num_class_images=2)
    settings = {"setup": "pivotal", "max_train_steps": 2, "learning_rate": 0.0}
    outcome = train(start(file, tuning=tuned, **settings), backbone=tiny_sd)
    assert torch.equal(outcome.result.concept.rows["clip"], word(clip=width).rows["clip"])
    prior = dataclasses.replace(tuned, prior_loss_weight=1.0)
    with pytest.raises(JobError, match="without the class of the thing"):
        dry_run(start(file, "other", tuning=prior, **settings), tiny_sd)


def test_others_that_set_the_start_themselves_refuse_it(photos, tiny_folder, tmp_path):
    given = InversionConfig(initializer_file=tmp_path / "x.pt")
    with pytest.raises(ConfigError, match="Cannot set initializer_file because the study"):
        Study(StudyConfig(concepts=(str(photos),), inversion=given))
    both = {"placeholder_tokens": ("<a>", "<b>"), "initializer_tokens": ("cat", "dog")}
    with pytest.raises(
        ConfigError, match=r"initializer_file .* start from their initializer_tokens"
    ):
        ComposeConfig(images=(photos, photos), inversion=given, **both)
    with pytest.raises(ConfigError, match=r"initializer_file .* start from the word itself"):
        DebiasConfig(word="cat", images=photos, inversion=given)
    words = ["compose", "--images", str(photos), str(photos), "--placeholder-tokens", "<a>", "<b>"]
    words += ["--initializer-tokens", "cat", "dog", "--initializer-file", str(tmp_path / "x.pt")]
    words += ["--model", str(tiny_folder), "--output-dir", str(tmp_path / "both")]
    assert main(words) == 2
    assert not (tmp_path / "both").exists()


def test_the_command_its_report_and_a_job_of_many(
    photos, tiny_folder, tiny_sd, width, tmp_path, capsys
):
    file = save(word(clip=width), tmp_path / "word.pt", "authors")
    shared = ["--model", str(tiny_folder), "--device", "cpu", "--max-train-steps", "1"]
    shared += ["--learning-rate", "0", "--validation-steps", "0", "--train-batch-size", "1"]
    one = ["train", "--train-data-dir", str(photos), "--output-dir", str(tmp_path / "one")]
    assert main([*one, *shared, "--initializer-file", str(file), "--initializer-token", "cat"]) == 2
    assert "Cannot use initializer_file with initializer_token" in capsys.readouterr().err
    assert main([*one, *shared, "--initializer-file", str(file)]) == 0
    assert f"starting from {file}" in (tmp_path / "one" / "report.html").read_text()
    shutil.copytree(photos, tmp_path / "others")
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(
        f'[[jobs]]\nname = "a"\ntrain_data_dir = "{photos}"\ninitializer_file = "{file}"\n'
        f'[[jobs]]\nname = "b"\ntrain_data_dir = "{tmp_path}/others"\ninitializer_token = "cat"\n'
    )
    many = ["train", "--jobs", str(jobs), "--output-dir", str(tmp_path / "many"), *shared]
    assert main(many) == 0
    for place in ("one", "many/a"):
        found = formats.load_concept(tmp_path / place).rows["clip"]
        assert torch.equal(found, word(clip=width).rows["clip"])
    other = formats.load_concept(tmp_path / "many" / "b").rows["clip"]
    assert not torch.equal(other, word(clip=width).rows["clip"])
