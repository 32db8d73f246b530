"""What sets DeepFloyd IF apart: pixels, a variance that is predicted besides, a safety checker."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.deepfloyd_if import IFSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

import tiny
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.generation.ddim_inversion import inverted
from oneword.models.families.deepfloyd_if import DeepFloydIF
from oneword.models.loading import load_backbone


FEW = SamplingConfig(num_inference_steps=2, height=64, width=64)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["deepfloyd_if"]), device="cpu"))


@pytest.fixture(scope="module")
def picture():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_pictures_are_their_own_latents(backbone, picture):
    moments = backbone.encode_image(picture)
    assert torch.equal(moments.mean, picture)
    assert not moments.std.any()
    assert torch.equal(backbone.decode_latents(picture), picture)
    assert torch.equal(backbone.decode_latents(3 * picture), (3 * picture).clamp(-1, 1))
    part = backbone.autoencoder
    assert (part.factor, part.channels, backbone.resolution) == (1, 3, 64)


def test_the_noise_is_the_stock_pipelines_without_the_variance(folders, backbone):
    stock, seen = DiffusionPipeline.from_pretrained(folders["deepfloyd_if"]), []
    stock.set_progress_bar_config(disable=True)
    assert type(stock.scheduler).__name__ == "DDPMScheduler"
    step = stock.scheduler.step

    def look(prediction, t, sample, generator=None, **options):
        seen.append((prediction, t, sample))
        return step(prediction, t, sample, generator=generator, **options)

    stock.scheduler.step = look
    stock("A Red cat", num_inference_steps=2, guidance_scale=1.0, output_type="pt")
    prediction, t, sample = seen[-1]
    assert prediction.shape == (1, 6, 64, 64)
    with torch.no_grad():
        own = backbone.predict(sample, t[None], backbone.encode_prompt(["a Red cat"]))
    assert torch.allclose(own, prediction[:, :3], atol=1e-5)


def test_pictures_are_kept_in_range_as_by_the_models_own_solver(backbone):
    """Its guesses are cut at a quantile, or with guidance they would leave the range of pixels."""
    config = backbone.pipeline.scheduler.config
    assert (config.thresholding, config.dynamic_thresholding_ratio) == (True, 0.95)
    assert config.sample_max_value == 1.5
    strong = replace(FEW, guidance_scale=30.0)
    seen = []
    backbone.draw(["a cat"], [0], strong, on_latents=lambda x, t: seen.append(x) or x)
    assert seen[-1].abs().max() <= 1.01


def test_a_picture_hardly_drawn_over_is_itself(backbone, picture):
    """It is handed to the pipeline as it is, in [-1, 1]."""
    many = replace(FEW, num_inference_steps=500)
    drawn = backbone.draw(["a cat"], [0], many, image=picture, strength=0.002)
    assert (drawn - picture).abs().max() < 0.1
    mask = torch.zeros(1, 1, 64, 64)
    drawn = backbone.draw(["a cat"], [0], FEW, image=picture, mask=mask, strength=1.0)
    assert torch.allclose(drawn, picture, atol=1e-5)


def test_padding_is_read(backbone):
    """By the pipeline's design: the UNet is given no mask. So it has one length for all prompts."""
    cond = backbone.encode_prompt(["a cat", "a dog on the moon"])
    assert cond.encoder_hidden_states.shape[1] == 77
    changed = cond.encoder_hidden_states.clone()
    changed[:, 40:] = 0
    x, t = torch.zeros(2, 3, 8, 8), torch.tensor([5, 900])
    with torch.no_grad():
        plain = backbone.predict(x, t, cond)
        other = backbone.predict(x, t, replace(cond, encoder_hidden_states=changed))
    assert not torch.allclose(plain, other, atol=1e-4)


def test_what_the_safety_checker_finds_is_black(tmp_path):
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    vision = size | {"image_size": 24, "patch_size": 8, "projection_dim": 12}
    checker = IFSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=12)).eval()
    reader = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    pipeline = tiny.make("deepfloyd_if", safety_checker=checker, feature_extractor=reader)
    backbone = DeepFloydIF(pipeline, ModelConfig(model="x", device="cpu"))
    for head in (checker.p_head, checker.w_head):
        torch.nn.init.constant_(head.bias, -100.0)
    clean = backbone.draw(["a cat"] * 2, [0, 1], FEW)
    torch.nn.init.constant_(checker.w_head.bias, 100.0)
    with pytest.warns(
        UserWarning,
        match=r"blackened picture\(s\) \[0, 1\]; to turn it off, pass --no-safety-checker",
    ):
        flagged = backbone.draw(["a cat"] * 2, [0, 1], FEW)
    assert not (clean == -1).all()
    assert (flagged == -1).all()


def test_its_noise_does_not_lead_back_to_a_picture(backbone, picture):
    with pytest.raises(ModelError, match=r"its noise keeps only"):
        inverted(backbone, picture, "a cat", SamplingConfig(num_inference_steps=10))
