"""Encoders: trained from folders, resumed to the bit, refused where they do not belong, used."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oneword._files import OutputError
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.config.encoder import LATENTS, EncoderConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import ComposeConfig, DebiasConfig
from oneword.config.scoring import StudyConfig
from oneword.errors import ConfigError
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.guide import GuideError
from oneword.models.loading import load_backbone
from oneword.runs.encoder import METRICS, STATE, train_encoder
from oneword.runs.folder import RunError
from oneword.runs.many import train_many
from oneword.runs.train import dry_run, train
from oneword.study.plan import Study
from oneword.training.encoder import files
from oneword.training.encoder.files import EncoderError, load
from oneword.training.job import Job
from oneword.training.loop import invert


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of three things with pictures."""
    folder = tmp_path_factory.mktemp("things")
    for thing in range(3):
        (folder / f"thing-{thing}").mkdir()
        for i in range(3 + thing):
            noise = np.random.default_rng((thing, i)).integers(0, 255, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"thing-{thing}" / f"{i}.png")
    return folder


@pytest.fixture
def asked(data, tiny_folder, tmp_path):
    """Settings of a short training."""

    def config(output="encoder", model=tiny_folder, **fields):
        settings = {
            "guide": LATENTS, "width": 8, "train_batch_size": 2, "max_train_steps": 6,
            "evaluation_steps": 2, "checkpointing_steps": 2, "learning_rate": 3e-2,
        }  # fmt: skip
        return EncoderConfig(**{
            "data": data,
            "output_dir": tmp_path / output,
            "model": ModelConfig(model=str(model), device="cpu"),
        } | settings | fields)  # fmt: skip

    return config


def stop_after(step):
    def on_progress(what, done, total, numbers):
        if what == "steps" and done == step:
            raise KeyboardInterrupt

    return on_progress


# --- training


@pytest.mark.parametrize("family", ["stable_diffusion", "sd3"])
@pytest.mark.parametrize("num_vectors", [1, 3])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(asked, folders, family, num_vectors):
    """Stopped right behind a writing of the state, and between two."""
    own = {"model": folders[family], "num_vectors": num_vectors}
    backbone = load_backbone(ModelConfig(model=str(folders[family]), device="cpu"))
    whole = train_encoder(asked("whole", **own), backbone=backbone)
    assert (whole.status, whole.steps, whole.num_things) == ("finished", 6, 3)
    for step in (1, 4):
        config = asked("parts", **own)
        first = train_encoder(config, backbone=backbone, on_progress=stop_after(step))
        assert (first.status, first.file, first.steps) == ("interrupted", None, step)
        said = []
        rest = train_encoder(config, backbone=backbone, on_message=said.append)
        assert said == [f"Resuming from step {step}."]
        assert rest.file.read_bytes() == whole.file.read_bytes()
        assert str(rest.losses) == str(whole.losses)  # there are NaNs in it
        shutil.rmtree(config.output_dir)
    encoder = load(whole.file.parent)
    dims = {name: vocabulary.dim for name, vocabulary in backbone.vocabularies.items()}
    rows = encoder.rows(backbone, [torch.zeros(1, 3, backbone.resolution, backbone.resolution)])
    assert {name: tuple(r.shape) for name, r in rows.items()} == {
        name: (num_vectors, dim) for name, dim in dims.items()
    }


def test_a_killed_training_goes_on_from_its_last_state(asked, tiny_sd, tmp_path):
    whole = train_encoder(asked("whole"), backbone=tiny_sd)
    config, kept = asked("killed"), tmp_path / "state"

    def on_progress(what, done, total, numbers):
        if done == 5 and what == "steps":  # as it was when the process died
            shutil.copytree(config.output_dir, kept)

    train_encoder(config, backbone=tiny_sd, on_progress=on_progress)
    again = train_encoder(
        dataclasses.replace(config, output_dir=kept, data=config.data), backbone=tiny_sd
    )
    assert again.file.read_bytes() == whole.file.read_bytes()


