"""Methods that change the model's weights, one per file, each called like ``inversion.invert``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from oneword.parts import Result


BASELINES = {
    "pivotal": "pivotal",
    "lora-dreambooth": "lora_dreambooth",
    "custom-diffusion": "custom_diffusion",
}
"""Module of this folder by the name of its setup; each has ``invert(backbone, job, ...)``."""


def method(setup: str) -> Callable[..., Result] | None:
    """``invert`` of a setup that changes weights; ``None`` for the others."""
    if setup not in BASELINES:
        return None
    return importlib.import_module(f"oneword.baselines.{BASELINES[setup]}").invert
