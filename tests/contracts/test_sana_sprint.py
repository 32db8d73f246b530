"""What sets Sana-Sprint apart: pictures and noise on a circle, and a model of where paths end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch.distributions import Normal

from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone


FEW = SamplingConfig(num_inference_steps=2, height=64, width=64)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["sana_sprint"]), device="cpu"))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mean_target(backbone, x, t, pictures):
    """Mean of the target over all pictures of the data, given latents; float64, one by one."""
    noises = [(x - np.cos(t) * picture) / np.sin(t) for picture in pictures]
    logs = np.array([-0.5 * np.square(noise).sum() for noise in noises])
    weights = np.exp(logs - logs.max())
    time = torch.tensor([t], dtype=torch.float64)
    targets = [
        backbone.target(torch.tensor(picture)[None], torch.tensor(noise)[None], time)[0].numpy()
        for picture, noise in zip(pictures, noises, strict=True)
    ]
    return sum(w * v for w, v in zip(weights / weights.sum(), targets, strict=True))


def path(backbone, x, t, pictures, num_steps=400, end=1e-3):
    """Where the path of latents leads: the ODE of the mean target, by Runge and Kutta's fourth."""
    h = (end - t) / num_steps
    for i in range(num_steps):
        now = t + i * h
        a = mean_target(backbone, x, now, pictures)
        b = mean_target(backbone, x + h / 2 * a, now + h / 2, pictures)
        c = mean_target(backbone, x + h / 2 * b, now + h / 2, pictures)
        d = mean_target(backbone, x + h * c, now + h, pictures)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


@pytest.mark.parametrize("t", [0.3, 1.0, 1.5])
def test_the_target_is_what_a_consistency_model_of_one_picture_says(backbone, t):
    """Its answer, the end of the path, is found by following the path in small steps."""
    x0, noise = (normal(1, 2, 2, seed=seed).double().numpy() for seed in (1, 2))
    time = torch.tensor([t], dtype=torch.float64)
    x_t = backbone.add_noise(torch.tensor(x0)[None], torch.tensor(noise)[None], time)[0].numpy()
    target = backbone.target(torch.tensor(x0)[None], torch.tensor(noise)[None], time)[0].numpy()
    answer = np.cos(t) * x_t - np.sin(t) * target
    assert np.allclose(answer, x0, atol=1e-12)
    assert np.allclose(path(backbone, x_t, t, [x0]), answer, atol=3e-3)  # it stops at 1e-3


def test_of_several_pictures_the_mean_target_leads_to_one_of_them(backbone):
    """And is itself the answer near the end of the path, while far from it the answers differ."""
    pictures = [3 * normal(1, 2, 2, seed=seed).double().numpy() for seed in range(3)]
    noise = normal(1, 2, 2, seed=7).double().numpy()
    gaps = []
    for t in (0.1, 1.5):
        x_t = np.cos(t) * pictures[1] + np.sin(t) * noise
        end = path(backbone, x_t, t, pictures)
        assert min(np.abs(end - picture).max() for picture in pictures) < 0.01
        answer = np.cos(t) * x_t - np.sin(t) * mean_target(backbone, x_t, t, pictures)
        gaps.append(np.abs(answer - end).max())
    assert gaps[0] < 0.01
    assert gaps[1] > 0.5


def test_a_transformer_that_is_right_about_straight_flow_gives_the_target(backbone):
    x0, noise, t = normal(3, 8, 8, 8), normal(3, 8, 8, 8, seed=1), torch.tensor([0.2, 0.9, 1.5])
    told = {}

    def right(module, args, kwargs, output):
        told.update(kwargs, x=args[0])
        output.sample = noise - x0
        return output

    handle = backbone.denoiser.register_forward_hook(right, with_kwargs=True)
    with torch.no_grad():
        cond = backbone.encode_prompt(["a cat"] * 3)
        found = backbone.predict(backbone.add_noise(x0, noise, t), t, cond)
    handle.remove()
    a = t.double().numpy()[:, None, None, None]
    x64, n64 = x0.double().numpy(), noise.double().numpy()
    s = np.sin(a) / (np.sin(a) + np.cos(a))
    assert np.allclose(told["timestep"], s.ravel(), atol=1e-6)
    assert np.allclose(told["x"], (1 - s) * x64 + s * n64, atol=1e-5)
    assert np.allclose(found, np.cos(a) * n64 - np.sin(a) * x64, atol=1e-5)
    assert np.allclose(told["guidance"], 4.5 * 0.1)


def test_times_are_log_normal_ratios_of_noise_to_picture(backbone):
    u = torch.tensor([0.1, 0.5, 0.9])
    level = (0.2 + 1.6 * Normal(0.0, 1.0).icdf(u.double())).exp()
    found = backbone.sample_t(u, (8, 8)).double()
    assert torch.allclose(found, torch.atan(level / 0.5), atol=1e-6)


def test_one_step_is_the_stock_pipelines_and_two_differ_by_new_noise(folders, backbone):
    stock = DiffusionPipeline.from_pretrained(folders["sana_sprint"])
    stock.set_progress_bar_config(disable=True)
    noise = backbone._noise([torch.Generator().manual_seed(3)], (8, 8))

    def theirs(steps, **options):
        found = stock(
            "a cat", num_inference_steps=steps, height=64, width=64, latents=noise,
            use_resolution_binning=False, output_type="latent", **options,
        ).images  # fmt: skip
        return backbone.decode_latents(found)

    one = backbone.draw(["a cat"], [3], replace(FEW, num_inference_steps=1))
    assert torch.allclose(one, theirs(1, intermediate_timesteps=None), atol=1e-5)
    two = backbone.draw(["a cat"], [3], FEW)
    drawn = theirs(2, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(two, drawn, atol=1e-4)
    stock.scheduler.step = backbone.pipeline.scheduler.__class__.step.__get__(stock.scheduler)
    assert torch.allclose(two, theirs(2), atol=1e-5)


def test_guidance_is_told_in_drawing(backbone):
    drawn = [backbone.draw(["a cat"], [3], replace(FEW, guidance_scale=g)) for g in (1.0, 4.5)]
    assert not torch.allclose(*drawn, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_any_number_of_steps_draws_over_a_picture(backbone, steps):
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    few = replace(FEW, num_inference_steps=steps)
    drawn = backbone.draw(["A Cat"], [0], few, image=picture, strength=0.5)
    assert drawn.shape == picture.shape
