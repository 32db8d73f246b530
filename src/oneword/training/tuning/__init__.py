"""Methods that change the model's weights, one per file, each called like ``loop.invert``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from oneword.training import loop
from oneword.training.job import Result


BASELINES = {
    "pivotal": "pivotal",
    "lora-dreambooth": "lora_dreambooth",
    "custom-diffusion": "custom_diffusion",
}
"""Module of this folder by the name of its setup; each has ``invert(backbone, job, ...)``."""


def method(setup: str) -> Callable[..., Result]:
    """``invert`` of a setup: one of this folder, or the word's own loop for all others."""
    if setup not in BASELINES:
        return loop.invert
    return importlib.import_module(f"oneword.training.tuning.{BASELINES[setup]}").invert
