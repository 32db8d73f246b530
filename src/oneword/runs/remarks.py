"""What speaks against a set of training pictures, in words; for the command line and the page."""

from __future__ import annotations

from oneword.images import PictureSet, to_images
from oneword.runs import alike


_LEAST_PX = 256  # of a side; smaller ones are blurred on a model that draws larger pictures


def remarks(found: PictureSet, resolution: int) -> list[str]:
    """What a person should know of the pictures: one only, too small, nearly the same twice.

    Args:
        found: The pictures.
        resolution: The model's own, px.
    """
    said = []
    if len(found.names) == 1:
        said.append(
            "Only one picture, which shows only one side of the thing; three to five are better."
        )
    least = min(_LEAST_PX, resolution)
    sides = found.crops[:, :2].min(1).values.tolist()
    small = [name for name, side in zip(found.names, sides, strict=True) if side < least]
    if small:
        said.append(f"Too small, will look blurred: {', '.join(small)}.")
    frame = list(found.pixels.shape[-2:])
    sizes = [frame] * len(found.names) if found.sizes is None else found.sizes.tolist()
    images = [
        to_images(pixels[None, :, :height, :width])[0]
        for pixels, (height, width) in zip(found.pixels, sizes, strict=True)
    ]
    for own in alike.groups(images):
        names = ", ".join(found.names[i] for i in own)
        said.append(f"Near-duplicates: {names}; keep only one of them.")
    return said
