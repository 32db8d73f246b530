"""Stop when the loss on the fixed batch has come to rest, by its variance."""

from __future__ import annotations

from statistics import pvariance
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from oneword.training.job import Progress


def variance(progress: Progress) -> bool:
    """Whether the last losses on the fixed batch vary little beside all of them.

    Stops where the population variance of the last ``stop_window`` scorings is below
    ``stop_threshold`` times that of all scorings of training so far; never with ``early_stopping``
    off. DVAR scores after every step, which doubles a step's cost; here it is every
    ``evaluation_steps``. So the first scoring, before training, is left out: it would stand for
    many, and the steeper the first steps, the more of what follows would pass for rest.

    Source:
        Voronov et al. 2023, arXiv:2302.04841, section 4.
    """
    config = progress.config
    losses = [loss for step, loss in progress.losses if step]
    if not config.early_stopping or len(losses) <= config.stop_window:
        return False
    return pvariance(losses[-config.stop_window :]) < config.stop_threshold * pvariance(losses)
