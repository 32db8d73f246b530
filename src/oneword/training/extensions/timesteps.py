"""The distribution of a step's timesteps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from oneword._typing import Uniforms
    from oneword.config.inversion import ResolvedConfig

_SPREAD = 1009.0  # uses the digits of a draw that its rank does not use
_HALVINGS = 40


def sampled(u: Uniforms, config: ResolvedConfig) -> Uniforms:
    """Map a step's draws of U[0, 1) to times, as the settings say; by default they are unchanged.

    Stratified: each of a step's samples has its own equal part of the range, which keeps the
        distribution and lowers the variance. Biased: more of the noisy times, where layout and
        colour are decided. A power prefers the noisiest times even more: at all others, the colour
        of a large area can be seen in the sample and teaches nothing.

    Args:
        u: A concept's draws for one step.
        config: ``stratified_timesteps``, ``timestep_power`` and ``timestep_bias``.

    Source:
        T2I-Adapter, Mou et al. 2023, arXiv:2302.08453, section 3.4, whose power is 3.
    """
    if config.stratified_timesteps:
        rank = u.argsort().argsort()
        u = (rank + (u.double() * _SPREAD) % 1.0) / len(u)
    if config.timestep_power != 1:
        u = 1 - (1 - u.double()) ** config.timestep_power
    if config.timestep_bias:
        u = _noisier(u.double(), config.timestep_bias)
    return u.float().clamp(max=1.0 - 1e-6)


def _noisier(u: torch.Tensor, bias: float) -> torch.Tensor:
    """Invert F(t) = t - bias sin(pi t) / pi by halving.

    Source:
        ReVersion, Huang et al. 2023, arXiv:2303.13495, equation 7, whose bias is 0.5.
    """
    low, high = torch.zeros_like(u), torch.ones_like(u)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = middle - bias * (math.pi * middle).sin() / math.pi < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
