"""What a picture's file says about how it was made."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def read(path: Path) -> dict[str, str]:
    """Text entries of a PNG."""
    with Image.open(path) as picture:
        picture.load()  # entries behind the pixels, too
        return {key: str(value) for key, value in picture.text.items()}
