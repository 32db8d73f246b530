"""What the model will see of a set of pictures, and what speaks against it, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from oneword.config.inversion import InversionConfig
from oneword.images import PictureSet, contact_sheet, mask_file, to_images
from oneword.training.grounds import on_grounds
from oneword.training.job import Job


_LEAST_PX = 256  # of a side; smaller ones are blurred on a model that draws larger pictures
_DIM = 0.3  # of its light stays where a mask leaves something out
_GROUNDS = 4  # of a transparent picture that are shown


def thumbnails(
    found: PictureSet, folder: Path, config: InversionConfig, family: str
) -> list[Image.Image]:
    """Each picture as the model will see it.

    What a mask leaves out is dim. A picture that is transparent somewhere is shown on four of the
    grounds that it is learned on, unless the settings leave it on white.

    Args:
        found: The pictures.
        folder: Where they lie.
        config: How they will be learned.
        family: The model's; "" where it is not known yet.
    """
    job = Job(name="", pictures=found.pixels, config=config, opacity=found.opacity)
    shown, places = on_grounds(job, config.resolved(family), family)
    images = []
    for number, name in enumerate(found.names):
        pixels = shown[[*dict.fromkeys(places[:_GROUNDS, 0, number].tolist())]]
        if found.masks is not None and mask_file(folder / name).is_file():
            pixels = (pixels + 1) * (_DIM + (1 - _DIM) * found.masks[number]) - 1
        own = to_images(pixels)
        images.append(own[0] if len(own) == 1 else contact_sheet(own, columns=2, cell_px=1))
    return images


def remarks(
    found: PictureSet, folder: Path, config: InversionConfig, family: str, resolution: int
) -> list[str]:
    """What a person should know of the pictures, a sentence each.

    Args:
        found: The pictures.
        folder: Where they lie.
        config: How they will be learned.
        family: The model's; "" where it is not known yet.
        resolution: The model's own, px.
    """
    said = []
    if len(found.names) == 1:
        said.append(
            "One picture only, which shows the word one side of the thing; three to five are "
            "better."
        )
    if found.opacity is not None:
        clear = (found.opacity < 1).flatten(1).any(1).tolist()
        own = [name for name, is_clear in zip(found.names, clear, strict=True) if is_clear]
        on = "on another ground each step"
        if config.resolved(family).backgrounds == "none":
            on = "on white"
        said.append(f"Transparent: {', '.join(own)}; learned {on}, which does not count.")
    return [*said, *_against(folder, found.names, resolution), *map(str, found.skipped)]


def _against(folder: Path, names: Sequence[str], resolution: int) -> list[str]:
    """What speaks against some of them."""
    said = []
    small: list[str] = []
    prints: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        with Image.open(folder / name) as picture:
            if min(picture.size) < min(_LEAST_PX, resolution):
                small.append(name)
            prints.setdefault(tuple(picture.convert("L").resize((8, 8)).tobytes()), []).append(name)
    if small:
        said.append(f"Small, so they will be blurred: {', '.join(small)}.")
    alike = [own for own in prints.values() if len(own) > 1]
    return said + [f"The same picture twice: {', '.join(own)}." for own in alike]