def test_a_finished_training_is_left_alone_and_others_refused(asked, tiny_sd, data, tmp_path):
    done = train_encoder(asked(), backbone=tiny_sd)
    before = done.file.read_bytes()
    again = train_encoder(asked(checkpointing_steps=5), backbone=tiny_sd)
    assert again.was_finished
    assert again.file.read_bytes() == before
    with pytest.raises(ConfigError, match="width was 8 and is 9"):
        train_encoder(asked(width=9), backbone=tiny_sd)
    moved = shutil.copytree(data, tmp_path / "moved")
    assert train_encoder(asked(data=moved), backbone=tiny_sd).was_finished
    (moved / "thing-0" / "0.png").unlink()
    with pytest.raises(ConfigError, match="the pictures have changed"):
        train_encoder(asked(data=moved), backbone=tiny_sd)
    (done.file.parent / STATE).write_bytes(b"x")
    with pytest.raises(RunError, match=", the state of an encoder's training"):
        train_encoder(asked(), backbone=tiny_sd)
    lines = (done.file.parent / METRICS).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2, 4, 6]


def test_folders_that_hold_no_things_are_refused(asked, tiny_sd, photos, tmp_path):
    with pytest.raises(EncoderError, match="subfolders of pictures, one per thing, got"):
        train_encoder(asked(data=photos), backbone=tiny_sd)
    with pytest.raises(EncoderError, match="No such file"):
        train_encoder(asked(data=tmp_path / "nowhere"), backbone=tiny_sd)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").touch()
    with pytest.raises(RunError, match="must be empty or contain an encoder's training"):
        train_encoder(asked("full"), backbone=tiny_sd)
    with pytest.raises(weights.WeightsError, match=r"Cannot put an encoder into .*full"):
        train_encoder(asked(land=tmp_path / "full"), backbone=tiny_sd)
    with pytest.raises(OutputError):
        train_encoder(asked("full/other.txt"), backbone=tiny_sd)


def test_a_finished_encoder_is_put_beside_a_model_with_its_checksum(asked, tiny_sd, tmp_path):
    folder = shutil.copytree(weights.WEIGHTS / "microworld-nano", tmp_path / "weights")
    before = weights.card_of(folder)
    done = train_encoder(asked(num_vectors=2, land=folder), backbone=tiny_sd)
    landed = weights.checked(folder) / weights.ENCODERS / "2.safetensors"
    assert landed.read_bytes() == done.file.read_bytes()
    card = weights.card_of(folder)
    assert card["encoders"]["2"]["things"] == 3
    assert card["encoders"]["2"]["made_by"].startswith("oneword encoder train --data")
    assert card["sha256"].items() > before["sha256"].items()
    assert card["recipe"] == before["recipe"]


