"""A folder of any family: what the probe says of it, and what it finds in the way."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from diffusers import (
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
)

import tiny
from oneword.cli.main import main
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.probe import probe, try_road


def probed(folder):
    return probe(ModelConfig(model=str(folder), device="cpu"))


def test_every_text_encoder_of_several_is_reached(folders):
    found = probed(folders["sd3"])
    assert (found.pipeline, found.family, found.reaches) == (
        "StableDiffusion3Pipeline", "sd3", True,
    )  # fmt: skip
    assert [(e.text_encoder, e.tokenizer) for e in found.encoders] == [
        ("text_encoder", "tokenizer"),
        ("text_encoder_2", "tokenizer_2"),
        ("text_encoder_3", "tokenizer_3"),
    ]
    t5 = found.encoders[2]
    assert t5.table == (163, 96)
    assert t5.num_tokens == 154
    assert t5.lookups == ("shared", "encoder.embed_tokens")  # the second is the one that runs
    assert all(e.stands_for and e.learns for e in found.encoders)


def test_text_encoders_that_are_asked_one_at_a_time_are_reached(folders):
    found = probed(folders["hunyuan_dit"])
    assert found.reaches
    assert [(e.tokenizer, e.stands_for, e.learns) for e in found.encoders] == [
        ("tokenizer", True, True),
        ("tokenizer_2", True, True),
    ]


def test_a_tokenizer_inside_a_processor_is_found(folders):
    (encoder,) = probed(folders["flux2_dev"]).encoders
    assert encoder.tokenizer == "tokenizer.tokenizer"
    assert encoder.learns
    assert encoder.stands_for


def latent_consistency():
    """A family that has no file here."""
    parts = tiny.make("stable_diffusion").components
    return LatentConsistencyModelPipeline(
        **parts | {"scheduler": LCMScheduler()}, requires_safety_checker=False
    )


def test_a_family_that_is_not_listed_is_told_from_one_that_cannot_be_reached(tmp_path, capsys):
    folder = tiny.save(latent_consistency(), tmp_path / "model")
    assert main(["models", "--probe", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "LatentConsistencyModelPipeline, no family" in out
    assert "text_encoder: CLIPTextModel" in out
    assert "The generic way" in out
    assert "`oneword train` cannot load it" in out


def test_a_pipeline_without_encode_prompt(folders, capsys):
    assert main(["models", "--probe", str(folders["ldm"])]) == 1
    out = capsys.readouterr().out
    assert "bert: LDMBertModel" in out
    assert "a gradient reaches the embedding: not tried" in out
    assert "problem: the pipeline has no encode_prompt" in out


class LowerCase(StableDiffusionPipeline):
    def encode_prompt(self, prompt, device, num_images_per_prompt, do_classifier_free_guidance):
        return super().encode_prompt([p.lower() for p in prompt], device, 1, False)


class CutsOff(StableDiffusionPipeline):
    def encode_prompt(self, prompt, device, num_images_per_prompt, do_classifier_free_guidance):
        return super().encode_prompt(["a " + p[:4] for p in prompt], device, 1, False)


class NoGradient(StableDiffusionPipeline):
    @torch.no_grad()
    def encode_prompt(self, prompt, device, num_images_per_prompt, do_classifier_free_guidance):
        return super().encode_prompt(prompt, device, 1, False)


class AsksForMore(StableDiffusionPipeline):
    def encode_prompt(self, prompt, device, num_images_per_prompt, do_classifier_free_guidance):
        raise RuntimeError("this pipeline must be told the weather")


class OtherName(StableDiffusionPipeline):
    def encode_prompt(self, text, device, num_images_per_prompt, do_classifier_free_guidance):
        return super().encode_prompt(text, device, 1, False)


@pytest.mark.parametrize(
    ("kind", "stands_for", "message"),
    [
        (
            LowerCase,
            False,
            "no gradient reaches an embedding of text_encoder: the word is cut off or",
        ),
        (LowerCase, False, "the prompt is changed on the way, such as to lower case"),
        (CutsOff, True, "no gradient reaches an embedding"),
        (NoGradient, True, "or encode_prompt disables gradients"),
        (AsksForMore, None, "failed with RuntimeError: this pipeline must be told the weather"),
        (OtherName, None, "it takes no prompt but text"),
    ],
)
def test_what_stands_in_the_way_is_said(folders, kind, stands_for, message):
    pipeline = kind.from_pretrained(
        folders["stable_diffusion"], safety_checker=None, requires_safety_checker=False
    )
    found = try_road(pipeline, "strange")
    assert not found.reaches
    assert message in " ".join(found.problems)
    assert found.encoders[0].stands_for is stands_for
    assert not found.encoders[0].learns
    assert type(pipeline.tokenizer).__name__ == "CLIPTokenizer"


@pytest.mark.skipif(find_spec("onnxruntime") is not None, reason="onnxruntime is there")
def test_a_library_that_a_pipeline_lacks_is_named(tmp_path):
    kind = "OnnxStableDiffusionPipeline"
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(ModelError, match=f"got: {kind} requires the onnxruntime library"):
        probed(tmp_path)


def test_a_pipeline_without_text_says_so(folders):
    pipeline = StableDiffusionPipeline.from_pretrained(
        folders["stable_diffusion"], safety_checker=None, tokenizer=None,
        requires_safety_checker=False,
    )  # fmt: skip
    found = try_road(pipeline, "strange")
    assert found.unpaired == ("text_encoder",)
    assert "no text encoder with an embedding table and a tokenizer" in found.problems[0]


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(ModelError, match="must be a diffusers pipeline with a model_index"):
        probed(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError, match="must be a whole FluxPipeline, got: "):
        probed(tmp_path)
