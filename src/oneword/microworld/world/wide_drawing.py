"""Draws the second world's scenes: pictures and masks are pure functions of the scene."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import skia

from oneword.microworld.world import artwork, drawing
from oneword.microworld.world.inventory import Scene
from oneword.microworld.world.pen import StylePen
from oneword.microworld.world.places import draw_place
from oneword.microworld.world.sprites import sprite
from oneword.microworld.world.styles import PIXELS, RGB, Rgb, finish
from oneword.microworld.world.tints import tinted
from oneword.microworld.world.vectors import areas
from oneword.microworld.world.wide_layout import Extent, Placed, layout
from oneword.microworld.world.wide_scenes import Figure, WideScene, sample


_UNIT = 44.0
"""Side of a vector drawing at which outlines have their usual width."""


def _tint(rgb: Rgb, figure: Figure) -> Rgb:
    if not figure.colour:
        return rgb
    if figure.look == "line icon":
        return RGB[figure.colour]
    red, green, blue = np.round(255 * tinted(np.array(rgb) / 255, figure.colour)).astype(int)
    return int(red), int(green), int(blue)


@lru_cache(maxsize=4096)
def _image(slug: str, look: str, colour: str) -> skia.Image:
    pixels = sprite(slug, look)
    if colour:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        rgb = pixels[..., :3] / 255 / np.maximum(alpha, 1e-6)
        if look == "line icon":
            new = np.broadcast_to(np.array(RGB[colour], np.float32) / 255, rgb.shape)
        else:
            new = tinted(np.clip(rgb, 0, 1), colour)
        pixels = np.round(255 * np.concatenate([new * alpha, alpha], -1)).astype(np.uint8)
    return skia.Image.fromarray(pixels, skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType)


@lru_cache(maxsize=8192)
def extent(slug: str, look: str) -> Extent:
    """How much of its square a drawing fills."""
    solid = sprite(slug, look)[..., 3] > 127
    size = len(solid)
    columns, rows = np.flatnonzero(solid.any(0)), np.flatnonzero(solid.any(1))
    middle = solid[:, int(0.4 * size) : int(0.6 * size)]
    tops = size - middle.argmax(0)[middle.any(0)]
    top = float(np.median(tops)) if len(tops) else size - float(rows[0])
    return Extent(
        width=float(columns[-1] - columns[0] + 1) / size,
        height=(size - float(rows[0])) / size,
        top=top / size,
    )


def has_colours(slug: str) -> bool:
    """Whether a thing is coloured enough in every look for its hues to be replaced.

    People are not: nobody is green.
    """
    if artwork.things()[slug].group in ("people-body", "smileys-emotion"):
        return False
    for look in artwork.LOOKS:
        if look == "line icon":
            continue
        pixels = sprite(slug, look, 64).astype(np.float32)
        rgb = pixels[pixels[..., 3] > 127][:, :3]
        value = rgb.max(-1)
        coloured = (1 - rgb.min(-1) / np.maximum(value, 1) > 0.25) & (value > 64)
        if coloured.mean() < 0.45:
            return False
    return True


# --- pictures


def draw_placed(canvas: skia.Canvas, pen: StylePen, placed: Placed, scene: WideScene) -> None:
    """Draw one thing where it stands, in the scene's style."""
    figure = placed.figure
    canvas.save()
    canvas.translate(placed.x, placed.y)
    if placed.shadow:
        pen.shadow(0.5 * placed.width)
    flip = -1 if figure.flipped else 1
    drawn = areas(figure.slug, figure.look) if scene.style != "photo" and _is_vector(figure) else ()
    if drawn:
        factor = placed.side / _UNIT
        pen.flipped, pen.thickness = figure.flipped, factor**-0.6
        canvas.scale(flip * factor, factor)
        for area in drawn:
            path = skia.Path()
            area.path.transform(skia.Matrix.Scale(_UNIT, _UNIT), path)
            bounds = path.computeTightBounds()
            large = bounds.width() * bounds.height() > 14
            pen.paint(path, _tint(area.rgb, figure), "body", outline=large)
    else:
        canvas.scale(flip * placed.side, placed.side)
        image = _image(figure.slug, figure.look, figure.colour)
        square = skia.Rect.MakeXYWH(-0.5, -1, 1, 1)
        smooth = skia.SamplingOptions(skia.FilterMode.kLinear, skia.MipmapMode.kLinear)
        if figure.look == "line icon" and scene.place != "plain":
            # near-black lines are lost at night without a pale rim
            rim = skia.Paint(
                ColorFilter=skia.ColorFilters.Blend(
                    skia.Color(255, 255, 255), skia.BlendMode.kSrcIn
                )
            )
            reach = 1.3 / placed.side
            for step in range(8):
                dx, dy = reach * np.cos(step * np.pi / 4), reach * np.sin(step * np.pi / 4)
                canvas.drawImageRect(image, square.makeOffset(float(dx), float(dy)), smooth, rim)
        canvas.drawImageRect(image, square, smooth)
    canvas.restore()


