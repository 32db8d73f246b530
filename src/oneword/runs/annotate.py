"""Captions and masks for a folder of pictures, written for a person to check and correct."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from oneword._files import check_writable, write_atomic
from oneword.images import (
    ImageError,
    caption_file,
    captioned_sheet,
    captions_of,
    mask_file,
    mask_of,
    picture_files,
    read_image,
    save_png,
    shrunk,
    with_mask,
)
from oneword.prompts import with_word
from oneword.runs.preview import beside


_SHOWN_PX = 512  # longer side of a picture on the sheet's way


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """The result for a folder."""

    sheet: Path
    """Every picture with its mask and caption."""
    written: tuple[Path, ...]
    kept: tuple[str, ...]
    """Existing captions and masks that were kept, in words."""
    unmarked: tuple[str, ...]
    """Pictures in which nothing was found to mark."""
    skipped: tuple[str, ...]
    """As for ``PictureSet``."""


def annotate(
    folder: Path,
    *,
    caption: Callable[[Image.Image], str] | None = None,
    mark: Callable[[Image.Image], Image.Image | None] | None = None,
    placeholder_token: str = "S*",
    noun: str | None = None,
    output_dir: Path | None = None,
    overwrite: bool = False,
    on_picture: Callable[[int, int], None] | None = None,
) -> Annotated:
    """Write a caption and a mask for each picture of a folder, and a sheet of all of them.

    Captions contain the word, so that training can use them unchanged. Existing captions (next to
    pictures and in ``metadata.jsonl``), masks and transparency are kept.

    Args:
        folder: Folder with the pictures.
        caption: Captions a picture (``models.annotators.Captioner``).
        mark: Gives a grey mask of the picture's size, or ``None`` (``Marker``).
        placeholder_token: The new word.
        noun: As for ``prompts.with_word``.
        output_dir: Folder for captions and masks; ``None``: next to the pictures.
        overwrite: Replace existing captions and masks.
        on_picture: ``on_picture(done, total)``.

    Raises:
        UserError: the pictures cannot be read, or the folder cannot be written.
    """
    paths, skipped = picture_files(folder)
    check_writable(output_dir or folder)
    written: list[Path] = []
    kept, unmarked = [], []
    said = captions_of(folder, paths, output_dir)
    for number, (path, before) in enumerate(zip(paths, said, strict=True), 1):
        image = read_image(path)
        target = caption_file(path, output_dir)
        if caption is not None and (target in written or (before and not overwrite)):
            kept.append(f"the caption of {path.name}")
        elif caption is not None:
            text = with_word(caption(image), placeholder_token, noun)
            write_atomic(target, f"{text}\n".encode())
            written.append(target)
        target = mask_file(path, output_dir)
        there = mark is not None and mask_of(path, output_dir) is not None
        if there and (target in written or not overwrite):
            kept.append(f"the mask of {path.name}")
        elif mark is not None:
            mask = mark(image)
            if mask is None:
                unmarked.append(path.name)
            else:
                write_atomic(target, _png(mask, image, path))
                written.append(target)
        if on_picture is not None:
            on_picture(number, len(paths))
    sheet = beside(output_dir or folder)
    save_png(_sheet(folder, paths, output_dir), sheet)
    return Annotated(
        sheet=sheet,
        written=tuple(written),
        kept=tuple(kept),
        unmarked=tuple(unmarked),
        skipped=tuple(skipped),
    )


def _png(mask: Image.Image, image: Image.Image, path: Path) -> bytes:
    if mask.size != image.size:
        raise ImageError(
            f"A mask must be as large as its picture, got one of {mask.width} x {mask.height} for "
            f"{path.name} of {image.width} x {image.height}."
        )
    stream = io.BytesIO()
    mask.convert("L").save(stream, format="PNG")
    return stream.getvalue()


def _sheet(folder: Path, paths: list[Path], output_dir: Path | None) -> Image.Image:
    """Every picture as it is, with its mask and caption, read back."""
    cells = []
    for path, caption in zip(paths, captions_of(folder, paths, output_dir), strict=True):
        image = read_image(path)
        mask = mask_of(path, output_dir)
        facts = f"{path.name}: {image.width} x {image.height}"
        shown = shrunk(image, _SHOWN_PX)
        if mask is not None:
            shown = with_mask(shown, mask.resize(shown.size))
        cells.append((shown, [facts, caption or "no caption"]))
    return captioned_sheet(cells)
