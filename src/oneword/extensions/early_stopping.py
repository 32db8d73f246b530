"""Stop when the loss on the fixed batch has come to rest, by its variance."""

from __future__ import annotations

from statistics import pvariance
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from oneword.parts import Progress


def variance(progress: Progress) -> bool:
    """Whether the last losses on the fixed batch vary little beside all of them.

    Stops where the population variance of the last ``stop_window`` scorings is below
    ``stop_threshold`` times that of all scorings so far; never with ``early_stopping`` off. DVAR
    scores after every step, which doubles a step's cost; here it is every ``evaluation_steps``.

    Source:
        Voronov et al. 2023, arXiv:2302.04841, section 4.
    """
    config = progress.config
    if not config.early_stopping or len(progress.losses) <= config.stop_window:
        return False
    losses = [loss for _, loss in progress.losses]
    return pvariance(losses[-config.stop_window :]) < config.stop_threshold * pvariance(losses)
