"""Methods that change the model's weights; each is called like ``loop.invert``."""

from __future__ import annotations

from collections.abc import Callable

from oneword.concepts.concept import Concept
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training import fit, loop
from oneword.training.extensions import form
from oneword.training.job import Job, Result
from oneword.training.tuning import named, pivotal


BASELINES: dict[str, Callable[..., Result]] = {
    "pivotal": pivotal.invert,
    "lora-dreambooth": named.invert,
    "custom-diffusion": named.invert,
}
"""``invert(backbone, job, ...)`` of this folder's setups."""


def longest_words(
    backbone: Backbone, job: Job, config: ResolvedConfig
) -> tuple[list[Concept], tuple[str, ...]]:
    """As ``fit.longest_words``, for any setup.

    Raises:
        UserError: the job cannot be trained as it was given.
    """
    if BASELINES.get(config.setup) is named.invert:
        return [named.longest_word(backbone, job, config)], ()
    return fit.longest_words(backbone, job, config, form(config))


def method(setup: str) -> Callable[..., Result]:
    """``invert`` of a setup: one from this folder, otherwise the word's own loop."""
    return BASELINES.get(setup, loop.invert)
