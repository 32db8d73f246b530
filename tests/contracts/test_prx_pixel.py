"""What sets PRXPixel apart: pixels, louder noise, a predicted picture, and light cleaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.families.prx import PixelFlow
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=3, height=32, width=48)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["prx_pixel"]), device="cpu"))


def word(backbone, text="red cat", token="<Toy>"):
    (vocabulary,) = backbone.vocabularies.values()
    return Concept(placeholder_token=token, rows={vocabulary.name: vocabulary.rows_of(text)})


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, ""), (5.0, ""), (5.0, "a dog")])
def test_pictures_are_the_stock_pipelines(folders, backbone, guidance, negative):
    stock = DiffusionPipeline.from_pretrained(folders["prx_pixel"])
    theirs = stock(
        "a cat on the moon",
        negative_prompt=negative,
        guidance_scale=guidance,
        num_inference_steps=3,
        height=32,
        width=48,
        generator=torch.Generator().manual_seed(3),
        use_resolution_binning=False,
        output_type="pt",
    ).images
    sampling = SamplingConfig(
        num_inference_steps=3,
        height=32,
        width=48,
        guidance_scale=guidance,
        negative_prompt=negative,
    )
    own = backbone.draw(["a cat on the moon"], [3], sampling)
    assert own.shape == (1, 3, 32, 48)
    assert torch.allclose(own, theirs.clamp(-1, 1), atol=1e-5)


def test_noise_is_twice_as_loud_and_the_target_leads_to_the_picture():
    """In float64: what the pipeline makes of a right picture is the target, at every time."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 8, 8, generator=generator).double().unbind()
    t = torch.tensor([0.001, 0.03, 0.5, 0.97]).double()
    flow = PixelFlow(None, 2.0)
    s = t.numpy()[:, None, None, None]
    x_t = (1 - s) * x0.numpy() + s * 2 * noise.numpy()
    assert np.allclose(flow.add_noise(x0, noise, t).numpy(), x_t, atol=1e-12)
    expected = (x_t - x0.numpy()) / np.maximum(s, 0.05)
    assert np.allclose(flow.target(x0, noise, t).numpy(), expected, atol=1e-10)


def test_pictures_are_their_own_latents(backbone):
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    moments = backbone.encode_image(pixels)
    assert torch.equal(moments.mean, pixels)
    assert not moments.std.any()
    assert torch.equal(backbone.decode_latents(pixels), pixels)


def test_several_prompts_are_guided_at_once(backbone):
    prompts = ["a cat", "a dog", "a red house on the moon"]
    drawn = backbone.draw(prompts, [1, 2, 3], FEW)
    for i, prompt in enumerate(prompts):
        assert torch.allclose(drawn[i], backbone.draw([prompt], [i + 1], FEW)[0], atol=1e-5)


def test_cleaning_mends_what_stands_beside_a_word_and_spares_it(folders, backbone):
    """Curly quotes and HTML's entities are mended in prompts, but not inside a placeholder."""
    stock = DiffusionPipeline.from_pretrained(folders["prx_pixel"])
    ids, mask = stock._tokenize_prompts([" a \u2018big\u2019 red cat &amp; a dog "], "cpu")
    with injected(backbone, [word(backbone, token="<l\u2019ami>")]):
        own, own_mask = backbone.pipeline._tokenize_prompts(
            [" a \u2018big\u2019 <l\u2019ami> &amp; a dog "], "cpu"
        )
        told = backbone.encode_prompt(["a <l\u2019ami>"]).encoder_hidden_states
    plain = backbone.encode_prompt(["a red cat"]).encoder_hidden_states
    assert torch.allclose(told, plain, atol=1e-6)
    assert torch.equal(own_mask, mask)
    changed = own != ids
    assert changed.sum() == 2  # the two rows that stand for "red cat"


def test_a_word_at_the_last_place_of_a_prompt_still_counts(backbone):
    (vocabulary,) = backbone.vocabularies.values()
    assert vocabulary.max_length == 48
    rows = word(backbone).rows[vocabulary.name].clone().requires_grad_()
    learned = Concept(placeholder_token="<Toy>", rows={vocabulary.name: rows})
    with injected(backbone, [learned]):
        found = backbone.encode_prompt(["the" + " cat" * 45 + " <Toy>"]).encoder_hidden_states
        (gradient,) = torch.autograd.grad(found.square().sum(), [rows])
        assert gradient.abs().sum(1).min() > 0
        with pytest.raises(PlaceholderError, match=r"must fit .* tokens up to its placeholder"):
            backbone.encode_prompt(["the" + " cat" * 46 + " <Toy>"])


def test_an_autoencoder_is_refused(folders, tmp_path):
    folder = folders["prx"] / "vae"
    with pytest.raises(ModelError, match=r"--vae .* with PRXPixel because it draws pixels"):
        load_backbone(ModelConfig(model=str(folders["prx_pixel"]), device="cpu", vae=str(folder)))
