"""Keep the average of the last rows, which has less noise than the rows of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from oneword.training.parts import AVERAGE


if TYPE_CHECKING:
    from torch import Tensor

    from oneword.config.inversion import ResolvedConfig


def followed(
    tensors: Mapping[str, Tensor],
    memory: dict[str, Tensor],
    spreads: Mapping[str, float],  # noqa: ARG001  (the shape of the part)
    config: ResolvedConfig,
    step: int,
) -> None:
    """Move the average towards the rows, with ``keep`` "average".

    It is the plain mean of all rows so far until there are 1 / (1 - ``average_decay``) of them, and
    from then on their exponential average.

    Source:
        Polyak and Juditsky 1992, doi:10.1137/0330046; the start is ours.
    """
    if config.keep != "average":
        return
    weight = max(1 / (step + 1), 1 - config.average_decay)
    for name, tensor in tensors.items():
        kept = memory.get(AVERAGE + name)
        if kept is None:
            memory[AVERAGE + name] = tensor.detach().clone()
        else:
            kept.lerp_(tensor.detach(), weight)
