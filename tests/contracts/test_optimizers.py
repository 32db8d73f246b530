"""Optimisers of other libraries: what they compute, each word its own, to the bit after a stop."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from oneword.cli.arguments import TrainArguments
from oneword.cli.options import parse
from oneword.config.inversion import InversionConfig
from oneword.config.tuning import TUNING
from oneword.errors import ConfigError
from oneword.runs.folder import StateFile
from oneword.runs.train import train
from oneword.training import by_library
from oneword.training.by_library import ByLibrary
from oneword.training.job import Job, JobError
from oneword.training.loop import invert, invert_many
from oneword.vocabulary.vocabulary import initial_rows


NAMES = ("prodigy", "lion", "adamw8bit", "adafactor")
PACKAGES = {"prodigy": "prodigyopt", "lion": "lion_pytorch", "adamw8bit": "bitsandbytes"}
there = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None,
            reason=f"{PACKAGES.get(name)} is not installed",
        ),
    )
    for name in NAMES
]


def job(name="a", optimizer="adamw", seed=0, **fields):
    settings = {
        "initializer_token": "cat",
        "max_train_steps": 8,
        "train_batch_size": 2,
        "evaluation_steps": 2,
        "num_evaluation_samples": 4,
        "keep": "last",
    }
    config = InversionConfig(
        **{"placeholder_token": f"<{name}>", "optimizer": optimizer, "seed": seed}
        | settings | fields
    )  # fmt: skip
    g = torch.Generator().manual_seed(seed)
    return Job(name=name, pictures=torch.rand(3, 3, 32, 32, generator=g) * 2 - 1, config=config)


def all_of(result):
    return result.concept.rows | result.concept.tensors


def settings(name, **fields):
    return InversionConfig(optimizer=name, **fields).resolved("sdxl")


def tensors(seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "a": nn.Parameter(torch.randn(1, 6, generator=g)),
        "a/b": nn.Parameter(torch.randn(3, 40, 48, generator=g)),  # large enough for 8 bits
        "c": nn.Parameter(torch.randn(5, generator=g)),
    }


def gradients(step, like):
    g = torch.Generator().manual_seed(100 + step)
    return [torch.randn(p.shape, generator=g) for p in like.values()]


def steps(own, rows, which, rate=0.01):
    for step in which:
        rates = [rate * (1 + 0.1 * step)] * len(rows)
        own.step(gradients(step, rows), rates)


# --- what they compute


def made(name, rows):
    """The library's optimiser as its own page shows it."""
    parameters = list(rows.values())
    if name == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(parameters, use_bias_correction=True, safeguard_warmup=True)
    if name == "lion":
        from lion_pytorch import Lion

        return Lion(parameters)
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(parameters, weight_decay=0.0)
    from transformers import Adafactor

    return Adafactor(parameters, lr=1.0, scale_parameter=False, relative_step=False)


@pytest.mark.parametrize("name", there)
def test_a_word_moves_as_the_librarys_optimiser_moves_it(name):
    ours, theirs = tensors(), tensors()
    own, plain = ByLibrary(settings(name), ours), made(name, theirs)
    for step in range(6):
        for group in plain.param_groups:
            group["lr"] = 0.01 * (1 + 0.1 * step)
        for parameter, gradient in zip(theirs.values(), gradients(step, theirs), strict=True):
            parameter.grad = gradient
        plain.step()
        steps(own, ours, [step])
    for a, b in zip(ours.values(), theirs.values(), strict=True):
        assert torch.equal(a, b)
        assert a.grad is None


@pytest.mark.skipif(importlib.util.find_spec("lion_pytorch") is None, reason="not installed")
def test_lion_is_its_papers_algorithm():
    """Chen et al. 2023, arXiv:2302.06675, algorithm 2, in float64."""
    rows = tensors()
    x = rows["a"].detach().numpy().astype(np.float64)
    m = np.zeros_like(x)
    for step in range(5):
        g = gradients(step, rows)[0].numpy().astype(np.float64)
        x -= 0.01 * (1 + 0.1 * step) * (np.sign(0.9 * m + 0.1 * g) + 0.02 * x)
        m = 0.99 * m + 0.01 * g
    steps(ByLibrary(settings("lion", adam_weight_decay=0.02), rows), rows, range(5))
    assert np.allclose(rows["a"].detach().numpy(), x, atol=1e-5)


