"""Tricks of training, each against its formula in float64; on, they resume and share a batch."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler

from oneword.config.inversion import InversionConfig
from oneword.errors import ConfigError
from oneword.models.noise import Diffusion, Flow, TrigFlow
from oneword.runs.folder import StateFile
from oneword.training import extensions
from oneword.training.batches import Batches, every_sentence
from oneword.training.draws import step_draws
from oneword.training.extensions import huber, min_snr, random_crops, wording
from oneword.training.job import Job, JobError
from oneword.training.loop import invert, invert_many
from oneword.training.noise_levels import noise_levels
from oneword.training.parts import captions_or_templates
from oneword.training.samples import Choices


CAPTIONS = ("a <a>, red, on the beach", "dog, <a>", "a photo of a <a>, cat, cat, on the moon")
TRICKS = {
    "noise_offset": {"noise_offset": 0.1},
    "huber": {"loss_type": "huber"},
    "snr_gamma": {"snr_gamma": 5.0},
    "caption_dropout": {"caption_dropout_rate": 0.5},
    "random_crops": {"random_crops": 3},
    "tags": {"shuffle_caption": True, "caption_tag_dropout_rate": 0.3, "keep_tokens": 1},
}
ALL = {name: value for own in TRICKS.values() for name, value in own.items()}


def settings(**fields):
    return InversionConfig(**fields).resolved("stable_diffusion")


def job(name="a", seed=0, **fields):
    own = {
        "initializer_token": "cat",
        "max_train_steps": 6,
        "train_batch_size": 3,
        "evaluation_steps": 2,
        "num_evaluation_samples": 4,
        "keep": "last",
        "learning_rate": 1e-2,
    }
    config = InversionConfig(**{"placeholder_token": "<a>", "seed": seed} | own | fields)
    g = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, 3, 32, 32, generator=g) * 2 - 1
    return Job(name=name, pictures=pixels, config=config, captions=CAPTIONS)


def batches_of(backbone, task):
    config = task.config.resolved(backbone.family)
    return Batches(backbone, task, config, prompts=captions_or_templates)


def step_of(backbone, task, step=3):
    batches = batches_of(backbone, task)
    draws = batches.draws(step)
    (batch,) = batches.noised(draws, draws.times)
    return draws, batch, batches


# --- the signal-to-noise ratio

KINDS = {
    "epsilon": Diffusion(DDPMScheduler(beta_schedule="scaled_linear"), torch.device("cpu")),
    "v": Diffusion(DDPMScheduler(prediction_type="v_prediction"), torch.device("cpu")),
    "v that ends in noise": Diffusion(
        DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
        torch.device("cpu"),
    ),
    "flow": Flow(FlowMatchEulerDiscreteScheduler()),
    "trigflow": TrigFlow(SCMScheduler()),
}


def times(kind):
    if kind == "flow":
        return torch.tensor([0.0, 0.01, 0.3, 0.309, 0.8, 1.0])
    if kind == "trigflow":
        return torch.tensor([0.0, 0.02, 0.4, 0.43, 1.2, 1.57])
    return torch.tensor([0, 10, 150, 400, 900, 999])


def published(kind, t, gamma):
    """The weight by its own formula for each kind of target, in float64."""
    t = t.double().numpy()
    if kind == "flow":
        with np.errstate(divide="ignore"):
            return np.minimum(((1 - t) / t) ** 2, gamma) * t**2
    if kind == "trigflow":
        with np.errstate(divide="ignore"):
            return np.minimum(1 / np.tan(t) ** 2, gamma) * np.sin(t) ** 2
    power = KINDS[kind].alphas_cumprod.double().numpy()[t.astype(int)]
    snr = power / (1 - power)
    return np.minimum(snr, gamma) / (snr if kind == "epsilon" else snr + 1)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_weighs_every_kind_of_target_by_its_own_formula(kind, gamma):
    t = times(kind)
    found = min_snr.weights(noise_levels(KINDS[kind], t), gamma)
    assert np.allclose(found.numpy(), published(kind, t, gamma), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_is_the_clipped_weight_on_the_picture_whatever_the_target_is(kind):
    """By force: another x0 that explains the same x_t, and how far the target moves with it."""
    noise, t, gamma = KINDS[kind], times(kind)[1:-1], 5.0
    g = torch.Generator().manual_seed(0)
    x0, n, d = torch.randn(3, len(t), 2, 4, 4, generator=g, dtype=torch.float64)
    levels = noise_levels(noise, t)
    ratio = (levels.signal / levels.noise).double()[:, None, None, None]
    moved = noise.target(x0 + d, n - ratio * d, t) - noise.target(x0, n, t)
    assert torch.allclose(noise.add_noise(x0 + d, n - ratio * d, t), noise.add_noise(x0, n, t))
    weighed = min_snr.weights(levels, gamma) * moved.square().flatten(1).sum(1)
    expected = levels.snr.clamp(max=gamma) * d.square().flatten(1).sum(1)
    assert torch.allclose(weighed, expected, rtol=1e-4)


def test_pure_noise_as_the_target_counts_as_it_is():
    pure = DDPMScheduler(rescale_betas_zero_snr=True)
    levels = noise_levels(Diffusion(pure, torch.device("cpu")), torch.tensor([998, 999]))
    assert levels.snr[1] == 0
    assert min_snr.weights(levels, 5.0).tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_min_snr_weighs_the_loss_of_training_and_not_that_of_the_fixed_batch(
    kind, tiny_sd, tiny_sd_v
):
    backbone = tiny_sd if kind == "epsilon" else tiny_sd_v
    _, batch, batches = step_of(backbone, job(snr_gamma=0.01))
    power = backbone.noise.alphas_cumprod.double()[batch.samples.t]
    snr = power / (1 - power)
    expected = snr.clamp(max=0.01) / (snr if kind == "epsilon" else snr + 1)
    assert torch.allclose(batch.samples.weight.double(), expected, rtol=1e-4)
    prediction = torch.zeros_like(batch.target)
    plain = batch.target.double().square().flatten(1).mean(1)
    found = extensions.LOSS(prediction, batch.target, batch.samples)
    assert torch.allclose(found.double(), expected * plain, rtol=1e-4)
    assert batches.fixed[0].samples.weight is None
    part = batch.only([2, 0])
    assert torch.equal(part.samples.weight, batch.samples.weight[[2, 0]])


# --- Huber's loss


@pytest.mark.parametrize("schedule", ["constant", "snr"])
@pytest.mark.parametrize("masked", [False, True])
def test_hubers_loss_is_its_formula_in_float64(tiny_sd, schedule, masked):
    task = job(loss_type="huber", huber_c=0.2, huber_schedule=schedule)
    if masked:
        masks = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(2))
        task = dataclasses.replace(task, masks=masks)
    _, batch, batches = step_of(tiny_sd, task)
    power = tiny_sd.noise.alphas_cumprod.double()[batch.samples.t].numpy()
    sigma = np.sqrt((1 - power) / power)
    c = np.full(3, 0.2) if schedule == "constant" else 0.8 / (1 + sigma) ** 2 + 0.2
    prediction = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(1))
    e = (prediction.double() - batch.target.double()).numpy()
    wide = c[:, None, None, None]
    cells = 2 * wide * (np.sqrt(e**2 + wide**2) - wide)
    if masked:
        mask = batch.samples.mask.double().numpy()
        cells = cells * mask / mask.mean((1, 2, 3), keepdims=True)
    found = extensions.LOSS(prediction, batch.target, batch.samples)
    assert np.allclose(found.numpy(), cells.mean((1, 2, 3)), rtol=1e-5)
    assert batches.fixed[0].samples.huber_c is None
    part = batch.only([1])
    assert torch.equal(part.samples.huber_c, batch.samples.huber_c[1:2])


def test_hubers_loss_is_the_square_of_small_errors_and_linear_in_large_ones(tiny_sd):
    _, batch, _ = step_of(tiny_sd, job(loss_type="huber", huber_schedule="constant"))
    zero = torch.zeros_like(batch.target)
    small = huber.error(zero + 1e-3, zero, batch.samples)
    large = huber.error(zero + 100.0, zero, batch.samples)
    assert torch.allclose(small, torch.full((3,), 1e-6), rtol=1e-3)
    assert torch.allclose(large, torch.full((3,), 2 * 0.1 * 100.0), rtol=2e-3)
    wide = dataclasses.replace(batch.samples, huber_c=torch.full((3,), 1e4))
    assert torch.allclose(huber.error(zero + 0.3, zero, wide), torch.full((3,), 0.09), rtol=1e-5)


# --- noise with an offset


def test_offset_noise_moves_each_channel_as_a_whole_and_is_in_the_target(tiny_sd, tiny_sd_v):
    for backbone in (tiny_sd, tiny_sd_v):
        draws, batch, batches = step_of(backbone, job(noise_offset=0.25, random_flip=False))
        s, t = batch.samples, batch.samples.t
        plain = step_draws(0, 3, 3, 3, batches.latent_shape, random_flip=False)
        noise = plain.noise.double() + 0.25 * draws.offsets.double()
        power = backbone.noise.alphas_cumprod.double()[t][:, None, None, None]
        x_t = power.sqrt() * s.x0.double() + (1 - power).sqrt() * noise
        v = power.sqrt() * noise - (1 - power).sqrt() * s.x0.double()
        assert torch.allclose(s.x_t.double(), x_t, atol=1e-5)
        target = noise if backbone is tiny_sd else v
        assert torch.allclose(batch.target.double(), target, atol=1e-5)
        other = batches_of(backbone, job(random_flip=False))
        assert torch.equal(batches.fixed[0].samples.x_t, other.fixed[0].samples.x_t)
        assert torch.equal(batches.fixed[0].target, other.fixed[0].target)


def test_offsets_are_normal_each_sample_and_step_its_own_and_move_no_other_draw():
    draws = [step_draws(1, step, 16, 4, (4, 2, 2), random_flip=True) for step in range(200)]
    offsets = torch.stack([d.offsets for d in draws])
    assert offsets.shape == (200, 16, 4, 1, 1)
    assert abs(float(offsets.mean())) < 5 / math.sqrt(offsets.numel())
    assert float(offsets.std()) == pytest.approx(1, abs=0.03)
    assert len({tuple(own.flatten().tolist()) for own in offsets.flatten(0, 1)}) == 200 * 16
    means = torch.stack([d.noise.mean((-2, -1)) for d in draws]).flatten()
    assert abs(float(torch.corrcoef(torch.stack([means, offsets.flatten()]))[0, 1])) < 0.05
    assert len({seed for d in draws for seed in d.wordings.tolist()}) == 200 * 16


# --- captions that change


def many(sentence, count=3000, **fields):
    config = settings(**fields)
    return Counter(wording.varied(sentence, seed, config) for seed in range(count))


def test_tags_come_in_every_order_alike_behind_those_that_stay():
    found = many("a {}, b, c, d", shuffle_caption=True, keep_tokens=1)
    assert set(found) == {", ".join(["a {}", *rest]) for rest in permutations("bcd")}
    assert all(abs(count - 500) < 110 for count in found.values())  # five deviations
    assert set(many("{}, b", 100, shuffle_caption=True)) == {"{}, b", "b, {}"}


def test_tags_are_left_out_at_their_rate_but_never_the_word():
    found = many("b, a {}, c", caption_tag_dropout_rate=0.3)
    shares = {"b, a {}, c": 0.49, "a {}, c": 0.21, "b, a {}": 0.21, "a {}": 0.09}
    assert {text: count / 3000 for text, count in found.items()} == pytest.approx(shares, abs=0.05)
    assert many("b, {}", 20, caption_tag_dropout_rate=1.0) == {"{}": 20}
    kept = many("b, c, {1}, d, {}", 50, caption_tag_dropout_rate=1.0, keep_tokens=1)
    assert kept == {"b, {1}, {}": 50}


def test_sentences_are_dropped_down_to_the_word_at_their_rate():
    found = many("a photo of a {} with {1}", caption_dropout_rate=0.2)
    assert set(found) == {"{} {1}", "a photo of a {} with {1}"}
    assert found["{} {1}"] / 3000 == pytest.approx(0.2, abs=0.04)
    assert many("a {}, b", 20, caption_dropout_rate=1.0, shuffle_caption=True) == {"{}": 20}


def test_a_sentence_is_untouched_where_nothing_is_asked():
    assert many("a {} ,b,  c", 20) == {"a {} ,b,  c": 20}
    assert set(many("a {} ,b,  c", 200, caption_dropout_rate=0.5)) == {"a {} ,b,  c", "{}"}


def test_the_fixed_batch_has_its_captions_whole(tiny_sd):
    task = job(caption_dropout_rate=1.0)
    _, batch, batches = step_of(tiny_sd, task)
    assert batch.sentences == ["{}"] * 3
    assert set(batches.fixed[0].sentences) <= {c.replace("<a>", "{}") for c in CAPTIONS}


def test_every_sentence_is_checked_with_the_word_at_its_end():
    config = settings(shuffle_caption=True, caption_dropout_rate=0.1, keep_tokens=1)
    found = every_sentence([Choices(("b, a {}, c, d",))], config, None)
    assert found == ["b, a {}, c, d", "b, c, d, a {}", "{}"]


# --- together


@pytest.mark.parametrize("name", [*TRICKS, "all"])
def test_a_trick_changes_what_is_learned_and_a_stopped_run_ends_the_same(tiny_sd, tmp_path, name):
    task = job(**(ALL if name == "all" else TRICKS[name]))
    whole = invert(tiny_sd, task)
    plain = invert(tiny_sd, job())
    assert not torch.equal(whole.concept.rows["clip"], plain.concept.rows["clip"])
    assert whole.losses[0] == plain.losses[0]  # the fixed batch is the same
    file = StateFile(tmp_path / "state.safetensors", 100, lambda: None)

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    assert invert(tiny_sd, task, checkpoint=file, on_step=stop).status == "interrupted"
    resumed = invert(tiny_sd, task, checkpoint=file)
    assert torch.equal(resumed.concept.rows["clip"], whole.concept.rows["clip"])
    assert resumed.losses == whole.losses


def test_words_with_tricks_of_their_own_learn_beside_others_what_they_learn_alone(tiny_sd):
    jobs = [job(f"j{i}", i, **own) for i, own in enumerate([{}, *TRICKS.values(), ALL])]
    for one, result in zip(jobs, invert_many(tiny_sd, jobs, slots=4), strict=True):
        rows, own = result.concept.rows["clip"], invert(tiny_sd, one).concept.rows["clip"]
        assert float((rows - own).norm() / own.norm()) < 1e-4, one.name


def test_parted_into_passes_they_give_the_same_rows(tiny_sd, monkeypatch):
    whole = invert(tiny_sd, job(**ALL)).concept.rows["clip"]
    monkeypatch.setattr(tiny_sd, "micro_batch_size", 1)
    parted = invert(tiny_sd, job(**ALL)).concept.rows["clip"]
    assert float((whole - parted).norm() / whole.norm()) < 1e-4


# --- refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"huber_c": 0.0}, "huber_c must be positive, got 0.0"),
        ({"snr_gamma": -1.0}, "snr_gamma must be 0 or more, got -1.0"),
        ({"noise_offset": 1.5}, r"noise_offset must be in \[0, 1\], got 1.5"),
        ({"caption_dropout_rate": -0.1}, r"caption_dropout_rate must be in \[0, 1\], got -0.1"),
        ({"caption_tag_dropout_rate": 2.0}, r"caption_tag_dropout_rate must be in \[0, 1\]"),
        ({"keep_tokens": -1}, "keep_tokens must be 0 or more, got -1"),
        ({"random_crops": 65}, r"random_crops must be in 0..64, got 65"),
        ({"crop_scale": 1.0}, r"crop_scale must be in \(0, 1\), got 1.0"),
        (
            {"vectors_at": "output", "shuffle_caption": True},
            "vectors_at 'output' with shuffle_caption",
        ),
        (
            {"vectors_at": "output", "caption_tag_dropout_rate": 0.1},
            "vectors_at 'output' with caption_tag_dropout_rate",
        ),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        InversionConfig(**fields)


@pytest.mark.parametrize(
    ("captions", "fields", "message"),
    [
        (
            None,
            {"shuffle_caption": True},
            "shuffle_caption in job .* because its captions have no tags",
        ),
        (("<a>",) * 3, {"caption_tag_dropout_rate": 0.1}, "Cannot use caption_tag_dropout_rate"),
        (
            ("a <a>, b",) * 3,
            {"shuffle_caption": True, "keep_tokens": 1},
            "its captions have no tags .* after the first keep_tokens; leave it out",
        ),
    ],
)
def test_tags_are_asked_of_captions_that_have_some(tiny_sd, captions, fields, message):
    task = dataclasses.replace(job(**fields), captions=captions)
    with pytest.raises(JobError, match=message):
        invert(tiny_sd, task)


# --- random crops


def crops_job(count=4, **fields):
    """A picture whose red is its row and whose green its column, so that crops can be read."""
    line = torch.linspace(-1, 1, 32)
    picture = torch.stack(
        [line[:, None].expand(32, 32), line.expand(32, 32), 0 * line.expand(32, 32)]
    )
    masks = torch.zeros(3, 1, 32, 32)
    masks[:, :, :8, :8] = 1
    task = job(random_crops=count, crop_scale=0.5, **fields)
    return dataclasses.replace(
        task,
        pictures=picture.expand(3, -1, -1, -1).clone(),
        masks=masks,
        config=task.config.resolved("stable_diffusion"),
    )


def test_crops_are_windows_of_the_pictures_their_masks_and_what_models_are_told():
    task = crops_job(60)
    told = torch.tensor([[480, 640, 10, 20]] * 3)
    task = dataclasses.replace(task, crops=told)
    first, *found = random_crops.views(task, task.config)
    assert first is task
    sides, tops = [], []
    for view in found:
        for picture, mask, crop in zip(view.pictures, view.masks, view.crops.tolist(), strict=True):
            # where the window begins and how large it is, read from the picture's middle, px
            step = float(picture[0, 20, 16] - picture[0, 12, 16]) / 8 * 31 / 2
            middle = (float(picture[0, 15:17, 16].mean()) + 1) * 31 / 2 + 0.5
            side = 32 * step
            top = middle - side / 2
            sides.append(side / 32)
            tops.append(top / (32 - side) if side < 31 else 0.5)
            assert crop[:2] == [480, 640]
            assert crop[2] == pytest.approx((10 + top) / step, abs=1)
            # of the marked corner what is left in the window
            assert mask[0].sum() / 32**2 == pytest.approx(
                max(0, 8 - top) * max(0, 8 - (crop[3] * step - 20)) / side**2, abs=0.03
            )
            assert (mask > 0.5).any()
    assert 0.48 < min(sides) < 0.55
    assert max(sides) <= 1.01
    assert np.mean(np.square(sides)) == pytest.approx((0.25 + 1) / 2, abs=0.12)
    assert min(tops) > -0.1


def test_windows_are_the_seeds_alone_and_every_pictures_its_own():
    task = dataclasses.replace(crops_job(), masks=None)
    views = random_crops.views(task, task.config)
    again = random_crops.views(task, task.config)
    assert all(torch.equal(a.pictures, b.pictures) for a, b in zip(views, again, strict=True))
    other = dataclasses.replace(task.config, seed=1)
    assert not torch.equal(random_crops.views(task, other)[1].pictures, views[1].pictures)
    few = [p for view in views[1:] for p in view.pictures]
    assert len({tuple(p.flatten().tolist()) for p in few}) == 12
    more = random_crops.views(task, dataclasses.replace(task.config, random_crops=6))
    assert torch.equal(more[4].pictures, views[4].pictures)


def test_samples_are_of_the_views_that_are_drawn_and_the_fixed_batch_of_the_pictures(tiny_sd):
    task = crops_job(2, train_batch_size=8)
    batches = batches_of(tiny_sd, task)
    views = random_crops.views(task, task.config)
    seen = set()
    for step in range(4):
        draws = batches.draws(step)
        samples = batches.noised(draws, draws.times)[0].samples
        for i, (view, picture) in enumerate(
            zip(draws.views.tolist(), draws.pictures.tolist(), strict=True)
        ):
            own, mask = views[view].pictures[picture], views[view].masks[picture]
            if draws.flips[i]:
                own, mask = own.flip(-1), mask.flip(-1)
            moments = tiny_sd.encode_image(own[None])
            x0 = moments.mean + moments.std * draws.posterior_noise[i]
            assert torch.allclose(samples.x0[i], x0[0], atol=1e-4)
            cells = torch.nn.functional.interpolate(mask[None], (16, 16), mode="area")[0]
            assert torch.equal(samples.mask[i], cells)
            if view:
                assert samples.crops[i].tolist() == views[view].crops[picture].tolist()
            seen.add(view)
    assert seen == {0, 1, 2}
    plain = batches_of(tiny_sd, dataclasses.replace(task, config=crops_job(0).config))
    assert torch.allclose(batches.fixed[0].samples.x0, plain.fixed[0].samples.x0, atol=1e-5)
    assert torch.equal(batches.fixed[0].samples.mask, plain.fixed[0].samples.mask)
