"""How each style treats colours and edges, and what it does to the finished picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import skia


Rgb = tuple[int, int, int]

RGB: dict[str, Rgb] = {
    "red": (216, 42, 44), "orange": (245, 130, 32), "yellow": (252, 206, 48),
    "green": (52, 158, 68), "teal": (20, 164, 164), "blue": (40, 92, 212),
    "purple": (132, 60, 180), "pink": (248, 142, 184), "brown": (130, 80, 44),
    "black": (42, 42, 48), "grey": (136, 140, 148), "white": (246, 246, 244),
}  # fmt: skip
WHITE: Rgb = (255, 255, 255)
BLACK: Rgb = (0, 0, 0)
PAPER: Rgb = (252, 249, 240)
BOARD: Rgb = (40, 54, 50)
NIGHT: Rgb = (14, 10, 30)
PRINT: Rgb = (28, 74, 150)
LINEN: Rgb = (232, 222, 200)


def mix(a: Rgb, b: Rgb, amount: float) -> Rgb:
    """Blend two colours; 0 gives the first, 1 the second."""
    return (
        round(a[0] + (b[0] - a[0]) * amount),
        round(a[1] + (b[1] - a[1]) * amount),
        round(a[2] + (b[2] - a[2]) * amount),
    )


def luminance(rgb: Rgb) -> float:
    """Weigh the channels as the eye does, from 0 to 1."""
    return (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255


def saturate(rgb: Rgb, amount: float) -> Rgb:
    """Move a colour away from its grey."""
    grey = sum(rgb) / 3
    r, g, b = (max(0, min(255, round(grey + (c - grey) * amount))) for c in rgb)
    return r, g, b


def _toward(target: Rgb, amount: float) -> Callable[[Rgb], Rgb]:
    return lambda rgb: mix(rgb, target, amount)


def _oil(rgb: Rgb) -> Rgb:
    return mix(mix(saturate(rgb, 1.1), (176, 104, 30), 0.2), BLACK, 0.07)


def _print(rgb: Rgb) -> Rgb:
    return mix(PRINT, (120, 170, 230), 0.45 * luminance(rgb))


def _glow(rgb: Rgb) -> Rgb:
    strong = saturate(rgb, 1.5)
    return mix(strong, WHITE, 0.2 if luminance(rgb) > 0.3 else 0.5)


def _chalk(rgb: Rgb) -> Rgb:
    return mix(rgb, WHITE, 0.38)


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What a style does while drawing; lengths in units of 64 to the picture."""

    tone: Callable[[Rgb], Rgb] = lambda rgb: rgb
    """Colour of an area."""
    ink: Callable[[Rgb], Rgb] | None = None
    """Colour of an area's outline; None: it has none."""
    outline: float = 0.0
    scenery: float = 0.5
    """Width of the background's outlines over the things'."""
    light: float = 0.0
    dark: float = 0.0
    """How much an area's upper left is lightened and its lower right darkened."""
    sheen: str = ""
    """"gloss": a highlight on bodies; "halves": their right half in shade."""
    blur: float = 0.0
    shadow: int = 80
    """Opacity of the contact shadow, of 255."""
    glows: bool = False
    marks: float = 0.0
    """How much of the ink areas without an outline get, the more the brighter they are."""
    crisp: bool = False
    """Whether edges stay hard."""


