"""Backgrounds of pictures with transparency: a different one each step, so that none is learned."""

from __future__ import annotations

import colorsys
import io
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from oneword._typing import Pixels
from oneword.config.inversion import ResolvedConfig
from oneword.images import from_uint8
from oneword.training.draws import generator
from oneword.training.job import Job, JobError


NUM_GROUNDS = 8
"""Backgrounds of a picture, and of its mirror image; each is encoded once."""
_STREAM = 78
"""Stream of the backgrounds' draws."""


def check_grounds(job: Job, config: ResolvedConfig, family: str) -> None:
    """Refuse backgrounds that do not fit a job's pictures or its model.

    Raises:
        JobError: places of the embedded model's world are requested for another model, or
            backgrounds for pictures without transparency.
    """
    asked, opacity = config.backgrounds, job.opacity
    if opacity is not None and len(opacity) != len(job.pictures):
        raise JobError(
            f"Job {job.name!r} must have the opacity of each of its {len(job.pictures)} pictures, "
            f"got {len(opacity)}."
        )
    if asked == "world" and family != "microworld":
        raise JobError(
            f"Cannot use backgrounds 'world' with a model of the family {family} because they are "
            "places of the embedded model's world; use --backgrounds plain."
        )
    if asked in ("plain", "world"):
        solid = (
            len(job.pictures) if opacity is None else int((opacity >= 1).flatten(1).all(1).sum())
        )
        if solid:
            raise JobError(
                f"Cannot use backgrounds {asked!r} because {solid} of {len(job.pictures)} "
                "pictures have no transparency around the thing; cut the thing out, or use "
                "--backgrounds auto."
            )


def grounds_for(config: ResolvedConfig, family: str, size: int) -> Pixels | None:
    """The backgrounds of a job, a pure function of its seed; ``None``: white.

    Args:
        config: With its seed and ``backgrounds``: "auto" is half plain colours and half places on
            the embedded model, otherwise colours.
        family: The model's family.
        size: Side, in px.

    Returns:
        (2 * NUM_GROUNDS, 3, size, size) in [-1, 1], colours and places in turn.
    """
    asked = config.backgrounds
    if asked == "none":
        return None
    draws = generator(config.seed, _STREAM)
    count = 2 * NUM_GROUNDS
    colours = _colours(count, size, draws)
    if asked == "plain" or family != "microworld":
        return colours
    places = _places(size)
    chosen = places[torch.randperm(len(places), generator=draws)[torch.arange(count) % len(places)]]
    if asked == "world":
        return chosen
    turn = torch.arange(count) % 4 < 2  # for a picture and for its mirror image
    return torch.where(turn[:, None, None, None], colours, chosen)


def _colours(count: int, size: int, draws: torch.Generator) -> Pixels:
    """Plain backgrounds, slightly darker at the bottom; their hues are evenly spaced."""
    first, *rest = torch.rand(1 + 2 * count, generator=draws).tolist()
    shade = torch.linspace(1.0, 0.9, size)[None, :, None]
    found = []
    for i in range(count):
        hue = (first + i / count) % 1
        saturation, value = 0.6 * rest[2 * i], 0.35 + 0.65 * rest[2 * i + 1]
        rgb = torch.tensor(colorsys.hsv_to_rgb(hue, saturation, value))
        found.append((rgb[:, None, None] * shade).expand(3, size, size))
    order = torch.randperm(count, generator=draws)
    return torch.stack(found)[order] * 2 - 1


def _places(size: int) -> Pixels:
    places = _shipped_places()
    if places.shape[-1] == size:
        return places
    return F.interpolate(places, (size, size), mode="bilinear", antialias=True).clamp(-1, 1)


@lru_cache(maxsize=1)
def _shipped_places() -> Pixels:
    """The world's empty places, drawn once: squares side by side."""
    data = resources.files("oneword.microworld").joinpath("pictures/places.png").read_bytes()
    with Image.open(io.BytesIO(data)) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    side = pixels.shape[0]
    return from_uint8(np.stack(np.split(pixels, pixels.shape[1] // side, axis=1)))


def on_grounds(
    job: Job, config: ResolvedConfig, family: str
) -> tuple[Pixels, Int[Tensor, "grounds sides pictures"]]:
    """A job's pictures and, if they are mirrored, their mirror images, on all of their backgrounds.

    Args:
        job: Its pictures and their opacity.
        config: Its settings.
        family: The model's family.

    Returns:
        The different pictures, each once, and the index of each (ground, mirrored, picture) among
        them. One without transparency is the same on every background.
    """
    pictures, opacity = job.pictures, job.opacity
    count = len(pictures)
    sides = [pictures, pictures.flip(-1)] if config.random_flip else [pictures]
    height, width = pictures.shape[-2:]
    grounds = None if opacity is None else grounds_for(config, family, max(height, width))
    if opacity is None or grounds is None:
        return torch.cat(sides), torch.arange(count * len(sides)).view(1, len(sides), count)
    top, left = (grounds.shape[-1] - height) // 2, (grounds.shape[-1] - width) // 2
    grounds = grounds[..., top : top + height, left : left + width]
    solid = (opacity >= 1).flatten(1).all(1)
    places = torch.zeros(NUM_GROUNDS, len(sides), count, dtype=torch.long)
    shown: list[Tensor] = []
    end = 0
    for side, own in enumerate(sides):
        alpha = opacity.flip(-1) if side else opacity
        shown.append(own[solid])
        places[:, side, solid] = end + torch.arange(int(solid.sum()))
        end += int(solid.sum())
        for number in range(NUM_GROUNDS):
            shown.append(set_on(own[~solid], alpha[~solid], grounds[2 * number + side]))
            places[number, side, ~solid] = end + torch.arange(int((~solid).sum()))
            end += int((~solid).sum())
    return torch.cat(shown), places


def set_on(pictures: Pixels, opacity: Tensor, ground: Tensor) -> Pixels:
    """Pictures on another background than white.

    Args:
        pictures: (batch, 3, height, width) in [-1, 1], on white.
        opacity: (batch, 1, height, width) in [0, 1].
        ground: (3, height, width) in [-1, 1], or one for each picture.
    """
    # a pixel on white is a * colour + (1 - a), so the background replaces that white
    return (pictures - (1 - opacity) * (1 - ground)).clamp(-1, 1)
