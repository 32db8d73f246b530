"""Limit the weight of samples with little noise."""

from __future__ import annotations

import dataclasses

import torch

from oneword._typing import PerSample
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.noise_levels import NoiseLevels, noise_levels
from oneword.training.samples import Samples


def weighed(samples: Samples, backbone: Backbone, config: ResolvedConfig) -> Samples:
    """The samples with their weights in the loss, if ``snr_gamma`` is set."""
    if not config.snr_gamma:
        return samples
    levels = noise_levels(backbone, samples.t)
    return dataclasses.replace(samples, weight=weights(levels, config.snr_gamma))


def weights(levels: NoiseLevels, gamma: float) -> PerSample:
    """``min(SNR, gamma)`` on the squared error of x0, as a weight on the error of the target.

    With x_t known the target is ``target_of_x0 x0 + target_of_noise (x_t - signal x0) / noise``. An
    error of x0 is one of the target times ``target_of_x0 - target_of_noise signal / noise``, by
    whose square the weight is divided: by SNR where the target is the noise, by SNR + 1 where it is
    v, by ``1 / t^2`` where it is a flow's velocity.

    Source:
        Hang et al. 2023, arXiv:2303.09556, section 3.4, whose gamma is 5.
    """
    own = levels.target_of_x0 * levels.noise - levels.target_of_noise * levels.signal
    ratio = levels.signal / torch.where(own == 0, 1.0, own)
    # the noise itself as the target of pure noise: there SNR / SNR is 1
    ratio = torch.where(own == 0, 1.0, ratio)
    return (gamma / levels.snr).clamp(max=1.0) * ratio.square()
