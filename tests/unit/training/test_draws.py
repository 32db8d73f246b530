from __future__ import annotations

import pytest
import torch

from oneword.training.draws import EVALUATION_SPAN, evaluation_draws, generator, step_draws


SHAPE = (4, 8, 8)


def tensors(draws):
    return {name: getattr(draws, name) for name in draws.__slots__}


def test_a_step_is_a_function_of_seed_and_step_alone():
    torch.rand(3)  # the global generator must not matter
    first = tensors(step_draws(7, 12, 4, 5, SHAPE, random_flip=True))
    step_draws(7, 13, 4, 5, SHAPE, random_flip=True)
    again = tensors(step_draws(7, 12, 4, 5, SHAPE, random_flip=True))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(("seed", "step"), [(8, 12), (7, 13), (12, 7), (7 + 2**32, 12)])
def test_other_seeds_and_steps_draw_other_noise(seed, step):
    a = step_draws(7, 12, 4, 5, SHAPE, random_flip=True)
    b = step_draws(seed, step, 4, 5, SHAPE, random_flip=True)
    assert not torch.equal(a.noise, b.noise)
    assert not torch.equal(a.times, b.times)


def test_training_and_evaluation_streams_differ():
    a = step_draws(0, 0, 4, 5, SHAPE, random_flip=False)
    b = evaluation_draws(0, 4, 5, SHAPE)
    assert not torch.equal(a.noise, b.noise)
    assert not torch.equal(a.noise, a.posterior_noise)


@pytest.mark.parametrize(("batch", "num_pictures"), [(4, 5), (8, 3), (1, 4), (3, 1)])
def test_every_picture_is_used_equally_often(batch, num_pictures):
    steps = 20 * num_pictures
    used = torch.cat(
        [
            step_draws(3, s, batch, num_pictures, (1, 1, 1), random_flip=True).pictures
            for s in range(steps)
        ]
    )
    assert torch.bincount(used, minlength=num_pictures).tolist() == [20 * batch] * num_pictures


def test_flips_happen_half_of_the_time_or_never():
    flips = torch.cat(
        [step_draws(1, s, 16, 4, (1, 1, 1), random_flip=True).flips for s in range(200)]
    )
    assert 0.46 < flips.float().mean() < 0.54
    assert not step_draws(1, 0, 64, 4, (1, 1, 1), random_flip=False).flips.any()


def test_times_are_uniform_and_noise_is_normal():
    draws = [step_draws(1, s, 32, 4, (2, 4, 4), random_flip=True) for s in range(200)]
    times = torch.cat([d.times for d in draws])
    counts = torch.histc(times, 10, 0, 1)
    assert ((counts - 640) ** 2 / 640).sum() < 30  # chi-squared, 9 degrees of freedom: p < 0.0005
    noise = torch.cat([d.noise for d in draws])
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01


def test_evaluation_times_cover_the_span_evenly():
    draws = evaluation_draws(5, 16, 4, SHAPE)
    low, high = EVALUATION_SPAN
    gaps = draws.times.diff()
    assert torch.allclose(gaps, torch.full_like(gaps, (high - low) / 16), atol=1e-6)
    assert low < draws.times.min() < draws.times.max() < high
    assert torch.bincount(draws.pictures).tolist() == [4, 4, 4, 4]
    assert not draws.flips.any()


def test_negative_seeds_are_accepted():
    assert generator(-1, 0).initial_seed() != generator(1, 0).initial_seed()