_CARTOON = Style(
    tone=lambda rgb: saturate(rgb, 1.25),
    ink=lambda _: (16, 14, 18),
    outline=1.7,
    sheen="gloss",
    scenery=0.4,
)
LOOKS: dict[str, Style] = {
    "photo": Style(ink=_toward(BLACK, 0.62), outline=0.7, light=0.26, dark=0.26, scenery=0.0),
    "watercolor": Style(
        tone=_toward(PAPER, 0.36),
        ink=_toward((60, 50, 80), 0.2),
        outline=0.8,
        blur=0.42,
        shadow=40,
        scenery=0.6,
    ),
    "poster": Style(tone=lambda rgb: saturate(rgb, 1.35), sheen="halves", shadow=0),
    "sketch": Style(
        tone=_toward((250, 248, 240), 0.52), ink=lambda _: (52, 50, 56), outline=1.5, shadow=0
    ),
    "pixel art": Style(
        tone=lambda rgb: saturate(rgb, 1.15),
        ink=_toward(BLACK, 0.66),
        outline=1.9,
        scenery=0.0,
        shadow=0,
        crisp=True,
    ),
    "oil painting": Style(tone=_oil, light=0.2, dark=0.3, shadow=110),
    "cartoon": _CARTOON,
    "chalk": Style(
        tone=_toward(BOARD, 0.55), ink=_chalk, outline=1.7, scenery=0.55, shadow=0, marks=0.85
    ),
    "neon": Style(
        tone=_toward(NIGHT, 0.86), ink=_glow, outline=1.1, shadow=0, glows=True, marks=0.9
    ),
    "blueprint": Style(
        tone=_print, ink=lambda _: (236, 244, 255), outline=1.0, shadow=0, marks=0.8
    ),
    "mosaic": Style(tone=lambda rgb: saturate(rgb, 1.2), shadow=70),
    "halftone": Style(light=0.25, dark=0.3, shadow=60),
    "stained glass": Style(
        tone=lambda rgb: saturate(rgb, 1.45),
        ink=lambda _: (20, 18, 24),
        outline=2.0,
        light=0.25,
        dark=0.25,
        shadow=0,
        scenery=0.8,
    ),
    "duotone": Style(light=0.3, dark=0.3),
    "embroidery": Style(
        tone=_toward(LINEN, 0.12), ink=_toward(BLACK, 0.42), outline=1.1, shadow=0, scenery=0.7
    ),
}
BACKDROPS: dict[str, Callable[[Rgb], Rgb]] = {
    "chalk": _toward(BOARD, 0.75),
    "neon": _toward(NIGHT, 0.9),
    "embroidery": _toward(LINEN, 0.62),
}
"""Tone of skies, grounds and scenery where it differs from that of things."""


def finish(picture: np.ndarray, style: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Do to a whole drawn picture what its style asks for.

    Args:
        picture: uint8 (pixels, pixels, 3), as drawn.
        style: Name of the style.
        size: Side of the result in pixels.
        rng: Chooses among textures.

    Returns:
        (size, size, 3), uint8 or float32 from 0 to 255.
    """
    if style not in _FINISHES:
        return picture
    return _FINISHES[style](picture.astype(np.float32), size, rng)


PIXELS = 32
"""Blocks along a side of pixel art."""


def _pixel_art(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    levels = np.round(image / 42.5) * 42.5
    index = np.arange(size) * PIXELS // size
    return levels[index][:, index]


def _watercolor(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    paper = _paper(size, int(rng.integers(4)))
    return image + (np.array(PAPER, np.float32) - image) * paper


def _oil_painting(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    corners, weights, dabs = _dabs(size, int(rng.integers(4)))
    flat = image.reshape(-1, 3)
    dragged = sum(flat[at] * weight for at, weight in zip(corners, weights, strict=True))
    return dragged * (1 + 0.09 * dabs)


def _mosaic(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    tiles, grout = _cells(size, 26, 7, 0.2)
    count = np.bincount(tiles.ravel()).clip(1)
    means = np.stack([np.bincount(tiles.ravel(), image[..., c].ravel()) / count for c in range(3)])
    laid = means.T[tiles].astype(np.float32)
    return laid + (np.float32(74) - laid) * grout


def _halftone(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    ink, reach = _screen(size)
    dark = 1 - image.mean(-1) / 255
    full = np.clip((0.1 + 0.62 * np.sqrt(dark) - reach) * ink + 0.5, 0, 1)[..., None]
    strong = np.clip(image.mean(-1, keepdims=True) * -0.6 + image * 1.4, 0, 255)
    return strong * full + np.array([250, 244, 226], np.float32) * (1 - full)


def _stained_glass(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    panes, lead = _cells(size, 6, 3, 1.0)
    shade = np.random.default_rng(5).uniform(0.78, 1.16, panes.max() + 1).astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1) - 0.5
    glow = 1.18 - 1.1 * (x * x + y * y)
    lit = image * (shade[panes] * glow)[..., None]
    return lit + (np.float32(22) - lit) * lead


def _duotone(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    del size, rng
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    grey = np.clip((grey - 0.5) * 1.2 + 0.5, 0, 1)[..., None]
    return np.array([52, 16, 98], np.float32) * (1 - grey) + np.array([255, 206, 96]) * grey


def _embroidery(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    return image * _stitches(size)


_FINISHES: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "pixel art": _pixel_art,
    "watercolor": _watercolor,
    "oil painting": _oil_painting,
    "mosaic": _mosaic,
    "halftone": _halftone,
    "stained glass": _stained_glass,
    "duotone": _duotone,
    "embroidery": _embroidery,
}


@lru_cache
def _paper(size: int, variant: int) -> np.ndarray:
    """Opacity of the bare paper around a watercolour."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1)
    wave = 0.012 * np.sin(13 * x + 1.6 * variant) + 0.012 * np.sin(16 * y + variant)
    border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) + wave
    return np.clip(1 - (border - 0.02) / 0.05, 0, 1)[..., None]


