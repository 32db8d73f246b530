"""What sets Nucleus-MoE-Image apart: experts that choose their tokens, and guided lengths."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline

import tiny
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["nucleus_moe"]), device="cpu"))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, ""), (6.0, ""), (6.0, "a dog")])
def test_pictures_are_the_stock_pipelines(folders, backbone, guidance, negative):
    """Guided ones, too, whose predictions are as long as those of the prompt alone."""
    stock = DiffusionPipeline.from_pretrained(folders["nucleus_moe"])
    noise = normal(1, backbone.autoencoder.channels, 16, 24, seed=3)
    options = {"negative_prompt": negative} if negative else {}
    theirs = stock(
        prompt="a cat on the moon",
        guidance_scale=guidance,
        num_inference_steps=3,
        height=32,
        width=48,
        latents=backbone.autoencoder.pack(noise),
        output_type="pt",
        **options,
    ).images
    sampling = SamplingConfig(
        num_inference_steps=3,
        height=32,
        width=48,
        guidance_scale=guidance,
        negative_prompt=negative,
    )
    own = backbone.draw(["a cat on the moon"], [0], sampling, latents=noise)
    assert torch.allclose((own + 1) / 2, theirs, atol=1e-5)


def test_the_experts_of_a_picture_do_not_look_at_others(backbone):
    """They take as many tokens of each picture, whatever stands beside it."""
    x, t = normal(3, backbone.autoencoder.channels, 8, 8), torch.tensor([0.2, 0.5, 0.8])
    cond = backbone.encode_prompt(["a cat", "a red dog on the moon", "a house"])
    with torch.no_grad():
        whole = backbone.predict(x, t, cond)
        loud = backbone.predict(x * torch.tensor([1.0, 50.0, -50.0])[:, None, None, None], t, cond)
    assert torch.allclose(whole[0], loud[0], atol=1e-5)
    assert not torch.allclose(whole[1], loud[1], atol=1e-2)


def test_fused_experts_say_and_learn_the_same(folders, backbone, tmp_path):
    """The published way runs all experts in one product."""
    pipeline = DiffusionPipeline.from_pretrained(folders["nucleus_moe"])
    pipeline.transformer.register_to_config(use_grouped_mm=True)
    fused = load_backbone(
        ModelConfig(model=str(tiny.save(pipeline, tmp_path / "fused")), device="cpu")
    )
    experts = [m for m in fused.denoiser.modules() if "use_grouped_mm" in vars(m)]
    assert [m.use_grouped_mm for m in experts] == [True, True]
    x, t = normal(2, backbone.autoencoder.channels, 8, 8), torch.tensor([0.3, 0.7])
    outcomes = []
    for model in (backbone, fused):
        cond = model.encode_prompt(["a cat", "a red dog"])
        leaf = cond.encoder_hidden_states.detach().requires_grad_()
        cond = type(cond)(leaf, extra=cond.extra)
        found = model.predict(x, t, cond)
        outcomes.append((found, *torch.autograd.grad(found.square().sum(), [leaf])))
    for one, other in zip(*outcomes, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