def test_a_clip_may_be_what_sees_the_pictures(asked, tiny_sd, judge_folder, tmp_path):
    """A tiny CLIP of the real class; another one in its place is told from it."""
    guide = shutil.copytree(judge_folder, tmp_path / "guide")
    done = train_encoder(asked(guide=str(guide)), backbone=tiny_sd)
    encoder = load(done.file)
    assert encoder.network.shape.features == 12
    side = tiny_sd.resolution
    wide = torch.rand(2, 3, side, side + 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows = encoder.rows(tiny_sd, [wide])["clip"]
    middle = encoder.rows(tiny_sd, [wide[..., 4:-4]])["clip"]
    assert torch.allclose(rows, middle, atol=1e-6)
    other = dataclasses.replace(encoder.about, guide=str(tmp_path / "nowhere"))
    with pytest.raises(GuideError, match="must be a CLIP"):
        files.Encoder(encoder.network, other, encoder.table, encoder.probe).rows(tiny_sd, [wide])
    strange = files.Encoder(encoder.network, encoder.about, encoder.table, -encoder.probe)
    with pytest.raises(EncoderError, match="trained with another guide, which"):
        strange.rows(tiny_sd, [wide])


# --- what an encoder is refused for


def test_an_encoder_of_another_model_or_version_is_refused(tiny_encoder, tiny_sd, folders):
    encoder = load(tiny_encoder)
    encoder.check(tiny_sd)
    sdxl = load_backbone(ModelConfig(model=str(folders["sdxl"]), device="cpu"))
    with pytest.raises(EncoderError, match=r"encoder with .* \(sdxl\) because it"):
        encoder.check(sdxl)
    nano = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    with pytest.raises(EncoderError, match=r"it was trained on .* \(stable_diffusion\)"):
        encoder.check(nano)
    moved = {name: table + 1 for name, table in encoder.table.items()}
    older = files.Encoder(encoder.network, encoder.about, moved, encoder.probe)
    with pytest.raises(EncoderError, match=r"it was trained on another version of"):
        older.check(tiny_sd)
    about = dataclasses.replace(encoder.about, version="0123456789ab")
    with pytest.raises(EncoderError, match="it was trained on another version of"):
        files.Encoder(encoder.network, about, encoder.table, encoder.probe).check(tiny_sd)


def test_sets_of_no_picture_and_other_files_are_refused(tiny_encoder, tiny_sd, tmp_path):
    side = tiny_sd.resolution
    with pytest.raises(EncoderError, match="one or more pictures of a thing, got none"):
        load(tiny_encoder).rows(tiny_sd, [torch.zeros(0, 3, side, side)])
    with pytest.raises(EncoderError, match="nowhere"):
        load(tmp_path / "nowhere")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(tiny_encoder.read_bytes()[:900])
    with pytest.raises(EncoderError, match=r"must be a file of oneword encoder train, .* got"):
        load(torn)
    own = formats.save_concept(_word(tiny_sd), tmp_path / "word.safetensors")[0]
    with pytest.raises(EncoderError, match=r"must be a file of oneword encoder train, .* got"):
        load(own)


def _word(backbone):
    config = InversionConfig(
        placeholder_token="<w>", initializer_token="cat", max_train_steps=1,
        num_evaluation_samples=2,
    )  # fmt: skip
    pictures = torch.zeros(1, 3, backbone.resolution, backbone.resolution)
    return invert(backbone, Job(name="w", pictures=pictures, config=config)).concept


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"encoder": Path("x")},
            "the encoder x without initializer or setup encoder; pass",
        ),
        (
            {"initializer": "encoder", "initializer_token": "cat"},
            "with initializer_token because an encoder must be the only start",
        ),
        ({"setup": "encoder", "initializer_token": "cat"}, "setup encoder with initializer_token"),
        (
            {"initializer": "encoder", "initializer_file": Path("x")},
            "with initializer_file",
        ),
        ({"initializer": "encoder", "vectors_at": "output"}, "with vectors_at 'output'"),
        ({"initializer": "encoder", "setup": "custom-diffusion"}, "with setup custom-diffusion"),
        ({"initializer": "encoder", "cross_initialization": True}, "with cross_initialization"),
        ({"initializer": "encoder", "setup": "captions-long"}, "with form captions-long"),
        (
            {"setup": "encoder", "initializer": "word"},
            "with initializer word because such a word must start",
        ),
        ({"form": "encoder"}, "with initializer None because such"),
    ],
)
def test_starts_that_contradict_each_other_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        InversionConfig(**settings)


def test_others_that_set_the_start_themselves_refuse_it(photos):
    given = InversionConfig(initializer="encoder")
    with pytest.raises(ConfigError, match="Cannot set initializer because the study"):
        Study(StudyConfig(concepts=(str(photos),), inversion=given))
    both = {"placeholder_tokens": ("<a>", "<b>"), "initializer_tokens": ("cat", "dog")}
    with pytest.raises(
        ConfigError, match=r"initializer encoder because .* their initializer_tokens"
    ):
        ComposeConfig(images=(photos, photos), inversion=given, **both)
    with pytest.raises(ConfigError, match=r"setup encoder because .* start from the word itself"):
        DebiasConfig(word="cat", images=photos, inversion=InversionConfig(setup="encoder"))


def test_a_study_has_arms_that_an_encoder_starts(photos):
    weights_too = "pivotal:initializer=encoder,max_train_steps=20,tuning_steps=15"
    setups = ("encoder", "one-word:initializer=encoder,max_train_steps=20", "one-word", weights_too)
    study = Study(StudyConfig(concepts=(str(photos),), setups=setups))
    starts = {s.setup: study.inversion(s).resolved("microworld") for s in study.specs}
    assert [c.initializer for c in starts.values()] == ["encoder", "encoder", "word", "encoder"]
    assert starts[weights_too].max_train_steps == 20
    assert starts[weights_too].resolved_tuning.tuning_steps == 15
    assert [c.initializer_token for c in starts.values()][:2] == [None, None]