def test_adafactor_is_its_papers_algorithm():
    """Shazeer and Stern 2018, arXiv:1804.04235, algorithm 4, with the rate from outside."""
    rows = tensors()
    x = rows["a/b"].detach().numpy().astype(np.float64)
    row, column = np.zeros(x.shape[:-1]), np.zeros((x.shape[0], x.shape[2]))
    for step in range(5):
        g = gradients(step, rows)[1].numpy().astype(np.float64)
        beta = 1 - (step + 1) ** -0.8
        row = beta * row + (1 - beta) * (g**2 + 1e-30).mean(-1)
        column = beta * column + (1 - beta) * (g**2 + 1e-30).mean(-2)
        v = row[..., None] * column[:, None] / row.mean(-1)[:, None, None]
        u = g / np.sqrt(v)
        x -= 0.01 * (1 + 0.1 * step) * u / max(1.0, np.sqrt((u**2).mean()))
    steps(ByLibrary(settings("adafactor"), rows), rows, range(5))
    assert np.allclose(rows["a/b"].detach().numpy(), x, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="not installed")
def test_small_words_of_8_bit_adamw_are_those_of_adamw_and_large_ones_nearly():
    rows = tensors()
    expected = tensors()
    adam = torch.optim.AdamW(expected.values(), weight_decay=0.0)
    for step in range(6):
        adam.param_groups[0]["lr"] = 0.01 * (1 + 0.1 * step)
        for parameter, gradient in zip(expected.values(), gradients(step, rows), strict=True):
            parameter.grad = gradient
        adam.step()
    own = ByLibrary(settings("adamw8bit"), rows)
    steps(own, rows, range(6))
    assert torch.allclose(rows["a"], expected["a"], atol=1e-5)
    moved = (expected["a/b"] - tensors()["a/b"]).norm()
    assert 0 < (rows["a/b"] - expected["a/b"]).norm() < 0.05 * moved
    kept = own.tensors()
    assert kept["state/state1/a/b"].dtype == torch.uint8
    assert kept["state/state1/a"].dtype == torch.float32


@pytest.mark.parametrize("name", there)
def test_a_tensor_that_rests_neither_moves_nor_decays(name):
    rows = tensors()
    before = rows["a"].detach().clone()
    own = ByLibrary(settings(name, adam_weight_decay=0.1), rows)
    for step in range(3):
        own.step([None, *gradients(step, rows)[1:]], [1.0] * 3)
    assert torch.equal(rows["a"], before)
    own.step(gradients(3, rows), [1.0] * 3)
    assert not torch.equal(rows["a"], before)


# --- back, and on from where it stood


@pytest.mark.parametrize("done", [0, 3])
@pytest.mark.parametrize("name", there)
def test_steps_are_undone_to_the_bit(name, done):
    rows = tensors()
    own = ByLibrary(settings(name), rows)
    steps(own, rows, range(done))
    kept = own.tensors()
    before = {n: p.detach().clone() for n, p in rows.items()}
    steps(own, rows, range(done, done + 4))
    after = {n: p.detach().clone() for n, p in rows.items()}
    for _ in range(2):  # what was copied is not touched by the steps that follow
        with torch.no_grad():
            for n, p in rows.items():
                p.copy_(before[n])
        own.restore(kept)
        steps(own, rows, range(done, done + 4))
        assert all(torch.equal(after[n], p) for n, p in rows.items())


class Interrupted:
    def __init__(self, step):
        self.step = step

    def __call__(self, progress):
        if progress.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("form", ["rows", "neti", "progressive"])
@pytest.mark.parametrize("name", there)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tiny_sd, tmp_path, name, form):
    fields = {"form": form, "num_vectors": 2, "lr_scheduler": "cosine", "lr_warmup_steps": 2}
    task = job(optimizer=name, **fields)
    whole = invert(tiny_sd, task)
    file = StateFile(tmp_path / "state.safetensors", 100, lambda: None)
    for stop in (3, 6):
        stopped = invert(tiny_sd, task, checkpoint=file, on_step=Interrupted(stop))
        assert (stopped.status, stopped.steps) == ("interrupted", stop)
    resumed = invert(tiny_sd, task, checkpoint=file)
    assert resumed.losses == whole.losses
    assert all(torch.equal(t, all_of(resumed)[n]) for n, t in all_of(whole).items())
    start = invert(tiny_sd, job(optimizer=name, **fields | {"max_train_steps": 1}))
    assert not torch.equal(start.concept.rows["clip"], whole.concept.rows["clip"])


@pytest.mark.parametrize("name", there)
def test_a_number_that_is_not_finite_sets_the_optimiser_back_too(tiny_sd, name):
    task = job(optimizer=name, max_train_steps=4)
    calls = []

    def loss(prediction, target, samples):
        value = (prediction - target).square().flatten(1).mean(1)
        if len(samples.t) == 2:
            calls.append(1)
            if len(calls) == 3:
                return value * float("nan")
        return value

    result = invert(tiny_sd, task, loss=loss)
    assert result.status == "finished"
    good = invert(tiny_sd, task, on_step=Interrupted(2))
    assert torch.equal(result.concept.rows["clip"], good.concept.rows["clip"])  # set back at 4


