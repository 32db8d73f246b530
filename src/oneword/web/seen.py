"""What the model will see of a set of pictures, and what speaks against it, in words."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from oneword.config.inversion import InversionConfig
from oneword.images import PictureSet, contact_sheet, mask_file, to_images
from oneword.runs.remarks import remarks as against
from oneword.training.grounds import on_grounds
from oneword.training.job import Job


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


def remarks(found: PictureSet, config: InversionConfig, family: str, resolution: int) -> list[str]:
    """What a person should know of the pictures, a sentence each.

    Args:
        found: The pictures.
        config: How they will be learned.
        family: The model's; "" where it is not known yet.
        resolution: The model's own, px.
    """
    said = against(found, resolution)
    if found.opacity is not None:
        clear = (found.opacity < 1).flatten(1).any(1).tolist()
        own = [name for name, is_clear in zip(found.names, clear, strict=True) if is_clear]
        on = "on a new background each step"
        if config.resolved(family).backgrounds == "none":
            on = "on white"
        said.append(f"Transparent: {', '.join(own)}; trained {on}, which the loss ignores.")
    return [*said, *map(str, found.skipped)]