# --- its words


@pytest.fixture
def start(make, tiny_encoder):
    def config(output="run", fields=None, **settings):
        own = {"initializer_token": None, "initializer": "encoder", "encoder": tiny_encoder}
        return make(output, inversion=own | settings, **(fields or {}))

    return config


def test_the_setup_ends_with_the_encoders_rows(start, tiny_sd, tiny_encoder, photos, tmp_path):
    config = start(setup="encoder", initializer=None)
    seen = dry_run(config, tiny_sd)
    assert any("there is nothing to train" in note for note in seen["notes"])
    assert seen["num_samples"] == 0
    outcome = train(config, backbone=tiny_sd)
    result, encoder = outcome.result, load(tiny_encoder)
    assert (result.status, result.steps) == ("finished", 0)
    pixels = result.job.pictures
    assert torch.equal(result.concept.rows["clip"], encoder.rows(tiny_sd, [pixels])["clip"])
    back = encoder.rows(tiny_sd, [pixels.flip(0)])["clip"]
    assert torch.allclose(result.concept.rows["clip"], back, atol=1e-6)
    word = formats.load_concept(outcome.concept_file)
    assert word.provenance["encoder"]["sha256"] == encoder.sha256()
    assert word.provenance["encoder"]["trained"]["things"] == 7
    assert word.provenance["initializer_token"] is None
    assert train(config, backbone=tiny_sd).was_finished
    assert not list((tmp_path / "run" / "previews").glob("*"))
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["encoder_sha256"] == encoder.sha256()


def test_learning_goes_on_from_its_rows_and_is_resumed(start, tiny_sd, tiny_encoder, tmp_path):
    whole = train(start("whole"), backbone=tiny_sd)
    seen = {}

    def watch(event):
        if getattr(event, "step", None) == 5:
            seen["stopped"] = True
            raise KeyboardInterrupt

    first = train(start(), backbone=tiny_sd, on_event=watch)
    assert first.result.status == "interrupted"
    # the same encoder elsewhere is the same start, another is not
    moved = shutil.copy(tiny_encoder, tmp_path / "moved.safetensors")
    encoder = load(tiny_encoder)
    with torch.no_grad():
        encoder.network.set.bias.add_(1.0)
    other = tmp_path / "other.safetensors"
    other.write_bytes(encoder.data())
    files._read.cache_clear()
    with pytest.raises(ConfigError, match="the encoder to start from has changed"):
        train(start(encoder=other), backbone=tiny_sd)
    again = train(start(encoder=tmp_path / "moved.safetensors"), backbone=tiny_sd)
    assert again.result.concept.sha256() == whole.result.concept.sha256()
    assert moved
    rows = load(tiny_encoder).rows(tiny_sd, [whole.result.job.pictures])["clip"]
    assert not torch.equal(whole.result.concept.rows["clip"], rows)
    still = train(start("still", learning_rate=0.0), backbone=tiny_sd)
    assert torch.equal(still.result.concept.rows["clip"], rows)
    assert "common nouns" not in "".join(whole.result.messages)


@pytest.mark.parametrize("form", ["progressive", "per-image", "xti", "neti", "dreamartist"])
def test_every_form_that_has_rows_starts_from_them(start, tiny_sd, tiny_encoder, form):
    config = start(form=form, num_vectors=2, learning_rate=0.0, num_negative_vectors=2)
    outcome = train(config, backbone=tiny_sd)
    own = load(tiny_encoder).rows(tiny_sd, [outcome.result.job.pictures])["clip"]
    found = outcome.result.concept.rows["clip"]
    assert torch.allclose(found, own[[0] * len(found)], rtol=1e-5, atol=1e-6)


