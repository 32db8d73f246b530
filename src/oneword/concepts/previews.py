"""The preview next to a word's file, ``NAME.preview.png``, which A1111 and Forge show for it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from oneword._files import is_there, read_bytes
from oneword._version import __version__
from oneword.errors import UserError
from oneword.images import MAX_BYTES, open_picture, png_bytes


_MARK = "oneword-preview"  # the text entry that tells ours from a person's


def beside(word: Path) -> Path:
    """Path of the preview of a word's file."""
    return word.with_name(f"{word.stem}.preview.png")


def preview_bytes(picture: Image.Image, facts: dict[str, str]) -> bytes:
    """A picture as a preview that may be overwritten later.

    Args:
        picture: What the word draws.
        facts: Text entries of the file.
    """
    return png_bytes(picture, facts | {_MARK: f"oneword {__version__}"})


def may_write(path: Path) -> bool:
    """Whether there is nothing, or a preview that this package wrote."""
    if not is_there(path):
        return True
    try:
        return _MARK in open_picture(path).info
    except UserError:
        return False


def kept(word: Path) -> bytes | None:
    """The preview of a word's file, whoever made it; ``None`` if none can be read."""
    path = beside(word)
    try:
        if not is_there(path) or open_picture(path).format != "PNG":
            return None
        return read_bytes(path, most=MAX_BYTES)
    except UserError:
        return None
