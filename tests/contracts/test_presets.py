"""What a preset says of the pictures holds wherever pictures are learned from."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import ComposeConfig, TrainConfig
from oneword.config.scoring import StudyConfig
from oneword.config.tuning import TuningConfig
from oneword.images import from_uint8
from oneword.runs.compose import compose
from oneword.runs.events import Stepped
from oneword.runs.prepare import prepare
from oneword.runs.train import train
from oneword.study import work
from oneword.study.plan import Study


SIZE = 32
PUBLISHED = ("paper", "release")


@pytest.fixture
def flags(tmp_path):
    """A picture of 400 x 200 px, red with a blue left and a green right edge."""
    values = np.zeros((200, 400, 3), dtype=np.uint8)
    values[:, :, 0] = 255
    values[:, :80] = (0, 0, 255)
    values[:, -80:] = (0, 255, 0)
    folder = tmp_path / "flags"
    folder.mkdir()
    Image.fromarray(values).save(folder / "a.png")
    return folder


def expected(folder, preset):
    """As the authors' code reads a picture with a published preset, and as ours does else."""
    picture = Image.open(folder / "a.png")
    if preset in PUBLISHED:
        square = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    else:
        square = picture.crop((100, 0, 300, 200)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return from_uint8(np.asarray(square)[None])


def settings(preset, **fields):
    return InversionConfig(
        preset=preset, initializer_token="cat", max_train_steps=1, train_batch_size=1,
        evaluation_steps=1, num_evaluation_samples=1, learning_rate=1e-3, **fields,
    )  # fmt: skip


@pytest.mark.parametrize("preset", ["paper", "release", "default", "fast"])
def test_the_published_presets_squash_with_bicubic(preset, flags, tiny_sd):
    assert tiny_sd.resolution == SIZE
    config = TrainConfig(train_data_dir=flags, inversion=settings(preset))
    pictures = prepare(config, tiny_sd).job.pictures
    assert torch.equal(pictures, expected(flags, preset))
    blue, green = (bool(pictures[:, c].amax() > 0.9) for c in (2, 1))
    assert blue == green == (preset in PUBLISHED)
    cropped = TrainConfig(
        train_data_dir=flags,
        inversion=settings(preset, fit="crop", interpolation="lanczos"),
    )
    assert torch.equal(prepare(cropped, tiny_sd).job.pictures, expected(flags, "default"))


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_words_that_are_learned_together_follow_the_preset(preset, flags, tiny_folder, tmp_path):
    results, _ = compose(
        ComposeConfig(
            images=(flags, flags),
            placeholder_tokens=("<a>", "<b>"),
            initializer_tokens=("cat", "dog"),
            paste=0.0,
            output_dir=tmp_path / "run",
            model=ModelConfig(model=str(tiny_folder), device="cpu"),
            inversion=settings(preset),
        )
    )
    for result in results:
        assert torch.equal(result.job.pictures, expected(flags, preset))


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_class_pictures_follow_the_preset(preset, flags, tiny_folder, tmp_path):
    tuning = TuningConfig(prior_loss_weight=1.0, class_data_dir=flags, rare_token="cat")
    config = TrainConfig(
        train_data_dir=flags,
        output_dir=tmp_path / "run",
        model=ModelConfig(model=str(tiny_folder), device="cpu"),
        inversion=settings(preset, setup="lora-dreambooth", tuning=tuning),
        validation_steps=0,
        checkpointing_steps=1,
    )

    def stop(event):
        if isinstance(event, Stepped) and event.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    train(replace(config, inversion=replace(config.inversion, max_train_steps=3)), on_event=stop)
    with safetensors.safe_open(tmp_path / "run" / "state.safetensors", framework="pt") as state:
        names = [name for name in state.keys() if name.endswith("class")]  # noqa: SIM118
        (kept,) = map(state.get_tensor, names)
    assert torch.equal(from_uint8(kept.numpy()), expected(flags, preset))


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_a_study_compares_with_the_pictures_that_were_learned_from(
    preset, flags, tiny_folder, judge_folder, tmp_path
):
    study = Study(StudyConfig(
        output_dir=tmp_path / "study", concepts=(str(flags),), seeds=(0,), setups=("image-only",),
        model=ModelConfig(model=str(tiny_folder), device="cpu"),
        inversion=replace(settings(preset), initializer_token=None),
        sampling=SamplingConfig(num_inference_steps=1, guidance_scale=5.0),
        num_images_per_prompt=1, judge=str(judge_folder), dino="none",
    ))  # fmt: skip
    work.run_chunk(study.config, study.specs, lambda _: None)
    shown = np.asarray(Image.open(work.gallery_file(study.folder, study.specs[0])))
    blue = (shown[..., 2] > 200) & (shown[..., 0] < 60)
    assert blue.any() == (preset in PUBLISHED)
