"""Methods that change the model's weights, each called like ``loop.invert``."""

from __future__ import annotations

from collections.abc import Callable

from oneword.training import loop
from oneword.training.job import Result
from oneword.training.tuning import named, pivotal


BASELINES: dict[str, Callable[..., Result]] = {
    "pivotal": pivotal.invert,
    "lora-dreambooth": named.invert,
    "custom-diffusion": named.invert,
}
"""``invert(backbone, job, ...)`` of this folder's setups."""


def method(setup: str) -> Callable[..., Result]:
    """``invert`` of a setup: one of this folder, or the word's own loop for all others."""
    return BASELINES.get(setup, loop.invert)
