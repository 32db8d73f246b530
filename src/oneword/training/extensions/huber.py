"""A loss in which large errors count less than by their square."""

from __future__ import annotations

import dataclasses

from oneword._typing import Latents, PerSample
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.noise_levels import noise_levels
from oneword.training.parts import mean_error
from oneword.training.samples import Samples


def scaled(samples: Samples, backbone: Backbone, config: ResolvedConfig) -> Samples:
    """The samples with the error above which each one's loss is linear, with ``loss_type`` "huber".

    It is ``huber_c`` c, or with ``huber_schedule`` "snr" ``(1 - c) / (1 + noise / signal)^2 + c``:
    1 without noise, and c for pure noise.

    Source:
        Khrapov et al. 2024, arXiv:2403.16728, and their authors' code in
        diffusers, whose schedule this is and whose c is 0.1.
    """
    if config.loss_type != "huber":
        return samples
    levels = noise_levels(backbone, samples.t)
    c = levels.signal.new_full(levels.signal.shape, config.huber_c)
    if config.huber_schedule == "snr":
        c = (1 - c) / (1 + levels.noise / levels.signal).square() + c
    return dataclasses.replace(samples, huber_c=c)


def error(prediction: Latents, target: Latents, samples: Samples) -> PerSample:
    """Pseudo-Huber loss ``2 c (sqrt(e^2 + c^2) - c)`` of each cell's error e, and its mean.

    Small errors count as their square, large ones as ``2 c |e|``.

    Source:
        Charbonnier et al. 1994, in the form and scale of Khrapov et al. 2024, arXiv:2403.16728.
    """
    assert samples.huber_c is not None
    c = samples.huber_c[:, None, None, None]
    e = prediction.float() - target.float()
    # as a fraction, which loses no digits if c is large
    return mean_error(2 * c * e.square() / ((e.square() + c.square()).sqrt() + c), samples)
