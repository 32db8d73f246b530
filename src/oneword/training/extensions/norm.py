"""Keep the rows about as long as those of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from torch import Tensor

    from oneword.config.inversion import ResolvedConfig


def drawn(
    tensors: Mapping[str, Tensor],
    memory: dict[str, Tensor],  # noqa: ARG001  (the shape of the part)
    spreads: Mapping[str, float],
    config: ResolvedConfig,
    step: int,  # noqa: ARG001
) -> None:
    """Scale each row by (spread of the vocabulary / spread of the row) ** ``norm_pull``.

    1 is a hard projection, 0.1 lets the logarithm of the ratio shrink by a tenth a step. A row's
    spread is the root mean square of its entries.

    Source:
        The rule of diffusers' advanced DreamBooth script, with exponent 0.1 and the standard
        deviation of all rows together.
    """
    if not config.norm_pull:
        return
    for name, tensor in tensors.items():
        spread = tensor.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-12)
        tensor.mul_((spreads[name.partition("/")[0]] / spread) ** config.norm_pull)
