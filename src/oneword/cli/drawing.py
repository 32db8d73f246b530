"""Drawing as the options of ``oneword generate`` ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from oneword._typing import Masks, Pixels
from oneword.cli.arguments import GenerateArguments
from oneword.concepts.concept import Concept
from oneword.generation import generate as generation
from oneword.generation.generate import Drawing, OnPicture
from oneword.images import from_uint8, read_image
from oneword.models.contract import Backbone


@dataclass(frozen=True, slots=True)
class Start:
    """What is drawn over, as large as what is drawn; nothing where pictures come from noise."""

    image: Pixels | None = None
    mask: Masks | None = None


def start_of(chosen: GenerateArguments, backbone: Backbone) -> Start:
    """The picture that is drawn over, and its mask, as large as what is drawn."""
    size = backbone.sampling_for(chosen.sampling)
    assert size.height
    assert size.width
    image = mask = None
    if chosen.image is not None:
        image = _fitted(chosen.image, size.width, size.height)
    if chosen.mask_image is not None:
        mask = (_fitted(chosen.mask_image, size.width, size.height)[:, :1] + 1) / 2
    return Start(image, mask)


def _fitted(path: Path, width: int, height: int) -> Pixels:
    """A picture's middle, as large as what is drawn, as pixels."""
    picture = ImageOps.fit(read_image(path), (width, height), Image.Resampling.LANCZOS)
    return from_uint8(np.asarray(picture)[None])


def drawn(
    chosen: GenerateArguments,
    backbone: Backbone,
    prompts: Sequence[str],
    concepts: Sequence[Concept],
    start: Start,
    on_picture: OnPicture,
) -> Drawing:
    """Every prompt with every seed, as the options say.

    Args:
        chosen: The options.
        backbone: The model.
        prompts: What is drawn.
        concepts: The words that are loaded.
        start: What is drawn over.
        on_picture: Told how far the drawing is.
    """
    return generation.generate(
        backbone,
        prompts,
        chosen.drawn_seeds,
        concepts=concepts,
        sampling=chosen.sampling,
        image=start.image,
        mask=start.mask,
        strength=chosen.strength,
        batch_size=chosen.batch_size,
        replace=chosen.replace,
        wildcard_dir=chosen.wildcard_dir,
        on_picture=on_picture,
    )
