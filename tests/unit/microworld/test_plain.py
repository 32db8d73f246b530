"""The plain denoiser and encoder compute what diffusers' classes compute."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from oneword.microworld import weights
from oneword.microworld.making import plain


@pytest.mark.parametrize("name", ["microworld", "microworld-nano"])
def test_the_denoiser_is_diffusers(name):
    folder = weights.pipeline_folder(name) / "unet"
    theirs = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    mine = plain.PlainUNet(plain.config_of(folder)).eval()
    mine.load_state_dict(plain.state_of(folder))
    generator = torch.Generator().manual_seed(0)
    config = theirs.config
    x = torch.randn((2, config.in_channels, 8, 8), generator=generator)
    states = torch.randn((2, 9, config.cross_attention_dim), generator=generator)
    t = torch.tensor([3, 750])
    with torch.inference_mode():
        torch.testing.assert_close(
            mine(x, t, states), theirs(x, t, states).sample, atol=2e-5, rtol=1e-4
        )


def test_attention_in_bf16_is_nearly_as_exact_as_torch_s():
    """Forward and backward, its error from float64 is under three times that of torch's kernel."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, tokens, 32) for tokens in (64, 77, 77)]
    exact = [torch.randn(shape, generator=generator).double() for shape in shapes]

    def found(attention, dtype):
        parts = [x.to(dtype, copy=True).requires_grad_() for x in exact]
        mixed = attention(*parts)
        mixed.square().sum().backward()
        return [mixed.double(), *(x.grad.double() for x in parts)]

    torch_s = torch.nn.functional.scaled_dot_product_attention
    for truth, mine, theirs in zip(
        found(torch_s, torch.float64),
        found(plain.attended, torch.bfloat16),
        found(torch_s, torch.bfloat16),
        strict=True,
    ):
        assert (mine - truth).norm() < 3 * (theirs - truth).norm()
        assert (mine - truth).norm() < 0.02 * truth.norm()


def test_the_trained_weights_go_back():
    """Every weight of the plain denoiser has its place in diffusers' and the other way round."""
    folder = weights.pipeline_folder("microworld-nano") / "unet"
    mine = plain.PlainUNet(plain.config_of(folder))
    theirs = UNet2DConditionModel.from_config(plain.config_of(folder))
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in mine.state_dict().items()} == shapes


@pytest.mark.parametrize("name", ["microworld", "microworld-nano"])
def test_the_encoder_is_diffusers(name):
    folder = weights.pipeline_folder(name) / "vae"
    theirs = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
    mine = plain.load_encoder(folder)
    pixels = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = theirs.encode(pixels).latent_dist
        mean, std = mine(pixels)
    torch.testing.assert_close(mean, expected.mean, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(std, expected.std, atol=2e-5, rtol=1e-4)


def test_a_damaged_landed_file_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "microworld-nano"
    (folder / "pipeline/unet").mkdir(parents=True)
    (folder / "pipeline/unet/config.json").write_text("{}")
    (folder / "card.json").write_text(
        '{"sha256": {"pipeline/unet/config.json": "0123456789abcdef"}}'
    )
    monkeypatch.setattr(plain, "_WEIGHTS", tmp_path)
    with pytest.raises(plain.LandedError, match=r"config\.json must have SHA-256 0123456789ab"):
        plain.landed("microworld-nano")
