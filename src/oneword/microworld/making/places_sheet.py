"""Draws the places on which pictures with transparency are set, for those who have no skia.

    python -m oneword.microworld.making.places_sheet

Two variations of each place, side by side, in ``microworld/pictures/places.png``.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from oneword.images import png_bytes
from oneword.microworld.world import drawing
from oneword.microworld.world.inventory import PLACES


VARIANTS = 2
SHEET = Path(str(resources.files("oneword.microworld"))) / "pictures" / "places.png"


def places() -> np.ndarray:
    """Every place but the plain one, uint8 (128, 128 * count, 3)."""
    named = [place for place in PLACES if place != "plain"]
    drawn = [drawing.empty_place(place, variant) for place in named for variant in range(VARIANTS)]
    return np.concatenate(drawn, axis=1)


if __name__ == "__main__":
    SHEET.write_bytes(png_bytes(Image.fromarray(places())))
