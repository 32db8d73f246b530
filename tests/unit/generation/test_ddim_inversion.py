"""DDIM inversion against its closed forms, in float64."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

import tiny
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.generation import editing
from oneword.generation.ddim_inversion import bipartite, ddim_inversion, inverted
from oneword.images import from_uint8
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.loading import load_backbone
from oneword.prompts import PromptError
from oneword.vocabulary.inject import injected


MEAN, STD = 0.7, 0.4
"""Of Gaussian data, for which the best denoiser is known."""


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gaussian(scheduler):
    """The denoiser of N(MEAN, STD^2) data: E[noise | x_t], or v of it."""

    def predict(x_t, t):
        a = scheduler.alphas_cumprod[t].double()
        noise = (1 - a).sqrt() * (x_t - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)
        if scheduler.config.prediction_type == "epsilon":
            return noise
        x0 = (x_t - (1 - a).sqrt() * noise) / a.sqrt()
        return a.sqrt() * noise - (1 - a).sqrt() * x0

    return predict


def forward(predict, x_t, scheduler, steps):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x_t = scheduler.step(predict(x_t, int(t)), t, x_t).prev_sample
    return x_t


def closed_form(predict, x, scheduler, steps):
    """Equation of the paper's appendix A, with the noise of the prediction, from x0 at abar_0."""
    scheduler.set_timesteps(steps)
    times = [0, *reversed(scheduler.timesteps.tolist())]
    for t, following in itertools.pairwise(times):
        a, b = (scheduler.alphas_cumprod[i].double() for i in (t, following))
        noise = predict(x, t)
        if scheduler.config.prediction_type == "v_prediction":
            noise = a.sqrt() * noise + (1 - a).sqrt() * x
        x = x + b.sqrt() * (
            ((1 / a).sqrt() - (1 / b).sqrt()) * x
            + ((1 / b - 1).sqrt() - (1 / a - 1).sqrt()) * noise
        )
    return x


def renoised(predict, x, scheduler, steps):
    """The same as: say what the clean picture is, and noise it to the next time with that noise."""
    scheduler.set_timesteps(steps)
    times = [0, *reversed(scheduler.timesteps.tolist())]
    for t, following in itertools.pairwise(times):
        a, b = (scheduler.alphas_cumprod[i].double() for i in (t, following))
        found = predict(x, t)
        if scheduler.config.prediction_type == "v_prediction":
            found = a.sqrt() * found + (1 - a).sqrt() * x
        x0 = (x - (1 - a).sqrt() * found) / a.sqrt()
        x = b.sqrt() * x0 + (1 - b).sqrt() * found
    return x


@pytest.fixture(params=["epsilon", "v_prediction"])
def scheduler(request):
    return tiny.parts.scheduler(request.param)


@pytest.fixture
def unet(scheduler):
    """A denoiser that is not linear, in float64."""
    made = tiny.make(
        "stable_diffusion", prediction_type=scheduler.config.prediction_type
    ).unet.double()
    states = normal(1, 5, 32, seed=4)

    @torch.no_grad()
    def predict(x_t, t):
        return made(x_t, torch.tensor([t]), states).sample

    return predict


@pytest.mark.parametrize("steps", [1, 20, 50])
def test_inversion_is_the_closed_form_and_the_renoise_form(scheduler, unet, steps):
    for predict, x0 in ((gaussian(scheduler), normal(2, 4, 3, 3)), (unet, normal(1, 4, 16, 16))):
        found = ddim_inversion(predict, x0, scheduler, steps)
        assert torch.allclose(found, closed_form(predict, x0, scheduler, steps), atol=1e-6, rtol=0)
        assert torch.allclose(found, renoised(predict, x0, scheduler, steps), atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [20, pytest.param(250, marks=pytest.mark.slow)])
