"""A sheet of a run's training pictures, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from oneword.config.runs import TrainConfig
from oneword.images import captioned_sheet, save_png, to_images, with_mask
from oneword.models.contract import Backbone
from oneword.models.loading import load_shapes
from oneword.prompts import TEMPLATES, fill
from oneword.runs.prepare import Seen, see


def preview_pictures(config: TrainConfig, backbone: Backbone | None = None) -> tuple[Path, Seen]:
    """Write a sheet of the pictures as the model will see them, next to the run's folder.

    Each is cropped, squashed or padded to its size. Masked areas are dark red, and the caption is
    below. Only the model's settings are read, if its files allow that.

    Args:
        config: The settings.
        backbone: Its model, if it is already loaded.

    Returns:
        The sheet's file, and its training data.

    Raises:
        UserError: the pictures cannot be used, or the sheet cannot be written.
    """
    seen = see(config, backbone or load_shapes(config.model))
    path = beside(config.output_dir)
    save_png(sheet(seen), path)
    return path, seen


def beside(folder: Path) -> Path:
    """Path of a folder's sheet: not in the folder, which may be one of pictures or a run."""
    whole = folder.absolute()
    return whole.with_name(f"{whole.name}-pictures.png")


def sheet(seen: Seen) -> Image.Image:
    """Every picture with its mask, sizes and caption."""
    pictures, inversion = seen.pictures, seen.config.inversion
    token = inversion.placeholder_token
    template = fill(TEMPLATES[inversion.prompt_templates][0], token)
    captions = seen.captions or [f"no caption; templates such as: {template}"] * len(pictures.names)
    cells = []
    for place, (name, caption) in enumerate(zip(pictures.names, captions, strict=True)):
        frame = tuple(pictures.pixels.shape[-2:])
        height, width = frame if pictures.sizes is None else pictures.sizes[place].tolist()
        (image,) = to_images(pictures.pixels[place, None, :, :height, :width])
        if pictures.masks is not None:
            mask = (pictures.masks[place, 0, :height, :width] * 255).round().to(torch.uint8)
            image = with_mask(image, Image.fromarray(mask.numpy()))
        first = pictures.crops[place].tolist()
        facts = f"{name}: {first[1]} x {first[0]} to {width} x {height} ({inversion.fit})"
        cells.append((image, [facts, caption]))
    return captioned_sheet(cells)
