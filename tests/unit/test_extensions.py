"""The parts that settings switch on, against closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oneword.config import ConfigError, InversionConfig
from oneword.extensions.early_stopping import variance
from oneword.extensions.timesteps import sampled


def config(**settings):
    return InversionConfig(**settings).resolved("stable_diffusion")


def test_plain_times_are_the_draws():
    u = torch.rand(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampled(u, config()), u)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_stratified_times_fill_every_part_once_and_stay_uniform(size):
    g = torch.Generator().manual_seed(0)
    times = torch.stack(
        [
            sampled(torch.rand(size, generator=g), config(stratified_timesteps=True))
            for _ in range(4000)
        ]
    )
    parts = (times * size).long().sort(dim=1).values
    assert torch.equal(parts, torch.arange(size).expand(4000, size))
    # every sample, wherever it stands in the batch, is uniform: mean and variance of U[0, 1)
    assert times.mean(dim=0).sub(0.5).abs().max() < 5 / math.sqrt(12 * 4000)
    assert times.var(dim=0).sub(1 / 12).abs().max() < 0.008
    inside = (times * size) % 1.0
    assert inside.mean().sub(0.5).abs() < 5 / math.sqrt(12 * times.numel())


@pytest.mark.parametrize("bias", [0.2, 0.5, 1.0])
def test_biased_times_have_the_published_density(bias):
    u = (torch.arange(10_000) + 0.5) / 10_000
    times = sampled(u, config(timestep_bias=bias)).double()
    cumulated = times - bias * (math.pi * times).sin() / math.pi
    assert torch.allclose(cumulated, u.double(), atol=2e-6)
    counts = np.histogram(times.numpy(), bins=10, range=(0, 1))[0] / 1000
    centres = (np.arange(10) + 0.5) / 10
    assert np.allclose(counts, 1 - bias * np.cos(np.pi * centres), atol=0.03)
    assert times.max() < 1


def standing(losses, **settings):
    return SimpleNamespace(
        config=config(**{"early_stopping": True, "stop_window": 4, **settings}),
        losses=[(10 * i, loss) for i, loss in enumerate(losses)],
    )


def test_a_loss_at_rest_stops_and_a_falling_one_does_not():
    falling = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    resting = [1.0, 0.5, 0.3, 0.22, 0.21, 0.2, 0.19, 0.2]
    assert not variance(standing(falling))
    assert variance(standing(resting))
    assert not variance(standing(resting, early_stopping=False))
    assert not variance(standing(resting[-4:]))
    # the criterion itself: 0.15 is between these two
    ratio = float(np.var(resting[-4:]) / np.var(resting))
    assert variance(standing(resting, stop_threshold=ratio * 1.01))
    assert not variance(standing(resting, stop_threshold=ratio * 0.99))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop_window": 1}, "stop_window must be 2 or more, got 1"),
        ({"stop_threshold": 1.0}, "stop_threshold must be in"),
        ({"timestep_bias": 1.5}, r"timestep_bias must be in \[0, 1\], got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        InversionConfig(**settings)
