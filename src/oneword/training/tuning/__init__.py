"""Methods that change the model's weights, one per file, each called like ``loop.invert``."""

from __future__ import annotations

from collections.abc import Callable

from oneword.training import loop
from oneword.training.job import Result
from oneword.training.tuning import custom_diffusion, lora_dreambooth, pivotal


BASELINES: dict[str, Callable[..., Result]] = {
    "pivotal": pivotal.invert,
    "lora-dreambooth": lora_dreambooth.invert,
    "custom-diffusion": custom_diffusion.invert,
}
"""``invert(backbone, job, ...)`` of this folder's setups."""


def method(setup: str) -> Callable[..., Result]:
    """``invert`` of a setup: one of this folder, or the word's own loop for all others."""
    return BASELINES.get(setup, loop.invert)
