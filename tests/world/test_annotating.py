"""The way from captions and masks to training, measured against the world's truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.images import from_uint8, to_images
from oneword.microworld.world import captions, concepts
from oneword.microworld.world.drawn import concept_masks, concept_pictures
from oneword.runs.annotate import annotate
from oneword.runs.prepare import prepare
from oneword.runs.train import train


SIZE = 64
THING = concepts.get("gold-mug")


@pytest.fixture
def world(tmp_path):
    """Pictures of a thing, and what the world knows of each, by its bytes."""
    folder = tmp_path / "mug"
    folder.mkdir()
    scenes = concepts.concept_scenes(THING, 4)
    drawn = to_images(from_uint8(concept_pictures(THING, 4, size=SIZE)))
    truth = {}
    for number, (image, scene, mask) in enumerate(
        zip(drawn, scenes, concept_masks(THING, 4, size=SIZE), strict=True)
    ):
        image.save(folder / f"{number}.png")
        text = captions.caption(scene, np.random.default_rng(number))
        truth[image.tobytes()] = text, mask["silhouette"]
    return folder, truth


def test_the_truth_reaches_training_whole(world, tmp_path):
    folder, truth = world
    annotate(
        folder,
        caption=lambda image: truth[image.tobytes()][0],
        mark=lambda image: Image.fromarray(truth[image.tobytes()][1]),
        placeholder_token="<mug>",
        noun="mug",
    )
    config = TrainConfig(
        train_data_dir=folder,
        output_dir=tmp_path / "run",
        model=ModelConfig(model="microworld-nano", device="cpu"),
        inversion=InversionConfig(
            placeholder_token="<mug>", initializer_token="mug", max_train_steps=4,
            train_batch_size=2, num_evaluation_samples=4, evaluation_steps=2,
        ),
        validation_steps=0,
    )  # fmt: skip
    prepared = prepare(config)
    assert (prepared.plan["captions"], prepared.plan["masks"]) == (True, True)
    silhouettes = torch.stack([torch.from_numpy(mask) for _, mask in truth.values()])
    marked = prepared.job.masks[:, 0] > 0.5
    assert (marked & silhouettes).sum() / (marked | silhouettes).sum() == 1.0
    for caption, (text, _) in zip(prepared.job.captions, truth.values(), strict=True):
        assert caption == (text.replace("mug", "<mug>", 1) if "mug" in text else f"<mug>, {text}")
    assert train(config, backbone=prepared.backbone).result.status == "finished"
