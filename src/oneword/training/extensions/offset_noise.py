"""Noise with a random mean, so that a picture's overall brightness has to be denoised, too."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from torch import Tensor

    from oneword._typing import Latents
    from oneword.config.inversion import ResolvedConfig


def shifted(noise: Latents, offsets: Tensor, config: ResolvedConfig) -> Latents:
    """``noise + noise_offset * offsets``: each channel of each sample is shifted as a whole.

    Args:
        noise: A step's draws, standard normal.
        offsets: A step's draws, standard normal, (batch, channels, 1, 1).
        config: With ``noise_offset``; 0 leaves the noise unchanged.

    Source:
        Guttenberg 2023, "Diffusion with Offset Noise", crosslabs.org, whose factor is 0.1.
    """
    if not config.noise_offset:
        return noise
    return noise + config.noise_offset * offsets
