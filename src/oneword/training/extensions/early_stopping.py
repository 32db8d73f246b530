"""Stop when the loss on the fixed batch has settled, by its variance."""

from __future__ import annotations

from statistics import pvariance
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from oneword.training.job import Progress


def variance(progress: Progress) -> bool:
    """Whether the last losses on the fixed batch vary little compared with all of them.

    Stops when the population variance of the last ``stop_window`` scorings is below
    ``stop_threshold`` times that of all scorings of training so far; never with ``early_stopping``
    off. DVAR scores after every step, which doubles the cost of a step; here it is every
    ``evaluation_steps``. The first scoring, before training, is therefore left out: it would count
    for many, and the steeper the first steps, the sooner the rest would look settled.

    Source:
        Voronov et al. 2023, arXiv:2302.04841, section 4.
    """
    config = progress.config
    losses = [loss for step, loss in progress.losses if step]
    if not config.early_stopping or len(losses) <= config.stop_window:
        return False
    return pvariance(losses[-config.stop_window :]) < config.stop_threshold * pvariance(losses)
