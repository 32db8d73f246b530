"""More views of each picture: random crops of it, each encoded once like the picture itself."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.training.draws import generator
from oneword.training.job import Job


_STREAM = 79  # of the windows' draws
_TRIES = 20  # for a crop in which something is marked


def views(job: Job, config: ResolvedConfig) -> list[Job]:
    """The job itself, then ``random_crops`` times the job with crops of its pictures.

    A crop keeps a share of the area, drawn uniformly between ``crop_scale`` squared and 1, and the
    picture's aspect. Its position is random, and it is resized to the picture's size. Masks,
    opacity and the crop coordinates that some models take are cropped with it. A crop in which the
    mask is empty is drawn again.

    Args:
        job: Its pictures.
        config: Its settings, whose seed draws the windows.

    Source:
        Szegedy et al. 2014, arXiv:1409.4842, section 6, without its change of the aspect.
    """
    return [job, *(_view(job, config, number) for number in range(config.random_crops))]


def _view(job: Job, config: ResolvedConfig, number: int) -> Job:
    height, width = job.pictures.shape[-2:]
    told = job.crops
    if told is None:
        told = torch.tensor([[height, width, 0, 0]] * len(job.pictures))
    pictures, masks, opacity, crops = [], [], [], []
    for place in range(len(job.pictures)):
        mask = None if job.masks is None else job.masks[place]
        top, left, side = _window(mask, (height, width), config, number, place)
        box = top, left, max(1, round(side * height)), max(1, round(side * width))
        pictures.append(_cut(job.pictures[place], box, "bicubic").clamp(-1, 1))
        if mask is not None:
            masks.append(_cut(mask, box, "bilinear"))
        if job.opacity is not None:
            opacity.append(_cut(job.opacity[place], box, "bilinear"))
        original_height, original_width, before, beside = told[place].tolist()
        larger = height / box[2]
        crops.append(
            [
                original_height,
                original_width,
                round((before + top) * larger),
                round((beside + left) * larger),
            ]
        )
    return dataclasses.replace(
        job,
        pictures=torch.stack(pictures),
        crops=torch.tensor(crops),
        masks=torch.stack(masks) if masks else None,
        opacity=torch.stack(opacity) if opacity else None,
    )


def _window(
    mask: Tensor | None, size: tuple[int, int], config: ResolvedConfig, number: int, place: int
) -> tuple[int, int, float]:
    """Top and left of a window, px, and the share of the sides that it keeps."""
    draws = generator(config.seed, _STREAM, 2**20 * number + place)
    for _ in range(_TRIES):
        area, down, right = torch.rand(3, generator=draws).tolist()
        least = config.crop_scale**2
        side = math.sqrt(least + (1 - least) * area)
        height, width = (max(1, round(side * whole)) for whole in size)
        top = int(down * (size[0] - height + 1))
        left = int(right * (size[1] - width + 1))
        if mask is None or bool((mask[:, top : top + height, left : left + width] > 0.5).any()):
            return top, left, side
    return 0, 0, 1.0


def _cut(picture: Tensor, box: tuple[int, int, int, int], mode: str) -> Tensor:
    """A window of a (channels, height, width) picture, as large as the picture."""
    top, left, height, width = box
    part = picture[None, :, top : top + height, left : left + width]
    size = picture.shape[-2:]
    return part[0] if part.shape[-2:] == size else F.interpolate(part, size, mode=mode)[0]
