"""What sets Ideogram 4 apart: woven layers, one sequence, and a second network that guides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import Ideogram4Pipeline
from diffusers.pipelines.ideogram4.pipeline_ideogram4 import (
    _logit_normal_sigmas,
    _resolution_aware_mu,
)

from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.families import ideogram4
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=3, height=64, width=96)
PROMPTS = ["a cat", "a red dog on the moon"]


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["ideogram4"]), device="cpu"))


@pytest.fixture(scope="module")
def stock(folders):
    pipeline = Ideogram4Pipeline.from_pretrained(folders["ideogram4"])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def word(backbone, text="red cat"):
    (vocabulary,) = backbone.vocabularies.values()
    return Concept(placeholder_token="<Toy>", rows={vocabulary.name: vocabulary.rows_of(text)})


def test_prompts_are_the_stock_pipelines_but_for_padding(backbone, stock):
    """The stock pipeline pads to 2048 tokens, on the left."""
    theirs, _, _, roles = stock.encode_prompt(PROMPTS, 8, 8, 96, torch.device("cpu"))
    own = backbone.encode_prompt(PROMPTS)
    length = own.extra["mask"].shape[1]
    assert own.extra["mask"].sum(1).tolist() == (roles == 3).sum(1).tolist()
    assert own.extra["mask"][1].all()
    assert torch.allclose(own.encoder_hidden_states, theirs[:, 96 - length : 96], atol=1e-5)


@pytest.mark.parametrize("size", [(2, 3), (5, 1)])
def test_the_layout_is_the_stock_pipelines(backbone, size):
    mask = torch.arange(7).expand(3, -1) >= torch.tensor([[0], [2], [6]])
    theirs = Ideogram4Pipeline._prepare_ids([7, 5, 1], *size, 7, torch.device("cpu"))
    for own, expected in zip(backbone._layout(mask, size), theirs, strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize(("steps", "weak"), [(4, 0), (16, 1)])
def test_pictures_are_the_stock_pipelines(backbone, stock, steps, weak):
    """With its guidance, which falls to 3 in the last sixteenth of the steps."""
    noise = backbone._noise([torch.Generator().manual_seed(s) for s in (1, 2)], (16, 24))
    theirs = stock(
        PROMPTS,
        height=64,
        width=96,
        num_inference_steps=steps,
        guidance_schedule=[7.0] * (steps - weak) + [3.0] * weak,
        latents=noise.flatten(2).transpose(1, 2),
        max_sequence_length=64,
        output_type="pt",
    ).images
    sampling = SamplingConfig(num_inference_steps=steps, height=64, width=96)
    own = backbone.draw(PROMPTS, [1, 2], sampling)
    assert torch.allclose((own + 1) / 2, theirs, atol=1e-3)


def test_the_default_guidance_is_the_pipelines_recommended_one(backbone):
    options = backbone._draw_options(backbone.sampling)
    assert options == {"guidance_scale": None, "guidance_schedule": [7.0] * 45 + [3.0] * 3}
    weak = backbone._draw_options(SamplingConfig(guidance_scale=1.0, num_inference_steps=16))
    assert weak["guidance_schedule"] == [1.0] * 16


def test_the_unguided_network_sees_no_text(backbone):
    """Guidance of nothing is the second network alone, whatever the prompt."""
    none = SamplingConfig(num_inference_steps=3, height=64, width=64, guidance_scale=0.0)
    one, other = (backbone.draw([prompt], [3], none) for prompt in PROMPTS)
    assert torch.equal(one, other)
    guided = [backbone.draw([prompt], [3], FEW) for prompt in PROMPTS]
    assert not torch.allclose(*guided, atol=1e-3)


def test_latents_are_patches_with_their_place_first(backbone, stock):
    """The pipeline decodes packed latents of (rows, columns, channels)."""
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    mean = backbone.autoencoder.vae.encode(pixels).latent_dist.mean
    own = ideogram4._patchified(mean)
    by_hand = mean.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))  # b c h p w q
    by_hand = by_hand.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    assert torch.equal(own, by_hand)
    assert torch.equal(ideogram4._unpatchified(own), mean)
    again = backbone.decode_latents(backbone.encode_image(pixels).mean)
    assert torch.allclose(again, stock.vae.decode(mean).sample.clamp(-1, 1), atol=1e-5)


def test_noise_levels_are_spread_as_the_steps_are(backbone):
    side = 16
    size = (side * backbone.autoencoder.factor,) * 2
    u = torch.linspace(0, 1, 9)[1:]
    mean = _resolution_aware_mu(*size, 0.0)
    expected = _logit_normal_sigmas(8, mean, 1.5).flip(0)
    found = backbone.sample_t(u, (side, side))
    assert torch.allclose(found[:-1], expected[:-1], atol=1e-4)


def test_a_word_learns_to_the_end_of_the_room_and_is_refused_beyond(backbone):
    (vocabulary,) = backbone.vocabularies.values()
    rows = {name: r.requires_grad_() for name, r in word(backbone).rows.items()}
    late = "the" + " cat" * (vocabulary.max_length - 3) + " <Toy>"
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with injected(backbone, [Concept(placeholder_token="<Toy>", rows=rows)]):
        cond = backbone.encode_prompt([late])
        loss = backbone.predict(x, torch.tensor([0.4]), cond).square().sum()
        (gradient,) = torch.autograd.grad(loss, list(rows.values()))
        assert gradient.abs().sum(1).min() > 0
        with pytest.raises(PlaceholderError, match=r"must fit .* tokens up to its placeholder"):
            backbone.encode_prompt(["the" + " cat" * 128 + " <Toy>"])
    with pytest.raises(ModelError, match=r"must fit into 128 tokens with its template, got"):
        backbone.encode_prompt(["cat " * 200])


def test_negative_prompts_are_refused(backbone):
    with pytest.raises(ModelError, match="negative prompt 'dog'"):
        backbone.draw(["a cat"], [0], replace(FEW, negative_prompt="dog"))


@pytest.mark.parametrize("options", [{"offload": "vae"}, {"offload": "all"}], ids=str)
def test_the_second_network_draws_wherever_it_waits(folders, backbone, options):
    other = load_backbone(
        ModelConfig(model=str(folders["ideogram4"]), device="cpu", **options), Work(samples=1)
    )
    found = other.draw(["a cat"], [0], FEW)
    assert torch.allclose(found, backbone.draw(["a cat"], [0], FEW), atol=1e-5)