def test_words_with_optimisers_of_their_own_share_a_batch_and_learn_what_they_learn_alone(tiny_sd):
    names = [param.values[0] for param in there if not param.marks[0].args[0]]
    jobs = [job(f"j{i}", name, seed=i) for i, name in enumerate(["adamw", *names, *names[:2]])]
    together = invert_many(tiny_sd, jobs, slots=3)  # some take a slot in mid-run
    for one, result in zip(jobs, together, strict=True):
        rows, own = result.concept.rows["clip"], invert(tiny_sd, one).concept.rows["clip"]
        assert float((rows - own).norm() / own.norm()) < 1e-4, one.config.optimizer


@pytest.mark.skipif(importlib.util.find_spec("lion_pytorch") is None, reason="not installed")
def test_a_step_is_as_long_as_the_words_own_rate_says(tiny_sd):
    """Lion's first one is the rate itself, in every direction."""
    start = initial_rows(tiny_sd.vocabularies["clip"], "cat", 2)
    for rate in (7e-3, 2e-3):
        task = job(optimizer="lion", max_train_steps=1, learning_rate=rate, num_vectors=2)
        moved = (invert(tiny_sd, task).concept.rows["clip"] - start).abs()
        assert torch.allclose(moved, torch.full_like(moved, rate), atol=1e-6)


# --- rates and refusals


def test_each_optimiser_has_the_rate_that_its_library_advises():
    rates = {name: settings(name).learning_rate for name in ("adamw", *NAMES)}
    assert rates == {
        "adamw": 2e-3, "prodigy": 1.0, "lion": 2e-3 * 0.3, "adamw8bit": 2e-3, "adafactor": 2e-3,
    }  # fmt: skip
    assert settings("lion", learning_rate=7e-3).learning_rate == 7e-3
    assert settings("prodigy", learning_rate=0.5).learning_rate == 0.5
    assert settings("prodigy", setup="high-lr").learning_rate == 4.0
    paper = InversionConfig(optimizer="prodigy", preset="paper").resolved("ldm")
    assert (paper.learning_rate, paper.scale_lr) == (1.0, False)
    flow = InversionConfig(optimizer="prodigy").resolved("qwen_image")  # others' are relative
    assert (flow.learning_rate, flow.relative_learning_rate) == (1.0, None)
    assert flow.resolved("qwen_image") == flow


@pytest.mark.skipif(importlib.util.find_spec("prodigyopt") is None, reason="not installed")
def test_prodigy_finds_a_rate_and_it_is_told(tiny_sd):
    rows = {"a": nn.Parameter(torch.zeros(1, 6))}
    own = ByLibrary(settings("prodigy"), rows)
    found = []
    for _ in range(200):
        found.append(own.factor)
        own.step([rows["a"].detach() - 0.3], [1.0])
    assert found[0] == 1e-6
    assert found == sorted(found)
    assert 0.01 < found[-1] < 1
    assert torch.allclose(rows["a"], torch.full((1, 6), 0.3), atol=0.05)
    told = []
    task = job(optimizer="prodigy", max_train_steps=2, lr_scheduler="linear")
    invert(tiny_sd, task, on_step=lambda progress: told.append(progress.learning_rate))
    assert told == [pytest.approx(1e-6), pytest.approx(1e-6), pytest.approx(0.5e-6)]


@pytest.mark.parametrize("name", PACKAGES)
def test_an_optimiser_whose_library_is_missing_names_the_extra(make, tiny_sd, name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        by_library.importlib.util, "find_spec",
        lambda package: None if package == PACKAGES[name] else find(package),
    )  # fmt: skip
    message = rf"'{name}' .* is not installed; pip install 'oneword\[{name}\]'"
    with pytest.raises(ConfigError, match=message):
        train(make(inversion={"optimizer": name}))
    with pytest.raises(JobError, match=message):
        invert(tiny_sd, job(optimizer=name))


@pytest.mark.parametrize("setup", TUNING)
def test_setups_that_change_weights_are_trained_with_adamw(setup):
    with pytest.raises(ConfigError, match=f"optimizer lion with setup {setup} because"):
        InversionConfig(optimizer="lion", setup=setup)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"relative_learning_rate": 0.1}, "relative_learning_rate"),
        ({"scale_lr": True}, "scale_lr"),
        ({"learning_rate": 0.0}, "learning_rate 0"),
    ],
)
def test_prodigy_finds_its_own_rate(fields, named):
    with pytest.raises(ConfigError, match=f"Cannot use {named} with prodigy because"):
        InversionConfig(optimizer="prodigy", **fields)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--use_8bit_adam"], "adamw8bit"),
        (["--optimizer_type", "AdamW8bit"], "adamw8bit"),
        (["--optimizer", "prodigy"], "prodigy"),
        (["--optimizer_type=Lion"], "lion"),
        (["--optimizer_type", "AdaFactor"], "adafactor"),
    ],
)
def test_other_tools_names_are_known(words, name):
    chosen, notes = parse(TrainArguments, "train", ["--train-data-dir", "p", *words])
    assert (chosen.inversion.optimizer, notes) == (name, [])
