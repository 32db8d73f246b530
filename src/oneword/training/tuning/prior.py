"""Pictures of the class, which keep a model from forgetting it."""

from __future__ import annotations

import torch

from oneword._typing import Pixels
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.prompts import fill
from oneword.training.job import JobError


_DRAWN_AT_ONCE = 8  # class pictures at once; limits memory


def class_prompt(config: ResolvedConfig, noun: str | None) -> str:
    """What the class pictures show.

    Raises:
        JobError: the class is not known.
    """
    if config.tuning.class_prompt is not None:
        return config.tuning.class_prompt
    if noun is None:
        raise JobError(
            "Cannot use prior preservation without the class of the thing; pass --class-prompt 'a "
            "photo of a dog', or --initializer-token."
        )
    template = "a photo of a {}" if config.learnable_property == "object" else "in the style of {}"
    return fill(template, noun)


@torch.no_grad()
def class_pictures(backbone: Backbone, prompt: str, count: int, seed: int, side: int) -> Pixels:
    """Pictures of a class, drawn by the model with seeds ``seed``, ``seed + 1``, ...

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 3.3.
    """
    drawn = []
    for first in range(0, count, _DRAWN_AT_ONCE):
        seeds = [seed + i for i in range(first, min(count, first + _DRAWN_AT_ONCE))]
        size = SamplingConfig(height=side, width=side)
        drawn.append(backbone.draw([prompt] * len(seeds), seeds, size).cpu())
    return torch.cat(drawn)
