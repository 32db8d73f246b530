"""What can be refused is refused before the first file; nothing stays in the next run's way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from oneword._files import visible
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import ComposeConfig, DebiasConfig
from oneword.config.scoring import StudyConfig
from oneword.config.tuning import TuningConfig
from oneword.errors import ModelError, UserError
from oneword.evaluation import fairness
from oneword.runs.compose import compose
from oneword.runs.events import Stepped
from oneword.runs.many import train_many
from oneword.runs.train import dry_run, train
from oneword.study import grid
from oneword.study.plan import Study
from oneword.training.job import Job, JobError
from oneword.training.loop import invert
from oneword.training.tuning import method


SHORT = {
    "initializer_token": "cat", "max_train_steps": 2, "train_batch_size": 2,
    "evaluation_steps": 2, "num_evaluation_samples": 2,
}  # fmt: skip


def sampling(**fields):
    return SamplingConfig(**({"num_inference_steps": 1, "guidance_scale": 2.0} | fields))


# --- debias


@pytest.mark.usefixtures("without_hub")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampling": sampling(negative_prompt="<nobody>")}, "only loaded words"),
        ({"judge": "nowhere/at-all"}, "The judge must be a CLIP"),
        ({"prompt": "a photo of a cat on the moon next to my good cool clean {}"},
         "must fit"),
        ({"inversion": InversionConfig(**SHORT, placeholder_token="dog")}, "must be new to the"),
    ],
)  # fmt: skip
def test_a_comparison_that_cannot_be_drawn_is_refused_before_training(
    photos, tiny_folder, judge_folder, tmp_path, fields, message
):
    inversion = InversionConfig(**SHORT, placeholder_token="<fair>", num_vectors=65)
    config = DebiasConfig(**{
        "word": "cat", "images": photos, "output_dir": tmp_path / "fair", "num_images": 2,
        "model": ModelConfig(model=str(tiny_folder), device="cpu"), "inversion": inversion,
        "sampling": sampling(), "judge": str(judge_folder),
    } | fields)  # fmt: skip
    with pytest.raises(UserError, match=message):
        fairness.debias(config)
    assert not (tmp_path / "fair" / "run").exists()


# --- study


@pytest.mark.usefixtures("without_hub")
def test_a_study_that_the_family_cannot_draw_leaves_its_folder_free(photos, folders, tmp_path):
    folder = tmp_path / "study"
    config = StudyConfig(
        output_dir=folder, concepts=(str(photos),), setups=("prompt-only",), seeds=(0,),
        model=ModelConfig(model=str(folders["flux"]), device="cpu"), prompts="microworld",
        sampling=sampling(negative_prompt="blurry"), dino="none", judge="nowhere/at-all",
    )  # fmt: skip
    with pytest.raises(UserError, match="The judge must be a CLIP"):
        grid.run(Study(config), on_event=lambda _: None)
    assert not folder.exists()


def test_a_family_says_what_it_cannot_be_drawn_with(folders):
    from oneword.models.loading import load_backbone

    flux = load_backbone(ModelConfig(model=str(folders["flux"]), device="cpu"))
    flux.check_sampling(sampling())
    with pytest.raises(ModelError, match="negative prompt 'blurry' with Flux"):
        flux.check_sampling(sampling(negative_prompt="blurry"))


# --- train


def refused(call, config, message, tmp_path):
    """It is refused by the dry run and by the run, and the folder is free afterwards."""
    with pytest.raises(UserError, match=message) as said:
        call(config)
    assert "<slot" not in str(said.value)
    assert not (tmp_path / "run").exists()


def vectors(**fields):
    return SHORT | {"placeholder_token": "<cat>"} | fields


@pytest.mark.parametrize("call", [dry_run, train])
@pytest.mark.parametrize(
    ("inversion", "fields", "message"),
    [
        (vectors(num_vectors=75), {}, r"'a .* <cat>' must fit into 75 tokens .*--num-vectors"),
        (vectors(num_vectors=74, form="progressive"), {}, "<cat>' must fit into 75 tokens"),
        (vectors(num_negative_vectors=75, setup="dreamartist"), {}, "negative>' must fit into 75"),
        (vectors(num_vectors=70, setup="per-image"), {}, "with <cat-1>' must fit into 75 tokens"),
        (vectors(num_vectors=74, vectors_at="output"), {}, "<cat>' must fit"),
        (vectors(num_vectors=69, setup="lora-dreambooth"), {}, "<cat>' must fit"),
        (vectors(num_vectors=75, setup="pivotal"), {}, "<cat>' must fit"),
        (vectors(num_vectors=66),
         {"validation_prompts": ("a photo on the moon of my good cool clean <cat>",)},
         "'a photo on the moon of my good cool clean <cat>' must fit"),
        (vectors(train_encoders=("t5",)), {}, "must name text encoders of the model"),
        (vectors(initializer_token="qxzvkw"), {}, "must be known to the model's tokenizer"),
        (vectors(setup="captions-short"), {}, "descriptions of the thing"),
        (vectors(setup="lora-dreambooth", tuning=TuningConfig(class_data_dir=Path("nowhere"))),
         {}, "nowhere"),
        (vectors(setup="lora-dreambooth", tuning=TuningConfig(rare_token="qxzvkw")), {},
         "must be known to the model's tokenizer"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(make, tmp_path, call, inversion, fields, message):
    refused(call, make(inversion=inversion, **fields), message, tmp_path)


@pytest.mark.parametrize("call", [dry_run, train])
def test_captions_that_are_too_long_are_refused(make, photos, tmp_path, call):
    for i in range(3):
        (photos / f"{i}.txt").write_text("a cat " * 40 + "and a <cat>")
    refused(
        call, make(inversion=vectors()), r"a <cat>' must fit into 75 tokens .* got 83", tmp_path
    )
    for i in range(3):  # what stands behind the word may be cut off
        (photos / f"{i}.txt").write_text("a <cat> and" + " a cat" * 40)
    call(make(inversion=vectors()))


def test_the_corrected_command_is_taken(make, tmp_path):
    refused(train, make(inversion=vectors(num_vectors=75)), "must fit", tmp_path)
    assert train(make(inversion=vectors(num_vectors=20))).result.status == "finished"


def test_a_job_of_many_leaves_nothing_either(make, tmp_path):
    bad = make(inversion=vectors(num_vectors=75), output="bad")
    good = make(inversion=vectors(), output="good")
    found = train_many([bad, good])
    assert "must fit into 75 tokens" in found[0].error
    assert found[1].outcome.result.status == "finished"
    assert not bad.output_dir.exists()


def test_what_the_loop_alone_refuses_leaves_nothing(make, tmp_path, monkeypatch):
    """Nothing is written before the loop has taken the job; a later refusal takes it away again."""
    asked = []

    def refusing(event):
        if isinstance(event, Stepped):
            asked.append(sorted(p.name for p in visible(tmp_path / "run")))
            raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        train(make(inversion=vectors(), validation_steps=1), on_event=refusing)
    assert asked == [["config.json", "metrics.jsonl"]]
    assert not (tmp_path / "run").exists()


def test_the_loop_names_what_the_person_wrote(tiny_sd):
    config = InversionConfig(**vectors(num_vectors=75))
    pictures = torch.zeros(1, 3, tiny_sd.resolution, tiny_sd.resolution)
    with pytest.raises(JobError, match=r"'a .* <cat>' must fit into 75 tokens"):
        invert(tiny_sd, Job(name="a", pictures=pictures, config=config))
    tuned = dataclasses.replace(config, setup="lora-dreambooth", num_vectors=74)
    with pytest.raises(JobError, match=r"'a .* <cat>' must fit into 75 tokens"):
        method("lora-dreambooth")(tiny_sd, Job(name="a", pictures=pictures, config=tuned))


# --- compose


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inversion": InversionConfig(**SHORT, num_vectors=75)}, "<[ab]>' must fit into 75"),
        ({"inversion": InversionConfig(**SHORT, num_vectors=35)}, "a <a> and a <b>' must fit"),
        ({"placeholder_tokens": ("<a>", "dog")}, "must be new to the model, got 'dog'"),
        ({"initializer_tokens": ("cat", "qxzvkw")}, "must be known to the model's tokenizer"),
        ({"inversion": InversionConfig(**SHORT, setup="xti")}, "form must be 'rows' .*, got 'xti'"),
        ({"placeholder_tokens": ("<a>", "a b")}, "without spaces, got 'a b'"),
    ],
)
def test_words_that_cannot_be_learned_together_are_refused(
    photos, tiny_folder, tmp_path, fields, message
):
    settings = {
        "images": (photos, photos), "placeholder_tokens": ("<a>", "<b>"),
        "initializer_tokens": ("cat", "dog"), "output_dir": tmp_path / "run",
        "model": ModelConfig(model=str(tiny_folder), device="cpu"),
        "inversion": InversionConfig(**SHORT),
    }  # fmt: skip
    with pytest.raises(UserError, match=message) as said:
        compose(ComposeConfig(**settings | fields))
    assert "<slot" not in str(said.value)
    assert not (tmp_path / "run").exists()
    _, file = compose(ComposeConfig(**settings))
    assert file is not None


def test_a_caption_of_several_things_that_names_one_is_refused(photos, tiny_folder, tmp_path):
    for i in range(3):
        (photos / f"{i}.txt").write_text("a photo of <a> alone")
    config = ComposeConfig(
        images=(photos, photos), placeholder_tokens=("<a>", "<b>"), together=photos,
        initializer_tokens=("cat", "dog"), output_dir=tmp_path / "run",
        model=ModelConfig(model=str(tiny_folder), device="cpu"), inversion=InversionConfig(**SHORT),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"must (name two|contain)"):
        compose(config)
    assert not (tmp_path / "run").exists()
