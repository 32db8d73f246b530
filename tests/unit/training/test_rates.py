"""Courses of the rate, beside diffusers' own schedulers and the closed forms of before."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.optimization import SchedulerType, get_scheduler

from oneword.config.inversion import InversionConfig
from oneword.errors import ConfigError
from oneword.training.rates import schedule


RULES = "1:3,0.5:9,0.125"
NAMES = [one.value for one in SchedulerType]


def config(name, total, warmup, **settings):
    if name == "piecewise_constant":
        settings["lr_step_rules"] = RULES
    return InversionConfig(
        lr_scheduler=name, max_train_steps=total, lr_warmup_steps=warmup, **settings
    ).resolved("sdxl")


def closed_form(name, total, warmup, step):
    """As this package computed it before it asked diffusers."""
    if name == "constant":
        return 1.0
    if step < warmup:
        return step / warmup
    if name == "constant_with_warmup":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1.0 - done if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


@pytest.mark.parametrize("name", NAMES)
def test_a_course_is_that_of_diffusers_scheduler_step_by_step(name):
    for total, warmup, cycles, power in ((20, 0, 1, 1.0), (23, 5, 3, 2.5)):
        ours = config(name, total, warmup, lr_num_cycles=cycles, lr_power=power)
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        theirs = get_scheduler(
            name,
            optimizer,
            step_rules=RULES,
            num_warmup_steps=warmup,
            num_training_steps=total,
            num_cycles=cycles,
            power=power,
        )
        for step in range(total):
            assert schedule(ours, step) == theirs.get_last_lr()[0], (name, step)
            parameter.grad = torch.zeros(1)
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine"])
def test_courses_that_were_ours_are_what_they_were(name):
    for total, warmup in ((1, 0), (7, 0), (250, 30), (6100, 500), (5, 5), (5, 9)):
        own = config(name, total, warmup)
        for step in range(total + 1):
            before = closed_form(name, total, warmup, step)
            if name == "linear":  # the same fraction, from the other side
                assert schedule(own, step) == pytest.approx(before, rel=0, abs=2.3e-16)
            else:
                assert schedule(own, step) == before


def test_what_is_new_has_its_shape():
    restarts = config("cosine_with_restarts", 40, 0, lr_num_cycles=4)
    assert [schedule(restarts, step) for step in (0, 10, 20, 30)] == [1.0] * 4
    assert schedule(restarts, 5) == pytest.approx(0.5)
    assert schedule(restarts, 40) == 0
    falling = config("polynomial", 40, 0, lr_power=2.0)
    assert schedule(falling, 20) == pytest.approx(0.25, abs=1e-6)
    assert schedule(falling, 40) == pytest.approx(1e-7)
    rules = config("piecewise_constant", 40, 0)
    assert [schedule(rules, step) for step in (0, 2, 3, 8, 9, 39)] == [1, 1, 0.5, 0.5, 0.125, 0.125]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_step_rules": "1:5,0.1"}, "must be used with lr_scheduler piecewise_constant, got '1"),
        ({"lr_scheduler": "linear", "lr_step_rules": "1:5,0.1"}, "with linear; leave one"),
        ({"lr_scheduler": "piecewise_constant"}, "lr_step_rules must be FACTOR:STEP .*, got ''"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "1:5"}, "then a last factor"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "1:9,1:5,1"}, "in rising order"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "1:0,1"}, "in rising order"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "-1:5,1"}, "must be FACTOR:STEP"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "nan:5,1"}, "must be FACTOR:STEP"),
        ({"lr_num_cycles": 0}, "lr_num_cycles must be 1 or more, got 0"),
        ({"lr_power": 0.0}, "lr_power must be positive, got 0.0"),
    ],
)
def test_what_cannot_be_a_course_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        InversionConfig(**settings)
