"""The embedded models' guides: other pairs than the judges, and as good at their work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from oneword.cli.main import main
from oneword.config.model import EMBEDDED
from oneword.generation.guide import Guide, GuideError
from oneword.images import from_uint8, read_image
from oneword.microworld import weights
from oneword.microworld.making import pairs
from oneword.microworld.making.recipe import recipe_for
from oneword.models.clip_pairs import is_same


CPU = torch.device("cpu")
GUIDES = [name for name in EMBEDDED if weights.guide_folder(name).exists()]
"""Models that have one."""


@pytest.mark.parametrize("name", GUIDES)
def test_the_guide_is_another_pair_than_the_judge(name):
    sums = weights.card(name)["sha256"]
    assert sums["guide/model.safetensors"] != sums["judge/model.safetensors"]
    assert not is_same(str(weights.guide_folder(name)), str(weights.judge_folder(name)))
    guide = Guide.load(None, name, device=CPU)
    assert (guide.name, guide.tower) == ("microworld's guide", "clip_guide")
    assert guide.size == weights.card(name)["sizes"]["size_px"]
    with pytest.raises(GuideError, match="because it is also the judge"):
        Guide.load(str(weights.judge_folder(name)), name, device=CPU)


@pytest.mark.parametrize("name", GUIDES)
def test_the_guide_finds_captions_about_as_well_as_the_judge(name):
    card = weights.card(name)
    found = card["retrieval"]
    assert card["recipe"]["num_check_pictures"] >= 1000
    assert found["guide"] > found["judge"] - 0.03
    assert card["recipe"]["guide"]["num_samples"] == recipe_for(name).guide.num_samples


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDES)
def test_the_cards_figures_are_found_again(name):
    recipe = recipe_for(name)
    for pair, value in weights.card(name)["retrieval"].items():
        found = pairs.pair_retrieval(weights.WEIGHTS / name / pair, recipe)
        assert found == pytest.approx(value, abs=0.005)


def test_the_tiny_model_has_one():
    assert "microworld-nano" in GUIDES


def test_guided_pictures_are_nearer_to_the_text_for_the_guide(tmp_path):
    """The command as people type it, on the tiny model; what the guide sees rises."""
    seen = {}
    for scale in (0, 1000):
        folder = tmp_path / str(scale)
        assert main([
            "baseline", "clip-diffusion", "a photo of a red mug on the beach", "a drawing of a cat",
            "--model", "microworld-nano", "--device", "cpu", "--num-inference-steps", "12",
            "--clip-scale", str(scale), "--num-images-per-prompt", "2", "--num-cutouts", "4",
            "--output-dir", str(folder), "--json", str(folder / "all.json"),
        ]) == 0  # fmt: skip
        seen[scale] = [one["file"] for one in json.loads((folder / "all.json").read_text())]
    guide = Guide.load(None, "microworld-nano", device=CPU)
    rise = []
    for before, after in zip(seen[0], seen[1000], strict=True):
        prompt = "a photo of a red mug on the beach" if "mug" in before else "a drawing of a cat"
        said = guide.text_features([prompt])
        values = [
            float((guide.image_features(_picture(p)) @ said.T)[0, 0]) for p in (before, after)
        ]
        rise.append(values[1] - values[0])
    assert sum(rise) / len(rise) > 0.02


def _picture(path):
    return (from_uint8(np.asarray(read_image(Path(path)))[None]) + 1) / 2
