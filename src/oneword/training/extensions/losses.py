"""The loss of a sample, by its settings."""

from __future__ import annotations

from oneword._typing import Latents, PerSample
from oneword.training.extensions.huber import error
from oneword.training.parts import squared_error
from oneword.training.samples import Samples


def loss(prediction: Latents, target: Latents, samples: Samples) -> PerSample:
    """The squared error, or Huber's loss, times the sample's weight if it has one."""
    own = squared_error if samples.huber_c is None else error
    found = own(prediction, target, samples)
    return found if samples.weight is None else samples.weight * found
