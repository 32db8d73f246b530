"""The parts that settings switch on, against closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oneword.config.inversion import InversionConfig
from oneword.errors import ConfigError
from oneword.training.extensions import averaging, cross_init, norm, regularized
from oneword.training.extensions.early_stopping import variance
from oneword.training.extensions.timesteps import sampled
from oneword.training.job import Job


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


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_a_power_of_the_times_has_its_density(power, stratified):
    u = (torch.arange(10_000) + 0.5) / 10_000
    settings = {"timestep_power": power, "stratified_timesteps": stratified}
    times = sampled(u, config(**settings)).double()
    edges = np.linspace(0, 1, 11)
    counts = np.histogram(times.numpy(), bins=edges)[0] / 10_000
    below = 1 - (1 - edges) ** (1 / power)  # the share of the samples below a time
    assert np.allclose(counts, np.diff(below), atol=3e-4)
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
    assert not variance(standing(resting[-5:], stop_threshold=0.99))
    assert variance(standing([0.5, *resting[-5:]], stop_threshold=0.99))
    # the criterion itself; the first scoring is before training
    ratio = float(np.var(resting[-4:]) / np.var(resting[1:]))
    assert variance(standing([100.0, *resting[1:]], stop_threshold=ratio * 1.01))
    assert not variance(standing([100.0, *resting[1:]], stop_threshold=ratio * 0.99))
    assert variance(standing(resting, stop_threshold=ratio * 1.01))
    assert not variance(standing(resting, stop_threshold=ratio * 0.99))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop_window": 1}, "stop_window must be 2 or more, got 1"),
        ({"stop_threshold": 1.0}, "stop_threshold must be in"),
        ({"timestep_bias": 1.5}, r"timestep_bias must be in \[0, 1\], got 1.5"),
        ({"timestep_power": 0.5}, "timestep_power must be 1 or more, got 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        InversionConfig(**settings)


# --- terms on the rows


@pytest.mark.parametrize("num_vectors", [1, 2])
def test_the_penaltys_gradient_is_twice_the_weighted_deviation_of_every_vector(num_vectors):
    g = torch.Generator().manual_seed(0)
    initial = {"a": torch.randn(num_vectors, 5, generator=g), "b": torch.ones(num_vectors, 3)}
    rows = {n: (v + torch.randn(v.shape, generator=g)).requires_grad_() for n, v in initial.items()}
    penalty = regularized.distance(rows, initial, config(regularization_weight=0.3))
    found = torch.autograd.grad(penalty, list(rows.values()))
    for gradient, name in zip(found, rows, strict=True):
        expected = 2 * 0.3 * (rows[name].detach() - initial[name])
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_opposite_deviations_of_two_vectors_do_not_cancel():
    u = torch.tensor([1.0, -2.0, 2.0])
    rows, initial = {"a": torch.stack([u, -u])}, {"a": torch.zeros(2, 3)}
    assert float(regularized.distance(rows, initial, config(regularization_weight=1.0))) == 18.0
    assert regularized.distance(rows, initial, config()) is None


def test_cross_initialisation_adds_the_mean_distance():
    initial = {"a": torch.zeros(2, 4)}
    rows = {"a": torch.tensor([[3.0, 4, 0, 0], [0, 0, 0, 1]], requires_grad=True)}
    term = cross_init.distance(rows, initial, config(setup="cross-init"))
    assert float(term.detach()) == pytest.approx(1e-5 * (5 + 1) / 2)
    assert cross_init.distance(rows, initial, config()) is None
    still = cross_init.distance(
        {"a": initial["a"].requires_grad_()}, {"a": torch.zeros(2, 4)}, config(setup="cross-init")
    )
    (gradient,) = torch.autograd.grad(still, initial["a"])
    assert bool((gradient == 0).all())  # and not NaN


def test_cross_initialisation_starts_at_the_encoders_own_output(tiny_sd):
    vocabulary = tiny_sd.vocabularies["clip"]
    task = Job(name="a", pictures=torch.zeros(1, 3, 8, 8), config=config())
    settings = config(setup="cross-init", initializer_token="red cat", num_vectors=2)
    rows = cross_init.start(tiny_sd, task, settings)["clip"]
    ids = vocabulary.tokenizer("red cat", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states = vocabulary.text_encoder(ids).last_hidden_state[0]
    assert torch.equal(rows, states[1:3])
    assert rows.norm(dim=1).min() > 5 * vocabulary.rows_of("red cat").norm(dim=1).max()
    mean = cross_init.start(tiny_sd, task, config(setup="cross-init", initializer_token="red cat"))
    assert torch.allclose(mean["clip"], states[1:3].mean(0, keepdim=True))
    plain = cross_init.start(tiny_sd, task, config(initializer_token="red cat", num_vectors=2))
    assert torch.equal(plain["clip"], vocabulary.rows_of("red cat"))


# --- after each step


def test_the_norm_is_drawn_to_the_vocabularys_by_the_exponent():
    rows = {"clip": torch.tensor([[3.0, 4.0], [0.3, 0.4]]), "clip/1": torch.tensor([[6.0, 8.0]])}
    before = {n: r.clone() for n, r in rows.items()}
    norm.drawn(rows, {}, {"clip": 0.5}, config(norm_pull=0.1), 0)
    for name, row in before.items():
        spread = row.square().mean(1, keepdim=True).sqrt()
        assert torch.allclose(rows[name], row * (0.5 / spread) ** 0.1)
    norm.drawn(rows, {}, {"clip": 0.5}, config(norm_pull=1.0), 1)
    for row in rows.values():
        assert torch.allclose(row.square().mean(1).sqrt(), torch.tensor(0.5))
    kept = {n: r.clone() for n, r in rows.items()}
    norm.drawn(rows, {}, {"clip": 9.0}, config(), 2)
    assert all(torch.equal(rows[n], kept[n]) for n in rows)
    zero = {"clip": torch.zeros(1, 2)}
    norm.drawn(zero, {}, {"clip": 0.5}, config(norm_pull=0.1), 0)
    assert zero["clip"].isfinite().all()


def test_the_average_is_the_mean_until_it_is_exponential():
    rows = torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    memory = {}
    settings = config(keep="average", average_decay=0.75)  # the mean of four
    for step, row in enumerate(rows):
        averaging.followed({"a": row}, memory, {}, settings, step)
        if step < 4:
            assert torch.allclose(memory["average/a"], rows[: step + 1].mean(0))
    expected = rows[:4].mean(0)
    for row in rows[4:]:
        expected = 0.75 * expected + 0.25 * row
    assert torch.allclose(memory["average/a"], expected)
    averaging.followed({"a": rows[0]}, empty := {}, {}, config(keep="last"), 0)
    assert not empty
