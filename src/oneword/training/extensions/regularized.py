"""Keep the word close to the one that it started from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch import Tensor

    from oneword.config.inversion import ResolvedConfig


def distance(
    rows: Mapping[str, Tensor], initial: Mapping[str, Tensor], config: ResolvedConfig
) -> Tensor | None:
    """The squared L2 distance of all vectors to their initial ones, times its weight.

    Its gradient on each vector is ``2 * regularization_weight * (v - v_initial)``, however many
    vectors there are. (The authors' code averages the products of all pairs of vectors, in which
    opposite deviations of two vectors cancel.)

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.2; the paper gives no value for the weight.
    """
    if not config.regularization_weight:
        return None
    parts = [(row - initial[name]).square().sum() for name, row in rows.items()]
    return config.regularization_weight * torch.stack(parts).sum()
