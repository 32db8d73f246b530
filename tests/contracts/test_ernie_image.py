"""What sets ERNIE-Image apart: prompts without a template, read without padding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import ErnieImagePipeline

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=3, height=64, width=96)
PROMPTS = ["a cat", "a red dog on the moon", ""]


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["ernie_image"]), device="cpu"))


@pytest.fixture(scope="module")
def stock(folders):
    return ErnieImagePipeline.from_pretrained(folders["ernie_image"])


def word(backbone, text="red cat"):
    (vocabulary,) = backbone.vocabularies.values()
    return Concept(placeholder_token="<Toy>", rows={vocabulary.name: vocabulary.rows_of(text)})


def test_prompts_of_several_lengths_are_read_as_the_stock_pipeline_reads_each(backbone, stock):
    theirs = stock.encode_prompt(PROMPTS, torch.device("cpu"))
    own = backbone.encode_prompt(PROMPTS)
    assert own.extra["mask"].sum(1).tolist() == [len(states) for states in theirs]
    for states, alone in zip(own.encoder_hidden_states, theirs, strict=True):
        assert torch.allclose(states[: len(alone)], alone, atol=1e-5)


def test_pictures_are_the_stock_pipelines(backbone, stock):
    noise = backbone._noise([torch.Generator().manual_seed(s) for s in (1, 2)], (16, 24))
    options = {"height": 64, "width": 96, "num_inference_steps": 3, "guidance_scale": 4.0}
    theirs = stock(
        PROMPTS[:2], latents=noise, output_type="pt", negative_prompt="a house", **options
    ).images
    own = backbone.draw(PROMPTS[:2], [1, 2], replace(FEW, negative_prompt="a house"))
    theirs = torch.stack([torch.as_tensor(picture) for picture in theirs])
    assert torch.allclose((own + 1) / 2, theirs, atol=1e-4)
    assert not torch.equal(own, backbone.draw(PROMPTS[:2], [1, 2], FEW))


def test_moments_are_scaled_by_the_batch_norm_that_the_pipeline_undoes(backbone):
    """It takes another epsilon than the published setting."""
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    vae, moments = backbone.autoencoder.vae, backbone.encode_image(pixels)
    raw = backbone.pipeline._patchify_latents(vae.encode(pixels).latent_dist.mean)
    spread = (vae.bn.running_var + 1e-5).sqrt()[:, None, None]
    assert torch.allclose(moments.mean, (raw - vae.bn.running_mean[:, None, None]) / spread)


def test_what_would_rewrite_prompts_is_left_out(backbone, tmp_path):
    """It is a language model of 4 B parameters, and would lose the word."""
    pipeline = tiny.make("ernie_image")
    pipeline.register_modules(pe=pipeline.text_encoder, pe_tokenizer=pipeline.tokenizer)
    found = load_backbone(
        ModelConfig(model=str(tiny.save(pipeline, tmp_path / "pe")), device="cpu")
    )
    assert found.pipeline.pe is None
    assert torch.equal(found.draw(["a cat"], [0], FEW), backbone.draw(["a cat"], [0], FEW))


def test_a_word_of_two_vectors_learns_to_the_end_of_the_room(backbone):
    (vocabulary,) = backbone.vocabularies.values()
    rows = {name: r.requires_grad_() for name, r in word(backbone).rows.items()}
    late = "the" + " cat" * (vocabulary.max_length - 3) + " <Toy>"
    with injected(backbone, [Concept(placeholder_token="<Toy>", rows=rows)]):
        found = backbone.encode_prompt([late, "a <Toy>"]).encoder_hidden_states
        (gradient,) = torch.autograd.grad(found[0].square().sum(), list(rows.values()))
        assert gradient.abs().sum(1).min() > 0
        with pytest.raises(PlaceholderError, match=r"must fit .* tokens up to its placeholder"):
            backbone.encode_prompt([f"cat {late}"])


@pytest.mark.parametrize(("name", "steps"), [("ERNIE-Image", 50), ("ERNIE-Image-Turbo", 8)])
def test_the_distilled_model_is_told_by_its_name(tmp_path, name, steps):
    found = load_backbone(
        ModelConfig(model=str(tiny.save(tiny.make("ernie_image"), tmp_path / name)), device="cpu")
    )
    assert found.sampling.num_inference_steps == steps


def test_a_file_names_the_reader(backbone, tmp_path):
    concept = word(backbone)
    (path,) = formats.save_concept(concept, tmp_path / "word.safetensors", "comfyui")
    assert list(formats.load_concept(path).rows) == ["ministral3"]
