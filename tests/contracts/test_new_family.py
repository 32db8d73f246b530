"""One record and one file make a family: a made-up one is listed, resolved, sniffed and loaded."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPAGPipeline
from safetensors.torch import load_file, save_file

import pages
import tiny
from oneword import catalog
from oneword.catalog import Family, TextEncoder
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.formats.names import encoder_of_width, family_of
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models import families
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.models.probe import probe


FILE = '''
"""The family's file: Stable Diffusion on another class of pipelines."""

from diffusers import StableDiffusionPAGPipeline

from oneword.models.assembly import load_pipeline
from oneword.models.families.stable_diffusion import StableDiffusion


def load(config):
    return MadeUp(load_pipeline(
        config, StableDiffusionPAGPipeline, config.model,
        safety_checker=None, requires_safety_checker=False,
    ), config)


class MadeUp(StableDiffusion):
    def __init__(self, pipeline, config):
        super().__init__(pipeline, config)
        self.family = "made_up"
'''
RECORD = Family(
    name="made_up",
    title="Made-Up",
    pipelines=("StableDiffusionPAGPipeline",),
    single_files=("mochi",),
    text_encoders=(
        TextEncoder(
            key="made_1b", title="Made 1B", width=40, other_size="made", aliases=("made_alias",),
            by_width=True, fits="a made-up encoder",
        ),
    ),
    prediction_type="epsilon",
    draws=("from noise", "over a picture"),
    examples=("someone/made-up",),
)  # fmt: skip


@pytest.fixture
def record(tmp_path, monkeypatch):
    """The made-up family beside the others."""
    place = tmp_path / "families"
    place.mkdir()
    (place / "made_up.py").write_text(FILE)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(place)])
    monkeypatch.setitem(catalog.FAMILIES, RECORD.name, RECORD)
    return RECORD


@pytest.fixture
def folder(tmp_path):
    """A tiny pipeline of it."""
    pipeline = StableDiffusionPAGPipeline(
        **tiny.make("stable_diffusion").components,
        requires_safety_checker=False,
    )
    return tiny.save(pipeline, tmp_path / "model")


def test_it_is_not_there_without_its_record(folder):
    with pytest.raises(ModelError, match=r"supported family .* got StableDiffusionPAGPipeline"):
        load_backbone(ModelConfig(model=str(folder), device="cpu"))


def test_it_is_listed(record, tmp_path, capsys):
    assert main(["models", "--json", str(tmp_path / "m.json")]) == 0
    assert "made_up\n  text encoders: made_1b\n" in capsys.readouterr().out
    *_, last = json.loads((tmp_path / "m.json").read_text())
    assert last["family"] == "made_up"
    assert last["edits"] == "inside a mask, over a picture"


def test_the_pages_would_tell_of_it(record):
    assert "| `made_up`: Made-Up | `made_1b` |" in pages.BLOCKS["relative"]()
    assert (
        "| `made_1b` (also read: `made_alias`) | Made 1B | 40 | Made-Up |" in pages.BLOCKS["keys"]()
    )
    before = len([f for f in catalog.FAMILIES.values() if f.recipe == "relative"]) - 1
    assert pages.BLOCKS["num_relative"]() == str(before + 1)


@pytest.mark.parametrize("preset", ["default", "fast"])
def test_presets_are_resolved_for_it(record, preset):
    config = InversionConfig(preset=preset).resolved("made_up")
    assert (config.relative_learning_rate, config.learning_rate) == (0.14, None)
    assert InversionConfig(preset=preset).resolved("nothing").learning_rate == 2e-3


def test_its_words_are_read_and_written_by_their_key(record, tmp_path):
    word = Concept(placeholder_token="<w>", rows={"made_1b": torch.ones(1, 40)})
    (path,) = formats.save_concept(word, tmp_path / "comfyui.safetensors", "comfyui")
    assert set(load_file(path)) == {"made_1b"}
    for name in ("made_1b", "made_alias", "emb_params"):
        save_file({name: torch.ones(1, 40)}, tmp_path / "w.safetensors")
        assert set(formats.load_concept(tmp_path / "w.safetensors").rows) == {"made_1b"}, name
    save_file({"made": torch.ones(1, 24)}, tmp_path / "w.safetensors")
    assert set(formats.load_concept(tmp_path / "w.safetensors").rows) == {"made"}
    assert encoder_of_width(40) == "made_1b"
    assert family_of({"made_1b": 40}) == "a made-up encoder"


def test_its_single_files_are_recognised(record, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"blocks.0.attn.qkv_x.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="must be a whole StableDiffusionPAGPipeline"):
        load_backbone(ModelConfig(model=str(path), device="cpu"))


def test_it_is_loaded_and_draws(record, folder):
    assert probe(ModelConfig(model=str(folder), device="cpu")).family == "made_up"
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    assert isinstance(backbone, Backbone)
    assert backbone.family == "made_up"
    drawn = backbone.draw(["a cat"], [0], SamplingConfig(num_inference_steps=2))
    assert drawn.shape == (1, 3, 32, 32)