def test_many_words_are_encoded_in_one_call(start, tiny_sd, tiny_encoder):
    configs = [
        start("a", setup="encoder"),
        start("b", max_train_steps=3),
        start("c", encoder=Path("x")),
    ]
    found = train_many(configs, backbone=tiny_sd)
    assert [one.outcome is not None for one in found] == [True, True, False]
    assert "The encoder must be a file of oneword encoder train" in found[2].error
    own = load(tiny_encoder).rows(tiny_sd, [found[0].outcome.result.job.pictures])["clip"]
    assert torch.equal(found[0].outcome.result.concept.rows["clip"], own)


def test_words_that_the_encoder_cannot_make_are_refused(start, tiny_sd, tiny_encoder, tmp_path):
    with pytest.raises(
        EncoderError, match="trained for learnable_property style, got one for object only"
    ):
        train(start(learnable_property="style"), backbone=tiny_sd)
    encoder = load(tiny_encoder)
    shape = dataclasses.replace(encoder.network.shape, num_vectors=3)
    three = files.Encoder(files.SetEncoder(shape), encoder.about, encoder.table, encoder.probe)
    path = tmp_path / "three.safetensors"
    path.write_bytes(three.data())
    with pytest.raises(EncoderError, match=r"number of vectors, 3, got 1; pass --num"):
        train(start(encoder=path), backbone=tiny_sd)
    found = train(start("three", encoder=path, num_vectors=4, setup="encoder"), backbone=tiny_sd)
    rows = found.result.concept.rows["clip"]
    assert rows.shape[0] == 4
    assert torch.equal(rows[2], rows[3])
    with pytest.raises(
        EncoderError, match=r"with 1 or fewer vectors because none comes with it; train one"
    ):
        train(start("none", encoder=None), backbone=tiny_sd)


def test_the_commands(asked, tiny_folder, data, photos, tmp_path, capsys):
    model = ["--model", str(tiny_folder), "--device", "cpu"]
    words = ["encoder", "train", *model, "--data", str(data), "--output-dir", str(tmp_path / "e")]
    words += ["--guide", "latents", "--width", "8", "--max-train-steps", "2", "--seed", "1"]
    words += ["--train-batch-size", "2", "--json", str(tmp_path / "e.json")]
    assert main([*words, "--minutes", "1e-9"]) == 0
    assert "Time is up. To continue, run the same command again." in capsys.readouterr().out
    assert main(words) == 0
    told = capsys.readouterr()
    assert "Resuming from step 1." in told.err
    out = told.out
    assert "2 steps on 3 things" in out
    assert "--max-train-steps 20 --train-data-dir PICTURES" in out
    assert json.loads((tmp_path / "e.json").read_text())["status"] == "finished"
    assert main(words) == 0
    assert "Training had already finished" in capsys.readouterr().out
    learn = ["train", *model, "--train-data-dir", str(photos), "--encoder", str(tmp_path / "e")]
    learn += ["--output-dir", str(tmp_path / "word"), "--setup", "encoder", "--placeholder-token"]
    assert main([*learn, "<w>"]) == 0
    page = (tmp_path / "word" / "report.html").read_text()
    assert "starting from what an encoder makes of them" in page
    assert main(["encoder", "train", *model, "--output-dir", str(tmp_path / "f")]) == 2
    assert "pass --data" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


# --- the encoder that ships


def test_the_nano_encoder_makes_a_word_in_under_a_second(tmp_path):
    """Of a held-out thing, from one picture and from five, and near each other."""
    backbone = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    pixels = from_uint8(concept_pictures(concepts.get("gold-mug"), 5, size=backbone.resolution))
    own = InversionConfig(setup="encoder")
    file = weights.encoder_file("microworld-nano", 1)
    assert file.stat().st_size < 1e6
    encoder = load(file)
    encoder.check(backbone)
    assert {*encoder.about.learns} == {"object", "style"}
    encoder.rows(backbone, [pixels])
    started = time.perf_counter()
    five = encoder.rows(backbone, [pixels])["clip"]
    assert time.perf_counter() - started < 1.0
    one = encoder.rows(backbone, [pixels[:1]])["clip"]
    assert one.isfinite().all()
    assert not torch.equal(one, five)
    result = invert(backbone, Job(name="x", pictures=pixels, config=own))
    assert torch.equal(result.concept.rows["clip"], five)
    assert result.concept.provenance["encoder"]["model"] == "microworld-nano"