def test_the_published_inversion_begins_at_the_first_time(scheduler, unet, steps):
    """The authors' loop: x0 is the state of time 1, and the last of the times is the end."""

    def authors(predict, x):
        times = range(1, 1001, 1000 // steps)
        alphas = scheduler.alphas_cumprod.double()
        for t, following in itertools.pairwise(times):
            a, b = alphas[t], alphas[following]
            noise = predict(x, t)
            if scheduler.config.prediction_type == "v_prediction":
                noise = a.sqrt() * noise + (1 - a).sqrt() * x
            clean, change = (1 / a).sqrt() - (1 / b).sqrt(), (1 / b - 1).sqrt() - (1 / a - 1).sqrt()
            x = x + b.sqrt() * (clean * x + change * noise)
        return x

    for predict, x0 in ((gaussian(scheduler), normal(2, 4, 3, 3)), (unet, normal(1, 4, 16, 16))):
        found = ddim_inversion(predict, x0, scheduler, steps, as_published=True)
        assert torch.allclose(found, authors(predict, x0), atol=1e-6, rtol=0)
        own = ddim_inversion(predict, x0, scheduler, steps)
        assert not torch.allclose(found, own, atol=1e-4)


def test_a_models_habit_of_clipping_is_no_part_of_it():
    plain, clips = tiny.parts.scheduler(), DDIMScheduler.from_config(tiny.parts.scheduler().config)
    clips.register_to_config(clip_sample=True)
    x0 = 3 * normal(2, 4, 3, 3)
    found = [ddim_inversion(gaussian(s), x0, s, 10) for s in (plain, clips)]
    assert torch.equal(*found)


def test_the_way_back_comes_nearer_to_the_start_as_steps_grow(scheduler):
    """DDIM and its inversion are of first order: half the step, half the error."""
    predict, x0 = gaussian(scheduler), MEAN + STD * normal(4, 4, 3, 3)
    errors = []
    for steps in (25, 50, 100, 200):
        noise = ddim_inversion(predict, x0, scheduler, steps)
        back = forward(predict, noise, scheduler, steps)
        errors.append(float((back - x0).square().mean().sqrt()))
    ratios = [coarse / fine for coarse, fine in itertools.pairwise(errors)]
    assert all(1.6 < ratio < 2.2 for ratio in ratios)


def test_gaussian_data_go_to_the_noise_that_they_came_from(scheduler):
    """The flow of Gaussian data is linear: x_T = a_T m + (x_0 - a_0 m) s_T / s_0."""
    x0 = MEAN + STD * normal(4, 4, 3, 3)
    a, b = scheduler.alphas_cumprod[[0, 999]].double()
    spread = ((b * STD**2 + 1 - b) / (a * STD**2 + 1 - a)).sqrt()
    exact = b.sqrt() * MEAN + (x0 - a.sqrt() * MEAN) * spread
    coarse, fine = (
        float((ddim_inversion(gaussian(scheduler), x0, scheduler, n) - exact).abs().max())
        for n in (250, 500)
    )
    assert fine < 0.6 * coarse
    assert fine < 0.03


# --- on whole models


@pytest.fixture
def picture():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1


def word(backbone, text="red cat"):
    rows = {n: v.rows_of(text) for n, v in backbone.vocabularies.items()}
    return Concept(placeholder_token="S*", rows=rows)


def test_a_models_round_trip_comes_nearer_as_steps_grow(tiny_sd_v, picture):
    x0 = tiny_sd_v.encode_image(picture).mean
    errors = []
    for steps in (4, 40):
        finished = []
        noise = inverted(tiny_sd_v, x0, "a cat", SamplingConfig(num_inference_steps=steps))
        tiny_sd_v.draw(
            ["a cat"], [0], SamplingConfig(num_inference_steps=steps, guidance_scale=1.0),
            latents=noise, on_latents=lambda x, t, f=finished: (f.append(x), x)[1],
        )  # fmt: skip
        errors.append(float((finished[-1] - x0).square().mean().sqrt()))
    assert errors[1] < 0.3 * errors[0]


SENTENCE = "a photo of a gold mug on the moon"


@pytest.fixture(scope="module")
def nano():
    return load_backbone(ModelConfig(model="microworld-nano", device="cpu"))


@pytest.fixture(scope="module")
def round_trip_error(nano):
    """Of a drawing of the world, in the latents' own size, under its own sentence."""
    drawn = concept_pictures(concepts.get("gold-mug"), num=2, size=nano.resolution)
    x0 = nano.encode_image(from_uint8(drawn)).mean

    def error(**fields):
        sampling, finished = SamplingConfig(**fields), []
        noise = inverted(nano, x0, SENTENCE, sampling)
        nano.draw(
            [SENTENCE] * 2, [0, 1], sampling,
            latents=noise, on_latents=lambda x, _: (finished.append(x), x)[1],
        )  # fmt: skip
        return float((finished[-1] - x0).norm() / x0.norm())

    return error


@pytest.mark.parametrize("sampler", ["model", "paper"])
def test_the_round_trip_of_a_trained_model_comes_nearer_with_steps(sampler, round_trip_error):
    errors = [
        round_trip_error(num_inference_steps=steps, guidance_scale=1.0, sampler=sampler)
        for steps in (5, 10, 25, 50, 100)
    ]
    assert all(fine < 0.8 * coarse for coarse, fine in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.1


def test_guidance_leads_away_from_the_picture(round_trip_error):
    errors = [
        round_trip_error(num_inference_steps=25, guidance_scale=scale)
        for scale in (1.0, 2.0, 5.0, 10.0)
    ]
    assert all(more > 1.1 * less for less, more in itertools.pairwise(errors)), errors


@pytest.mark.parametrize("sampler", ["model", "paper", "release"])
def test_the_named_samplers_begin_as_the_authors_do(sampler, tiny_sd, picture):
    x0 = tiny_sd.encode_image(picture).mean
    sampling = SamplingConfig(num_inference_steps=10, sampler=sampler)
    asked = []
    stock = tiny_sd.predict

    def predict(x_t, t, cond, crops=None):
        asked.append(int(t[0]))
        return stock(x_t, t, cond, crops)

    tiny_sd.predict = predict
    try:
        inverted(tiny_sd, x0, "a cat", sampling)
    finally:
        del tiny_sd.predict
    times = list(range(1, 901, 100))
    assert asked == (times if sampler != "model" else [0, *times])


def test_inversion_takes_250_steps_unless_it_is_told(tiny_sd, picture, monkeypatch):
    counts = []

    def count(backbone, x0, sentence, sampling):
        counts.append(backbone.sampling_for(sampling).num_inference_steps)
        return inverted(backbone, x0, sentence, SamplingConfig(num_inference_steps=2))

    monkeypatch.setattr(editing, "inverted", count)
    drawn, stock = [], type(tiny_sd).draw

    def draw(self, prompts, seeds, sampling=None, **options):
        drawn.append(sampling.num_inference_steps)
        few = replace(sampling, num_inference_steps=2)
        return stock(self, prompts, seeds, few, **options)

    monkeypatch.setattr(type(tiny_sd), "draw", draw)
    editing.edit(tiny_sd, picture, "a dog", invert="a cat")
    scaled = SamplingConfig(guidance_scale=2.0)
    editing.edit(tiny_sd, picture, "a dog", invert="a cat", sampling=scaled)
    some = SamplingConfig(num_inference_steps=7)
    editing.edit(tiny_sd, picture, "a dog", invert="a cat", sampling=some)
    editing.edit(tiny_sd, picture, "a dog", strength=0.5)  # which is no inversion
    assert counts == [250, 250, 7]
    assert drawn == [250, 250, 7, 50]
    assert inspect.signature(bipartite).parameters["num_inference_steps"].default == 250


def test_words_can_be_in_both_sentences(tiny_sd, picture):
    options = {"invert": "a photo of a S*", "num_inference_steps": 3, "concepts": [word(tiny_sd)]}
    found = bipartite(tiny_sd, picture, ["a photo of a S*", "a dog"], [1.0, 5.0], **options)
    assert list(found) == [1.0, 5.0]
    assert found[1.0].shape == (2, 3, 32, 32)
    assert not torch.allclose(found[1.0][1], found[5.0][1], atol=1e-3)
    options |= {"invert": "a photo of a red cat", "concepts": []}
    plain = bipartite(tiny_sd, picture, ["a photo of a red cat", "a dog"], [1.0], **options)
    assert torch.allclose(plain[1.0], found[1.0], atol=1e-4)
    with injected(tiny_sd, []):  # nothing of the first call is left
        pass
    with pytest.raises(PromptError, match=r"must contain the placeholder 'S\*'"):
        bipartite(tiny_sd, picture, ["a dog"], [1.0], invert="a cat", concepts=[word(tiny_sd)])


def test_a_family_of_straight_paths_is_refused(tmp_path, picture):
    backbone = load_backbone(
        ModelConfig(model=str(tiny.save(tiny.make("flux"), tmp_path / "m")), device="cpu")
    )
    with pytest.raises(ModelError, match="because DDIM cannot draw with it; edit"):
        bipartite(backbone, picture, ["a cat"], [1.0], invert="a dog")


def test_more_steps_than_inversion_can_take_are_refused(tiny_sd, picture):
    with pytest.raises(ModelError, match=r"must be at most 500 for inversion on .*, got 501"):
        bipartite(tiny_sd, picture, ["a"], [1.0], invert="a", num_inference_steps=501)


def test_a_schedule_that_ends_in_noise_alone_is_refused(tmp_path, picture):
    """Kandinsky 3's: the way back would divide by the root of what is left of the picture."""
    folder = tiny.save(tiny.make("kandinsky3"), tmp_path / "m")
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    with pytest.raises(ModelError, match=r"its noise keeps only 2e-09 of"):
        bipartite(backbone, picture, ["a cat"], [1.0], invert="a dog")