@lru_cache
def _dabs(
    size: int, variant: int
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], np.ndarray]:
    """Where broad brush dabs drag colour from, as pixels and weights, and their brightness."""
    rng = np.random.default_rng(variant)
    surface = skia.Surface(size, size)
    canvas = surface.getCanvas()
    canvas.clear(skia.Color(128, 128, 128))
    canvas.scale(size / 64, size / 64)
    paint = skia.Paint(
        AntiAlias=True,
        Style=skia.Paint.kStroke_Style,
        StrokeCap=skia.Paint.kRound_Cap,
        MaskFilter=skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, 1.4),
    )
    for _ in range(230):
        x, y, tilt = rng.uniform(-4, 68), rng.uniform(-4, 68), rng.uniform(-0.35, 0.35)
        tilt += 0.9 * np.sin(x / 15 + variant) - 0.5
        dx, dy = 5 * np.cos(tilt), 5 * np.sin(tilt)
        grey = int(rng.integers(50, 206))
        paint.setStrokeWidth(float(rng.uniform(3.2, 5.2)))
        paint.setColor(skia.Color(grey, int(rng.integers(50, 206)), 128))
        canvas.drawLine(x - dx, y - dy, x + dx, y + dy, paint)
    drawn = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., :2]
    dabs = (drawn.astype(np.float32) - 128) / 78
    y, x = np.mgrid[0:size, 0:size]
    wave = np.stack([np.sin(x * 20 / size - variant), np.sin(y * 24 / size + variant)], -1)
    drag = (0.5 * wave + 0.2 * dabs) * size / 64
    from_y = (y + drag[..., 1]).clip(0, size - 1.001).astype(np.float32)
    from_x = (x + drag[..., 0]).clip(0, size - 1.001).astype(np.float32)
    corner = from_y.astype(int) * size + from_x.astype(int)
    dy, dx = (from_y % 1)[..., None], (from_x % 1)[..., None]
    corners = (corner, corner + 1, corner + size, corner + size + 1)
    weights = ((1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx)
    return corners, weights, dabs[..., :1]


@lru_cache
def _cells(size: int, count: int, seed: int, joint: float) -> tuple[np.ndarray, np.ndarray]:
    """Number of the jittered cell around each pixel, and the opacity of joints of a width."""
    rng = np.random.default_rng(seed)
    grid = np.arange(-1, count + 1)
    centres = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    centres = (centres + 0.5 + rng.uniform(-0.3, 0.3, centres.shape)) / count
    pixels = (np.moveaxis(np.mgrid[0:size, 0:size], 0, -1) + 0.5) / size
    far = ((pixels[:, :, None] - centres) ** 2).sum(-1)
    nearest = np.sort(far, -1)[..., :2]
    gap = 32 * (np.sqrt(nearest[..., 1]) - np.sqrt(nearest[..., 0]))
    opacity = np.clip((0.5 * joint - gap) * size / 64 + 0.75, 0, 1).astype(np.float32)
    return far.argmin(-1), opacity[..., None]


@lru_cache
def _screen(size: int) -> tuple[float, np.ndarray]:
    """Sharpness of a slanted dot screen, and the distance to the nearest dot's centre in dots."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * (64 / size)
    pitch = 3.0
    u, v = (x + y) / (pitch * 1.4142), (x - y) / (pitch * 1.4142)
    reach = np.hypot(u - np.round(u), v - np.round(v))
    return pitch * size / 64, reach


@lru_cache
def _stitches(size: int) -> np.ndarray:
    """Brightness of slanted satin stitches."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * (64 / size)
    row = np.floor(y / 4)
    thread = np.abs(np.mod((x + 0.7 * y) / 2.6 + 0.5 * row, 1) - 0.5)
    return (0.84 + 0.46 * thread)[..., None]
