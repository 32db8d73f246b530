"""Draws the parts of the second world's pictures into one file, for machines without skia.

    python -m oneword.microworld.making.packing world.zip

Packed are every known thing in its four looks, flat stickers in every style of training, all
places in every style, textures, and ready pictures of the first world.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skia
from PIL import Image

from oneword.microworld.making.collage import BELOW, REACH, RIM, SIDE, SIZE
from oneword.microworld.world import (
    artwork,
    drawing,
    inventory,
    scenes,
    styles,
    unseen,
    wide_drawing,
    wide_scenes,
)
from oneword.microworld.world.pen import StylePen
from oneword.microworld.world.places import draw_place
from oneword.microworld.world.styles import LOOKS, PAPER, PIXELS
from oneword.microworld.world.vectors import areas
from oneword.microworld.world.wide_layout import Placed
from oneword.microworld.world.wide_scenes import Figure, WideScene


_UNIT = 44.0
"""Side at which things are packed, in units of 64 to the picture."""


def _webp(pixels: np.ndarray, quality: int = 88) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def drawn_alone(slug: str, look: str, style: str) -> np.ndarray:
    """A thing in a style, on nothing: uint8 (SIDE, SIDE, 4), not premultiplied."""
    place, style = ("beach", "photo") if style == RIM else ("plain", style)
    figure = Figure(slug=slug, look=look)
    surface = skia.Surface(SIDE, SIDE)
    canvas = surface.getCanvas()
    canvas.clear(skia.ColorTRANSPARENT)
    canvas.translate(SIDE / 2, SIDE * (1 - BELOW / REACH))
    canvas.scale(SIDE / (REACH * _UNIT), SIDE / (REACH * _UNIT))
    placed = Placed(figure=figure, side=_UNIT, x=0, y=0, width=_UNIT, shadow=False)
    scene = WideScene(things=(figure,), style=style, place=place)
    wide_drawing.draw_placed(canvas, StylePen(canvas, style), placed, scene)
    return np.ascontiguousarray(surface.toarray(colorType=skia.kRGBA_8888_ColorType))


def background(style: str, place: str, variant: int) -> tuple[np.ndarray, int]:
    """A place in a style before its finish, uint8 (SIZE, SIZE, 3), and its texture's number.

    It is that of ``wide_drawing`` for scenes whose seed is the variant.
    """
    rng = np.random.default_rng(np.random.SeedSequence((variant, 65)))
    size = PIXELS if style == "pixel art" else SIZE
    surface = skia.Surface(size, size)
    canvas = surface.getCanvas()
    canvas.scale(size / 64, size / 64)
    draw_place(StylePen(canvas, style), place, rng)
    drawn = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., :3]
    blocks = SIZE // size
    drawn = drawn.repeat(blocks, 0).repeat(blocks, 1)
    texture = int(rng.integers(4)) if style in ("watercolor", "oil painting") else 0
    return np.ascontiguousarray(drawn), texture


def pack(
    path: Path,
    *,
    slugs: Sequence[str] | None = None,
    num_variants: int = 6,
    num_drawn: int = 1500,
) -> int:
    """Write the file of parts.

    Args:
        path: File to write, atomically.
        slugs: Things; unset: all that training knows.
        num_variants: Backgrounds of each place in each style.
        num_drawn: Ready pictures of the first world.

    Returns:
        Bytes of the file.
    """
    some = unseen.known() if slugs is None else slugs
    index: dict[str, Any] = {
        "world": wide_scenes.VERSION,
        "sprites": [],
        "extents": [],
        "backgrounds": [],
        "variants": [],
        "shadows": {style: LOOKS[style].shadow for style in inventory.STYLES},
        "inks": {colour: styles.RGB[colour] for colour in wide_scenes.COLOURS},
        "drawn": list(range(num_drawn)),
    }
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for slug in some:
            for look in artwork.LOOKS:
                extent = wide_drawing.extent(slug, look)
                index["extents"].append([slug, look, extent.width, extent.height, extent.top])
                shown = ["photo"]
                if look == "line icon":
                    shown.append(RIM)
                if look == "flat sticker" and areas(slug, look):
                    shown += inventory.STYLES[1:]
                for style in shown:
                    number = len(index["sprites"])
                    archive.writestr(
                        f"sprites/{number}.webp", _webp(drawn_alone(slug, look, style))
                    )
                    index["sprites"].append([slug, look, style])
        for style in inventory.STYLES:
            for place in inventory.PLACES:
                for variant in range(num_variants):
                    pixels, texture = background(style, place, variant)
                    number = len(index["backgrounds"])
                    archive.writestr(f"backgrounds/{number}.webp", _webp(pixels, 92))
                    index["backgrounds"].append([style, place, variant])
                    index["variants"].append(texture)
        for number in index["drawn"]:
            picture = drawing.render(scenes.sample_scene(number), SIZE)
            archive.writestr(f"drawn/{number}.webp", _webp(picture, 92))
        archive.writestr("finish.npz", _textures())
        archive.writestr("index.json", json.dumps(index, separators=(",", ":")))
    os.replace(part, path)
    return path.stat().st_size


def _textures() -> bytes:
    """The papers and brush dabs of styles, four of each."""
    dabs = [styles._dabs(SIZE, variant) for variant in range(4)]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        paper=np.stack([styles._paper(SIZE, v)[..., 0] for v in range(4)]).astype(np.float32),
        paper_rgb=np.array(PAPER, np.float32),
        corners=np.stack([np.stack([c.ravel() for c in d[0]]) for d in dabs]).astype(np.int32),
        shares=np.stack([np.stack([w.ravel() for w in d[1]]) for d in dabs]).astype(np.float32),
        dabs=np.stack([d[2].ravel() for d in dabs]).astype(np.float32),
    )
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the packing from the command line."""
    parser = argparse.ArgumentParser(description="Pack the parts of the second world's pictures.")
    parser.add_argument("path", type=Path, help="file to write")
    parser.add_argument("--num-drawn", type=int, default=1500, help="pictures of the first world")
    options = parser.parse_args(arguments)
    size = pack(options.path, num_drawn=options.num_drawn)
    print(f"{size / 2**20:.1f} MiB in {options.path}")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
