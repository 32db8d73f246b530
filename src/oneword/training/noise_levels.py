"""How much picture and noise a sample and its target contain, for any family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from oneword._typing import Latents, PerSample, Timesteps


@runtime_checkable
class Noising(Protocol):
    """A backbone's methods for noise; both are linear in picture and noise."""

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps, /) -> Latents: ...

    def target(self, x0: Latents, noise: Latents, t: Timesteps, /) -> Latents: ...


@dataclass(frozen=True, slots=True)
class NoiseLevels:
    """Coefficients of each sample, float32: ``x_t = signal x0 + noise n``, and the target's."""

    signal: PerSample
    noise: PerSample
    target_of_x0: PerSample
    """The target is ``target_of_x0 x0 + target_of_noise n``: 0 and 1 if it is the noise."""
    target_of_noise: PerSample

    @property
    def snr(self) -> PerSample:
        """Signal-to-noise ratio: that of the squares, in [0, inf]."""
        return (self.signal / self.noise).square()


def noise_levels(backbone: Noising, t: Timesteps) -> NoiseLevels:
    """The coefficients at times ``t``, found by passing ones as picture and as noise."""
    one = torch.ones(len(t), 1, 1, 1, device=t.device)
    zero = torch.zeros_like(one)
    return NoiseLevels(
        signal=backbone.add_noise(one, zero, t).flatten(),
        noise=backbone.add_noise(zero, one, t).flatten(),
        target_of_x0=backbone.target(one, zero, t).flatten(),
        target_of_noise=backbone.target(zero, one, t).flatten(),
    )
