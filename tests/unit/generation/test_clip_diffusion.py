"""Diffusion that a CLIP guides: its steps, its losses, and pictures from tiny models."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import tiny
from oneword.concepts.concept import Concept
from oneword.config.baselines import CLIP_DIFFUSION, ClipDiffusionConfig
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError, ModelError
from oneword.generation import clip_diffusion
from oneword.generation.blending import psnr
from oneword.generation.clip_diffusion import (
    Guidance,
    LatentDenoiser,
    Step,
    beyond_range,
    blurred,
    draw,
    drawn,
    mixed,
    picture_in,
    posterior,
    shifted,
    steps_of,
    total_variation,
    walk,
)
from oneword.generation.guide import Cutouts, Guide, spherical_distance
from oneword.models.loading import load_backbone
from oneword.models.unconditional import Layout, Unconditional, UNet
from oneword.prompts import PromptError
from oneword.vocabulary.vocabulary import initial_rows


CPU = torch.device("cpu")
QUICK = {"num_inference_steps": 3, "num_cutouts": 2}


def draws(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def guide(guide_folder, judge_folder):
    return Guide.load(str(guide_folder), None, device=CPU, judge=str(judge_folder))


def pixel_model(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        unet = UNet(Layout(channels=32, widths=(32, 32, 64), attends=(False, False, True)))
    return Unconditional(unet.to(dtype), "tiny")


@pytest.fixture(scope="module")
def pixels():
    return pixel_model()


@pytest.fixture(scope="module")
def latents(tiny_sd):
    return LatentDenoiser(tiny_sd)


def asked(*prompts, **settings):
    return ClipDiffusionConfig(prompts=prompts or ("a photo of a cat",), **QUICK | settings)


# --- the steps, on data whose distribution is known


class Gaussian:
    """The best denoiser of data whose every value is normal, and its own closed forms."""

    name, resolution, channels, factor, is_of_pixels = "gaussian", 4, 1, 1, True
    device = CPU
    mean, variance = 0.3, 0.49

    def __init__(self):
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        self.alphas_cumprod = (1 - betas).cumprod(0)

    def slope(self, abar):
        """Of the expected picture in the noised one."""
        return math.sqrt(abar) * self.variance / (abar * self.variance + 1 - abar)

    def expected(self, x_t, abar):
        return self.mean + self.slope(abar) * (x_t - math.sqrt(abar) * self.mean)

    def predict(self, x_t, time):
        abar = float(self.alphas_cumprod[time])
        return (x_t - math.sqrt(abar) * self.expected(x_t, abar)) / math.sqrt(1 - abar), None

    def encode(self, pixels):
        return pixels

    def decode(self, latents):
        return latents


AIM, WIDTH = -0.7, 0.2  # of a condition whose logarithm is quadratic


@pytest.mark.parametrize("of_noised", [True, False])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_step_under_a_quadratic_condition_is_its_closed_form(sampler, of_noised):
    model = Gaussian()
    step = steps_of(model.alphas_cumprod, 10)[6]
    x = torch.randn(2, 1, 4, 4, generator=draws(0)[0], dtype=torch.float64)

    def loss(x_t, x0, _step):
        seen = x_t if of_noised else x0
        return (seen - AIM).square().sum(dim=(1, 2, 3)) / (2 * WIDTH)

    found = walk(model, x, [step], draws(5, 6), loss=loss, sampler=sampler, of_noised=of_noised)
    # by the product of two Gaussians, not by the sampler's own coefficients
    alpha = step.abar / step.before
    x0 = model.expected(x, step.abar)
    variance = 1 / (alpha / (1 - alpha) + 1 / (1 - step.before))
    mean = variance * (
        math.sqrt(alpha) * x / (1 - alpha) + math.sqrt(step.before) * x0 / (1 - step.before)
    )
    score = -(x - AIM) / WIDTH if of_noised else -(x0 - AIM) / WIDTH * model.slope(step.abar)
    if sampler == "ddpm":
        noise = torch.stack([torch.randn(1, 4, 4, generator=g) for g in draws(5, 6)]).double()
        expected = mean + variance * score + math.sqrt(variance) * noise
    else:
        sigma = math.sqrt(1 - step.abar)
        # Tweedie: the score of data under a condition is the sum of the two scores
        both = -(x - math.sqrt(step.abar) * x0) / sigma**2 + score
        there = (x + sigma**2 * both) / math.sqrt(step.abar)
        expected = math.sqrt(step.before) * there - math.sqrt(1 - step.before) * sigma * both
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


def test_steps_are_spaced_as_published():
    alphas = Gaussian().alphas_cumprod
    every = steps_of(alphas, 1000)
    assert [step.time for step in every] == list(range(1000))
    assert every[0].before == 1.0
    assert every[7].before == every[6].abar
    some = steps_of(alphas, 4)
    assert [step.time for step in some] == [0, 333, 666, 999]
    assert [step.time for step in steps_of(alphas, 7)] == [0, 166, 333, 500, 666, 832, 999]
    assert some[0].variance == 0.0
    assert some[0].least_log_variance == some[1].least_log_variance
    assert some[2].beta == pytest.approx(1 - some[2].abar / some[1].abar)
    assert [step.time for step in steps_of(alphas, 1)] == [0]


def test_a_learned_variance_lies_between_its_bounds():
    step = steps_of(Gaussian().alphas_cumprod, 20)[9]
    x, noise = torch.randn(2, 1, 3, 8, 8, generator=draws(1)[0])
    for share, expected in ((-1.0, step.variance), (1.0, step.beta)):
        found = posterior(x, step, noise, torch.full_like(x, share))
        assert torch.allclose(found.variance, torch.full_like(x, expected), rtol=1e-4)
    between = posterior(x, step, noise, torch.zeros_like(x))
    assert float(between.variance.mean()) == pytest.approx(
        math.sqrt(step.variance * step.beta), rel=1e-4
    )
    assert posterior(x, step, noise, None, clamps=True).x0.abs().max() <= 1
    assert torch.equal(posterior(x, step, noise, None).x0, picture_in(x, step, noise))


# --- what is made smaller


def test_the_terms_are_those_of_loops():
    picture = 1.5 * torch.randn(2, 3, 5, 6, generator=draws(0)[0], dtype=torch.float64)
    for one, variation, outside in zip(
        picture, total_variation(picture), beyond_range(picture), strict=True
    ):
        squares = over = 0.0
        for c in range(3):
            for y in range(5):
                for x in range(6):
                    value = float(one[c, y, x])
                    right = float(one[c, y, min(x + 1, 5)]) - value
                    down = float(one[c, min(y + 1, 4), x]) - value
                    squares += right**2 + down**2
                    over += max(abs(value) - 1, 0.0) ** 2
        assert float(variation) == pytest.approx(squares / 90, rel=1e-12)
        assert float(outside) == pytest.approx(over / 90, rel=1e-12)


def test_clip_sees_the_prediction_in_noise_and_the_latents_near_the_picture():
    x_t, x0 = torch.randn(2, 1, 3, 4, 4, generator=draws(0)[0])
    assert torch.allclose(mixed(x_t, x0, Step(0, 1 - 1e-12, 1.0, 0.0)), x_t, atol=1e-5)
    assert torch.allclose(mixed(x_t, x0, Step(999, 1e-12, 1.0, 0.0)), x0, atol=1e-5)


def test_the_distance_is_the_weighted_mean_over_cutouts_and_targets(guide, pixels):
    targets = torch.randn(2, 3, guide.dim, generator=draws(0)[0])
    weights = torch.tensor([0.5, 0.3, 0.2])
    cut = Cutouts(number=4, size=guide.size, min_size=16)
    guidance = Guidance(
        denoiser=pixels, guide=guide, targets=targets, weights=weights, cutouts=cut,
        draws=draws(3, 4), clip_scale=7.0, tv_scale=0.0, range_scale=0.0,
    )  # fmt: skip
    step = steps_of(pixels.alphas_cumprod, 10)[4]
    x_t, x0 = torch.randn(2, 2, 3, 32, 32, generator=draws(1)[0])
    found = guidance.of_prediction(x_t, x0, step)
    seen = (mixed(x_t, x0, step) + 1) / 2
    for i, (picture, one) in enumerate(zip(seen, draws(3, 4), strict=True)):
        total = 0.0
        for cutout in guide.image_features(cut(picture[None], one)):
            for target, weight in zip(targets[i], weights, strict=True):
                total += float(weight * spherical_distance(cutout, target)) / 4
        assert float(found[i]) == pytest.approx(7 * total, rel=1e-5)


def test_the_gradient_is_that_of_finite_differences(guide_folder):
    model = pixel_model(torch.float64)
    guide = Guide.load(str(guide_folder), None, device=CPU)
    guide.model.double()
    step = steps_of(model.alphas_cumprod, 10)[5]
    x = torch.randn(1, 3, 32, 32, generator=draws(2)[0], dtype=torch.float64)
    targets = torch.randn(1, 1, guide.dim, generator=draws(0)[0], dtype=torch.float64)

    def loss(x_t):
        guidance = Guidance(
            denoiser=model, guide=guide, targets=targets,
            weights=torch.ones(1, dtype=torch.float64),
            cutouts=Cutouts(number=3, size=guide.size, min_size=20), draws=draws(3),
            clip_scale=1000.0, tv_scale=150.0, range_scale=50.0,
        )  # fmt: skip
        noise, share = model.predict(x_t, step.time)
        return guidance.of_prediction(x_t, posterior(x_t, step, noise, share).x0, step).sum()

    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(leaf), leaf)[0]
    places = torch.randint(x.numel(), (5,), generator=draws(9)[0]).tolist()
    for place in places:
        by = torch.zeros_like(x)
        by.view(-1)[place] = 1e-5
        with torch.no_grad():
            difference = float(loss(x + by) - loss(x - by)) / 2e-5
        assert float(gradient.view(-1)[place]) == pytest.approx(difference, rel=1e-4, abs=1e-6)


def test_a_guidance_of_scale_0_changes_no_bit(guide, pixels, latents):
    for model, side in ((pixels, 32), (latents, latents.resolution // latents.factor)):
        steps = steps_of(model.alphas_cumprod, 4)
        x = drawn(draws(1, 2), torch.empty(2, model.channels, side, side))
        nothing = Guidance(
            denoiser=model, guide=guide, targets=torch.randn(2, 1, guide.dim),
            weights=torch.ones(1), cutouts=Cutouts(number=2, size=guide.size), draws=draws(3, 4),
            clip_scale=0.0, tv_scale=0.0, range_scale=0.0,
        )  # fmt: skip
        for sampler in ("ddpm", "ddim"):
            plain = walk(model, x, steps, draws(5, 6), sampler=sampler)
            guided = walk(model, x, steps, draws(5, 6), loss=nothing.of_prediction, sampler=sampler)
            assert torch.equal(plain, guided)


def test_the_older_scripts_blur_and_shift():
    point = torch.zeros(1, 3, 33, 33)
    point[..., 16, 16] = 1.0
    soft = blurred(point, 2.0)
    assert float(soft.sum()) == pytest.approx(3.0, abs=1e-4)
    ratio = float(soft[0, 0, 16, 18] / soft[0, 0, 16, 16])
    assert ratio == pytest.approx(math.exp(-(2**2) / (2 * 2.0**2)), rel=1e-3)
    assert torch.allclose(blurred(torch.full((1, 3, 9, 9), 0.4), 24.0), torch.tensor(0.4))
    wide = torch.arange(64.0).expand(2, 3, 64, 64)
    moved = shifted(wide, draws(0, 1))
    by = (moved - wide)[:, 0, 32, 20:44]
    assert torch.allclose(by, by.mean(dim=1, keepdim=True), atol=1e-3)
    assert by.abs().max() <= 64 * clip_diffusion.SHIFT
    assert not torch.allclose(by[0], by[1])


# --- pictures


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_picture_depends_on_its_seed_and_not_on_its_neighbours(guide, latents, sampler):
    together = draw(latents, guide, asked("a cat", "a dog", seeds=("3", "5"), sampler=sampler))
    assert together.pixels.shape == (4, 3, latents.resolution, latents.resolution)
    assert together.seeds == (3, 5, 3, 5)
    assert together.prompts == ("a cat", "a cat", "a dog", "a dog")
    alone = draw(latents, guide, asked("a dog", seed=5, sampler=sampler, batch_size=1))
    assert torch.allclose(alone.pixels[0], together.pixels[3], atol=1e-4)
    assert not torch.allclose(together.pixels[0], together.pixels[2], atol=1e-4)
    again = draw(latents, guide, asked("a dog", seed=5, sampler=sampler, batch_size=1))
    assert torch.equal(again.pixels, alone.pixels)


def test_pictures_say_how_they_were_made(guide, latents):
    found = draw(latents, guide, asked(sampler="ddim")).metadata(0)
    assert found["method"] == "clip-guided latent diffusion, ours"
    assert found["guide"] == guide.name
    assert found["clip_scale"] == str(CLIP_DIFFUSION["latent"]["clip_scale"])
    assert (found["num_inference_steps"], found["sampler"]) == ("3", "ddim")
    assert "workflow" not in found


def test_no_picture_to_begin_from_is_noise_alone(guide, latents):
    plain = draw(latents, guide, asked())
    assert torch.equal(plain.pixels, draw(latents, guide, asked(skip=0)).pixels)
    picture = torch.rand(1, 3, latents.resolution, latents.resolution) * 2 - 1
    begun = draw(latents, guide, asked(init_image=Path("p.png")), init=picture)
    assert not torch.allclose(begun.pixels, plain.pixels, atol=1e-3)
    assert begun.settings["skip"] == "300"
    assert begun.settings["steps_taken"] == "2"


def test_the_last_steps_alone_give_the_picture_back(guide_folder, judge_folder):
    """At 10 of 1,000 times; the model is the embedded one, which denoises."""
    backbone = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    model = LatentDenoiser(backbone)
    guide = Guide.load(str(guide_folder), None, device=CPU, judge=str(judge_folder))
    first = draw(model, guide, asked(num_inference_steps=30, clip_scale=0.0, tv_scale=0.0,
                                     range_scale=0.0))  # fmt: skip
    picture = first.pixels
    with torch.no_grad():
        there = model.decode(model.encode(picture)).clamp(-1, 1)
    config = asked(init_image=Path("p.png"), skip=990, num_inference_steps=1000)
    back = draw(model, guide, config, init=picture)
    assert back.settings["steps_taken"] == "10"
    everywhere = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    assert psnr(back.pixels, there, everywhere) > 30
    half = draw(model, guide, asked(init_image=Path("p.png"), skip=200, num_inference_steps=50),
                init=picture)  # fmt: skip
    assert psnr(half.pixels, there, everywhere) < 20


def test_image_prompts_weigh_as_much_as_the_text(guide, latents):
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    cut = Cutouts(number=5, size=guide.size)
    features, weights = clip_diffusion._image_targets(guide, cut, images, 0)
    assert features.shape == (10, guide.dim)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[0]) == pytest.approx(1 / 3)
    none, alone = clip_diffusion._image_targets(guide, cut, None, 0)
    assert len(none) == 0
    assert alone.tolist() == [1.0]
    side = latents.resolution
    towards = torch.rand(1, 3, side, side) * 2 - 1
    plain = draw(latents, guide, asked())
    moved = draw(latents, guide, asked(image_prompts=(Path("p.png"),)), image_prompts=towards)
    assert not torch.equal(plain.pixels, moved.pixels)


def test_a_word_of_the_guide_is_drawn_as_the_rows_that_it_has(guide, latents):
    rows = initial_rows(guide.vocabularies[guide.tower], "red cat", 2)
    word = Concept(placeholder_token="S*", rows={guide.tower: rows})
    plain = draw(latents, guide, asked("a photo of a red cat"))
    found = draw(latents, guide, asked("a photo of a S*"), concepts=[word])
    assert torch.allclose(found.pixels, plain.pixels, atol=1e-5)
    with pytest.raises(PromptError, match=r"must contain the placeholder 'S\*'"):
        draw(latents, guide, asked("a photo of a cat"), concepts=[word])


@pytest.mark.parametrize("preset", ["hq", "plain"])
def test_the_published_presets_draw_with_a_model_of_pixels(guide, pixels, preset):
    config = asked(preset=preset, checkpoint=Path("m.pt"))
    found = draw(pixels, guide, config)
    assert found.pixels.shape == (1, 3, 32, 32)
    assert found.settings["method"] == "clip-guided diffusion"
    assert found.settings["clip_scale"] == str(CLIP_DIFFUSION[preset]["clip_scale"])
    unguided = draw(pixels, guide, dataclasses.replace(config, clip_scale=0.0, tv_scale=0.0,
                                                       range_scale=0.0))  # fmt: skip
    assert not torch.equal(found.pixels, unguided.pixels)


def test_a_family_that_predicts_v_is_walked_as_one_that_predicts_noise(tiny_sd_v):
    """The picture that v means is the one that the noise made of it means."""
    model = LatentDenoiser(tiny_sd_v)
    step = steps_of(model.alphas_cumprod, 10)[6]
    side = model.resolution // model.factor
    x = drawn(draws(0, 1), torch.empty(2, model.channels, side, side))
    with torch.no_grad():
        noise, share = model.predict(x, step.time)
        cond = tiny_sd_v.encode_prompt(["", ""])
        v = tiny_sd_v.predict(x, torch.full((2,), step.time), cond)
    assert share is None
    expected = math.sqrt(step.abar) * x - math.sqrt(1 - step.abar) * v
    assert torch.allclose(picture_in(x, step, noise), expected, atol=1e-4)


# --- what cannot be


def test_a_family_that_is_noised_otherwise_is_refused(tmp_path):
    folder = tiny.save(tiny.make("sana"), tmp_path / "sana")
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    with pytest.raises(ModelError, match=r"sana of the family sana because it predicts neither"):
        LatentDenoiser(backbone)


def test_the_older_script_needs_pixels(guide, latents):
    config = asked(preset="plain", checkpoint=Path("m.pt"))
    with pytest.raises(ModelError, match=r"because it guides by noised pixels .*; use"):
        draw(latents, guide, config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ()}, "prompts must contain a prompt"),
        ({"prompts": (" ",)}, "prompts must contain a prompt"),
        ({"skip": 1000, "init_image": Path("p.png")}, r"skip must be in 0..999, got 1000"),
        ({"skip": 10}, "skip 10 without a picture"),
        ({"num_inference_steps": 0}, r"must be in 1..1000, got 0"),
        ({"num_inference_steps": 1001}, r"must be in 1..1000, got 1001"),
        ({"clip_scale": -1.0}, "clip_scale must be 0 or more, got -1.0"),
        ({"tv_scale": math.nan}, "tv_scale must be a finite number"),
        ({"num_cutouts": 0}, "num_cutouts must be 1 or more, got 0"),
        ({"cut_power": 0.0}, "cut_power must be above 0, got 0.0"),
        ({"preset": "latent", "checkpoint": Path("m.pt")}, "preset latent with --checkpoint"),
        ({"preset": "plain"}, "preset plain without --checkpoint"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ClipDiffusionConfig(**{"prompts": ("a cat",)} | settings)
