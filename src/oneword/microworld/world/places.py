"""Backgrounds: each place has a ground that things stand on at y = 56 of 64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import skia

from oneword.microworld.world.paths import (
    curve,
    disc,
    discs,
    line,
    oval,
    poly,
    rect,
    tube,
    turned,
    union,
)
from oneword.microworld.world.pen import StylePen
from oneword.microworld.world.styles import Rgb


_FAR = 66.0
"""Backgrounds reach beyond the picture, so that their outlines do not show at its border."""


def draw_place(pen: StylePen, place: str, rng: np.random.Generator) -> None:
    """Draw the background, with the variations that ``rng`` decides."""
    _PLACES[place](pen, rng)


def _band(pen: StylePen, y0: float, y1: float, rgb: Rgb, to: Rgb) -> None:
    """Fill a level band of sky or ground."""
    pen.scenery(rect(-2, y0 if y0 else -2, _FAR, min(y1, _FAR)), rgb, to)


def _hills(pen: StylePen, y: float, swell: float, shift: float, rgb: Rgb, to: Rgb) -> None:
    """Fill rolling ground whose edge is near ``y``."""
    start = shift % 36 - 38
    x, points = start, [(start, y)]
    for i in range(6):
        points += [(x + 9, y - swell if i % 2 else y + swell), (x + 18, y)]
        x += 18
    area = curve(*points)
    area.lineTo(x, 70)
    area.lineTo(start, 70)
    area.close()
    pen.scenery(area, rgb, to)


def _side(rng: np.random.Generator) -> float:
    """Choose left or right, mostly in the corners where things do not hide it."""
    x = float(rng.uniform(8, 14))
    return x if rng.random() < 0.5 else 64 - x


def _plain(pen: StylePen, rng: np.random.Generator) -> None:
    tint = int(rng.integers(-10, 11))
    _band(pen, 0, _FAR, (226 + tint, 228 + tint, 234 + tint), (204 + tint, 206 + tint, 214 + tint))


def _cloud(pen: StylePen, x: float, y: float, r: float, rgb: Rgb = (255, 255, 255)) -> None:
    puffs = union(
        disc(x, y, r),
        disc(x - 1.2 * r, y + 0.4 * r, 0.7 * r),
        disc(x + 1.2 * r, y + 0.35 * r, 0.75 * r),
        rect(x - 1.9 * r, y + 0.3 * r, x + 1.95 * r, y + 1.1 * r, 0.4 * r),
    )
    pen.scenery(puffs, rgb)


def _beach(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 28, (104, 196, 244), (190, 232, 250))
    x = _side(rng)
    pen.scenery(disc(64 - x, 9, 5.5), (255, 224, 84))
    _band(pen, 26, 46, (24, 124, 196), (64, 184, 214))
    for i in range(3):
        at = float(rng.uniform(2, 50))
        pen.scenery(
            rect(at, 30 + 4.4 * i, at + 9, 31.2 + 4.4 * i, 0.6), (214, 240, 250), outline=False
        )
    shift = float(rng.uniform(-8, 8))
    _hills(pen, 44, 2.0, shift, (255, 255, 255), (255, 255, 255))
    _hills(pen, 46, 2.0, shift, (250, 224, 158), (236, 198, 124))
    lean = 4 if x < 32 else -4
    pen.scenery(tube(curve((x - lean, 49), (x - lean, 34), (x, 20)), 3), (150, 104, 62))
    fronds = [
        turned(curve((x, 20), (x + 6, 12), (x + 13, 19), (x + 7, 16.5), (x, 20)), angle, x, 20)
        for angle in (-6, 42, -52, 186, 138, 232)
    ]
    pen.scenery(union(*fronds), (44, 150, 76))


def _moon(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 48, (8, 8, 26), (26, 24, 60))
    stars = [(float(rng.uniform(1, 63)), float(rng.uniform(2, 36)), 0.9) for _ in range(12)]
    pen.scenery(discs(*stars), (255, 255, 236), outline=False)
    x = _side(rng)
    earth = disc(x, 12, 7.5)
    pen.scenery(earth, (52, 122, 226))
    pen.scenery(
        union(oval(x - 6, 7, x + 1, 12.5), oval(x, 12, x + 5, 17)), (84, 186, 104), outline=False
    )
    _hills(pen, 45, 3.0, float(rng.uniform(-12, 12)), (190, 190, 196), (132, 132, 142))
    shift = float(rng.uniform(-4, 4))
    for at, y, w in ((8, 51, 6), (54, 50, 7), (44, 60.5, 6), (16, 60, 4.6)):
        at += shift
        pen.scenery(oval(at - w, y - 0.32 * w, at + w, y + 0.32 * w), (122, 122, 132))
        pen.scenery(oval(at - w, y - 0.1 * w, at + w, y + 0.32 * w), (158, 158, 168), outline=False)


def _forest(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 50, (198, 228, 190), (164, 210, 162))
    shift = float(rng.uniform(-5, 5))
    tops = rng.uniform(2, 13, 9)
    for row, (rgb, base) in enumerate((((96, 164, 110), 44), ((30, 100, 60), 48))):
        for i in range(5 - row):
            x = shift + 16 * i + 8 * row
            top = float(tops[5 * row + i]) + 3 * row
            third = (base - 4 - top) / 3
            if row:
                pen.scenery(
                    rect(x - 1.4, base - 5, x + 1.4, base + 1), (104, 70, 46), outline=False
                )
            tiers = [
                poly((x - 5 - 1.6 * k, top + third * (k + 1.25)), (x, top + third * k * 0.8),
                     (x + 5 + 1.6 * k, top + third * (k + 1.25)))
                for k in range(3)
            ]  # fmt: skip
            pen.scenery(union(*tiers), rgb)
    _hills(pen, 47, 1.6, shift, (104, 172, 78), (64, 124, 56))


def _room(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 47, (246, 224, 186), (236, 208, 166))
    x = _side(rng)
    x += 4 if x < 32 else -4
    pen.scenery(rect(x - 9.5, 4, x + 9.5, 26, 1), (255, 255, 255))
    pen.scenery(rect(x - 7.5, 6, x + 7.5, 24), (150, 210, 246), (206, 236, 250))
    pen.scenery(
        union(rect(x - 0.8, 6, x + 0.8, 24), rect(x - 7.5, 14, x + 7.5, 15.6)),
        (255, 255, 255),
        outline=False,
    )
    for side in (-1, 1):
        pen.scenery(
            curve((x + 12 * side, 2), (x + 12 * side, 20), (x + 13 * side, 29), (x + 10 * side, 29),
                  (x + 8.6 * side, 29), (x + 9 * side, 16), (x + 4 * side, 2), close=True),
            (206, 92, 84),
        )  # fmt: skip
    at = 64 - x + (3 if x > 32 else -3)
    pen.scenery(rect(at - 6, 8, at + 6, 20, 0.8), (150, 100, 58))
    pen.scenery(rect(at - 4.4, 9.6, at + 4.4, 18.4), (244, 232, 206), outline=False)
    pen.scenery(
        poly((at - 4.4, 18.4), (at - 0.6, 12), (at + 4.4, 18.4)), (104, 164, 132), outline=False
    )
    _band(pen, 46, _FAR, (176, 116, 70), (146, 92, 54))
    _band(pen, 45, 47, (255, 250, 240), (240, 232, 216))
    pen.scenery(oval(6, 51, 58, 62), (112, 136, 172))
    pen.scenery(oval(10, 52.4, 54, 60.6), (158, 180, 206), outline=False)


def _snow(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 48, (150, 186, 220), (206, 224, 240))
    shift = float(rng.uniform(-8, 8))
    for x, top, w in ((12, 13, 24), (50, 9, 27)):
        x += shift
        pen.scenery(poly((x - w, 46), (x, top), (x + w, 46), r=2), (122, 148, 182), (146, 170, 200))
        edge = ((0, 0), (0.36, 0.36), (0.14, 0.28), (-0.05, 0.42), (-0.2, 0.27), (-0.36, 0.36))
        cap = [(x + across * w, top + down * (46 - top)) for across, down in edge]
        pen.scenery(poly(*cap, r=1), (252, 253, 255), outline=False)
    _hills(pen, 44, 2.6, shift, (250, 252, 255), (222, 232, 246))
    flakes = [(float(rng.uniform(2, 62)), float(rng.uniform(2, 42)), 1.2) for _ in range(13)]
    pen.scenery(discs(*flakes), (255, 255, 255), outline=False)


def _city(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 48, (16, 18, 62), (70, 50, 120))
    x = _side(rng)
    pen.scenery(disc(x, 9, 4.6), (252, 246, 206))
    shift = float(rng.uniform(-5, 3))
    tops = rng.uniform(12, 26, 6)
    lit, dim = skia.Path(), skia.Path()
    for i in range(6):
        x, top = shift + 12 * i - 2, float(tops[i])
        pen.scenery(rect(x, top, x + 11.4, 50), (40, 42, 78) if i % 2 else (52, 54, 94))
        for row in range(int((44 - top) / 7)):
            for column in range(2):
                window = skia.Rect.MakeXYWH(x + 2 + 4.4 * column, top + 3 + 7 * row, 3, 4)
                (lit if rng.random() < 0.7 else dim).addRect(window)
    pen.scenery(lit, (255, 218, 100), outline=False)
    pen.scenery(dim, (30, 32, 60), outline=False)
    _band(pen, 46, 50, (128, 128, 140), (108, 108, 120))
    _band(pen, 49, _FAR, (66, 66, 76), (50, 50, 58))
    for i in range(4):
        pen.scenery(
            rect(shift + 20 * i, 59.6, shift + 20 * i + 11, 61.4), (242, 224, 130), outline=False
        )


def _desert(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 46, (252, 152, 66), (255, 216, 134))
    x = _side(rng)
    pen.scenery(disc(x, 15, 8), (255, 240, 176))
    for at, top, w in ((64 - x, 17, 19), (64 - x + (19 if x > 32 else -19), 27, 13)):
        pen.scenery(poly((at - w, 46), (at, top), (at + w, 46)), (222, 150, 76))
        pen.scenery(
            poly((at + 0.22 * w, 46), (at, top), (at + w, 46)), (180, 110, 54), outline=False
        )
    shift = float(rng.uniform(-10, 10))
    _hills(pen, 43, 3.4, shift, (226, 164, 86), (214, 148, 74))
    _hills(pen, 50, 3.0, shift + 18, (244, 194, 112), (224, 166, 86))


def _underwater(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, _FAR, (62, 190, 226), (10, 66, 138))
    shift = float(rng.uniform(-8, 8))
    for x in (8, 30, 52):
        x += shift
        ray = poly((x, -2), (x + 7, -2), (x - 3, 50), (x - 16, 50))
        pen.scenery(ray, (86, 194, 226), (26, 96, 164), outline=False)
    bubbles = [
        (float(rng.uniform(4, 60)), float(rng.uniform(4, 40)), float(rng.uniform(1, 2.2)))
        for _ in range(9)
    ]
    pen.scenery(discs(*bubbles), (190, 236, 250), outline=False)
    _hills(pen, 49, 2.2, shift, (226, 206, 150), (186, 162, 112))
    for x, height in ((5, 26), (11, 18), (53, 20), (59, 30)):
        x += 0.3 * shift
        stem = curve((x, 53), (x - 5, 53 - 0.25 * height), (x, 53 - 0.5 * height),
                     (x + 5, 53 - 0.75 * height), (x, 53 - height))  # fmt: skip
        pen.scenery(tube(stem, 3), (36, 150, 92))
    x = float(rng.choice([17, 46]))
    coral = [
        line((x, 53), (x, 43)),
        curve((x, 49), (x - 5, 48), (x - 5, 42)),
        curve((x, 47), (x + 5, 47), (x + 5, 40)),
    ]
    pen.scenery(union(*(tube(branch, 2.6) for branch in coral)), (246, 110, 128))


def _stage(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 48, (58, 22, 44), (84, 30, 54))
    x = float(rng.uniform(24, 40))
    pen.scenery(
        poly((x - 3, -2), (x + 3, -2), (52, 56), (12, 56)),
        (150, 92, 88),
        (120, 62, 70),
        outline=False,
    )
    _band(pen, 47, _FAR, (196, 132, 74), (150, 92, 50))
    pen.scenery(oval(9, 50.6, 55, 61.4), (248, 216, 150), outline=False)
    folds = float(rng.uniform(2.6, 3.4))
    for side in (0, 1):
        for i in range(3):
            x0, x1 = folds * i * 1.5 - 1, folds * (i + 1) * 1.5 + 0.6
            if side:
                x0, x1 = 64 - x1, 64 - x0
            pen.scenery(
                rect(x0, -2, x1, 53 - i, 1.4),
                (206 - 26 * (i % 2), 28, 40),
                (150 - 20 * (i % 2), 14, 28),
            )
    swags = [oval(10.8 * i - 1.4, -9, 10.8 * (i + 1) + 0.4, 9) for i in range(6)]
    for swag in swags:
        pen.scenery(swag, (218, 34, 44), (176, 18, 32))
    _band(pen, 0, 2.4, (246, 200, 84), (232, 176, 60))


def _meadow(pen: StylePen, rng: np.random.Generator) -> None:
    _band(pen, 0, 46, (86, 176, 246), (196, 232, 252))
    x = _side(rng)
    _cloud(pen, x, 11, 4.6)
    _cloud(pen, 64 - x, 18 + float(rng.uniform(-3, 3)), 3.4)
    shift = float(rng.uniform(-12, 12))
    _hills(pen, 40, 5.0, shift, (146, 206, 96), (120, 188, 80))
    _hills(pen, 46, 3.0, shift + 20, (112, 190, 74), (78, 154, 58))
    places = [(float(rng.uniform(1, 63)), 50.5 + 2.6 * (i % 5)) for i in range(14)]
    for k, rgb in enumerate(((255, 255, 255), (255, 120, 150), (255, 222, 70))):
        spots = [(at, y, 1.3) for at, y in places[k::3]]
        pen.scenery(discs(*spots), rgb, outline=False)


_PLACES: dict[str, Callable[[StylePen, np.random.Generator], None]] = {
    "plain": _plain,
    "beach": _beach,
    "moon": _moon,
    "forest": _forest,
    "room": _room,
    "snow": _snow,
    "city": _city,
    "desert": _desert,
    "underwater": _underwater,
    "stage": _stage,
    "meadow": _meadow,
}