def _is_vector(figure: Figure) -> bool:
    return figure.look in artwork.VECTOR_LOOKS


def render(scene: Scene | WideScene, size: int = 128) -> np.ndarray:
    """Draw a scene of either world.

    Args:
        scene: What to draw.
        size: Side in pixels.

    Returns:
        uint8 (size, size, 3), RGB.
    """
    if isinstance(scene, Scene):
        return drawing.render(scene, size)
    rng = np.random.default_rng(np.random.SeedSequence((scene.seed, 65)))
    pixels = PIXELS if scene.style == "pixel art" else size
    surface = skia.Surface(pixels, pixels)
    canvas = surface.getCanvas()
    canvas.scale(pixels / 64, pixels / 64)
    pen = StylePen(canvas, scene.style)
    draw_place(pen, scene.place, rng)
    for placed in layout(scene, extent):
        draw_placed(canvas, pen, placed, scene)
    drawn = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., :3]
    picture = finish(drawn, scene.style, size, rng)
    if scene.light != 1.0:
        picture = picture * np.float32(scene.light)
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def masks(scene: WideScene, size: int = 128) -> dict[str, np.ndarray]:
    """Mark what is visible of the things.

    Args:
        scene: What to mark.
        size: Side in pixels.

    Returns:
        bool (size, size) each: "silhouette" of the first thing, of all its copies where it has
        some; "other" of the second thing.
    """
    surface = skia.Surface(size, size)
    canvas = surface.getCanvas()
    canvas.scale(size / 64, size / 64)
    canvas.clear(skia.Color(0, 0, 0))
    for placed in layout(scene, extent):
        mark = (255, 0, 0) if placed.figure == scene.things[0] else (0, 255, 0)
        paint = skia.Paint(
            ColorFilter=skia.ColorFilters.Blend(skia.Color(*mark), skia.BlendMode.kSrcIn)
        )
        canvas.save()
        canvas.translate(placed.x, placed.y)
        canvas.scale((-1 if placed.figure.flipped else 1) * placed.side, placed.side)
        canvas.drawImageRect(
            _image(placed.figure.slug, placed.figure.look, ""),
            skia.Rect.MakeXYWH(-0.5, -1, 1, 1),
            skia.SamplingOptions(skia.FilterMode.kLinear, skia.MipmapMode.kLinear),
            paint,
        )
        canvas.restore()
    parts = surface.toarray(colorType=skia.kRGBA_8888_ColorType) > 127
    return {"silhouette": parts[..., 0], "other": parts[..., 1]}


def render_batch(
    seeds: Sequence[int], size: int = 128
) -> tuple[np.ndarray, list[Scene | WideScene]]:
    """Sample and draw one scene per seed: uint8 (batch, size, size, 3), and the scenes."""
    drawn = [sample(seed) for seed in seeds]
    return np.stack([render(scene, size) for scene in drawn]), drawn
