"""Shapes of the nouns that no training picture shows."""

from __future__ import annotations

import skia

from oneword.microworld.world.anchors import Shape
from oneword.microworld.world.paths import (
    curve,
    disc,
    discs,
    inside,
    line,
    oval,
    poly,
    rect,
    ring,
    tube,
    turned,
    union,
    without,
)
from oneword.microworld.world.pen import Pen


COAL = (40, 38, 44)


def _snowman(p: Pen, d: float) -> None:
    for side in (-1, 1):
        p.fixed(tube(line((9 * side, -24), (19 * side, -31)), 1.8), (112, 74, 46))
    p.body(disc(0, -11, 11.5))
    p.main(disc(0, -25, 8.6))
    p.main(disc(0, -37, 6.8))
    p.second(rect(-7.4, -33.5, 7.4, -29.5, 2))
    p.second(rect(2, -32, 6.4, -30 + 9 * d, 1.6))
    p.second(rect(-8, -44, 8, -41.5, 1))
    p.second(rect(-5, -42 - 8 * d, 5, -42, 1))
    p.detail(poly((-0.6, -38.6), (10, -36.6), (-0.6, -34.8), r=0.6))
    p.fixed(
        discs((-3, -39, 1.2), (3, -39, 1.2), (0, -26.5, 1.3), (0, -22, 1.3)), COAL, outline=False
    )


def _rocket(p: Pen, d: float) -> None:
    p.fixed(curve((-5, -7), (-4, -1), (0, 0), (4, -1), (5, -7), close=True), (255, 168, 40))
    for side in (-1, 1):
        p.second(
            curve((7 * side, -20), (17 * side * d, -16), (16 * side * d, -2), (12 * side, -7),
                  (7 * side, -8), close=True)
        )  # fmt: skip
    p.body(
        curve((-7, -6), (-14, -26), (-7, -38), (0, -38), (7, -38), (14, -26), (7, -6), close=True)
    )
    p.second(curve((-7.6, -36), (-4, -46), (0, -49), (4, -46), (7.6, -36), (0, -33.5), (-7.6, -36)))
    p.detail(disc(0, -26, 5))
    p.fixed(disc(0, -26, 3), (186, 226, 246), outline=False)


def _cactus(p: Pen, d: float) -> None:
    for side, low, high in ((-1, -18, -33), (1, -22, -38)):
        p.main(tube(curve((0, low + 2), (13 * side, low + 2), (13 * side, high)), 7))
    p.body(rect(-7, -44, 7, -6, 7))
    p.detail(union(*(turned(oval(-2.4, -52, 2.4, -45), 72 * i, 0, -45) for i in range(5))))
    w = 12 * d
    p.second(poly((-w, -10), (w, -10), (0.72 * w, 0), (-0.72 * w, 0), r=1))
    p.second(rect(-w - 1.5, -13, w + 1.5, -8.4, 1.4))


def _windmill(p: Pen, d: float) -> None:
    p.body(poly((-8, -30), (8, -30), (13, 0), (-13, 0), r=1))
    p.detail(curve((-9.5, -29), (-7, -38), (0, -38), (7, -38), (9.5, -29), close=True))
    p.detail(rect(-4, -10, 4, 0, 2))
    reach = 20 * d
    sails = [
        turned(
            union(rect(-0.8, -31 - reach, 0.8, -31), rect(0, -30 - reach, 6, -36, 1)),
            20 + 90 * i, 0, -31,
        )
        for i in range(4)
    ]  # fmt: skip
    p.second(union(*sails))
    p.fixed(disc(0, -31, 2.4), (90, 74, 64))


def _guitar(p: Pen, d: float) -> None:
    def lean(path: skia.Path) -> skia.Path:
        return turned(path, 24, 0, -14)

    p.second(lean(rect(-2.4, -34 - 12 * d, 2.4, -20, 0.6)))
    p.second(
        lean(
            poly((-4, -33 - 12 * d), (4, -33 - 12 * d), (3, -40 - 12 * d), (-3, -40 - 12 * d), r=1)
        )
    )
    p.body(lean(union(disc(0, -11, 12.5), disc(0, -24.5, 9.4), rect(-7, -24, 7, -14))))
    p.fixed(lean(disc(0, -21.5, 4)), (50, 34, 32))
    p.detail(lean(rect(-6, -9.4, 6, -5.6, 1.2)))
    p.fixed(lean(rect(-0.5, -40, 0.5, -8)), (240, 232, 214), outline=False)


def _dinosaur(p: Pen, d: float) -> None:
    for x, y, a in ((-14, -15, -50), (-6, -22, -22), (3, -24, 4), (11, -27, 30), (14, -36, 62)):
        p.second(turned(poly((x - 4, y + 4), (x, y - 6 * d), (x + 4, y + 4), r=0.8), a, x, y))
    p.body(
        curve(
            (-28, -3), (-20, -15), (-8, -21), (0, -26), (8, -24), (14, -26), (13, -37), (13, -45),
            (22, -45), (31, -45), (31, -37), (30, -33), (22, -33), (21, -30), (21, -22), (20, -8),
            (12, -7), (12, -4), (12, 0), (9, 0), (5, 0), (5, -3), (5, -7), (-3, -7), (-4, -3),
            (-4, 0), (-7, 0), (-11, 0), (-11, -3), (-11, -8), (-13, -9), (-20, -7), (-28, -3),
        )
    )  # fmt: skip
    if not p.badged:
        p.detail(
            curve(
                (2, -8), (4, -17), (13, -16), (18, -17), (19, -25), (22, -10), (12, -8.5),
                (6, -8.5), (2, -8),
            ),
            outline=False,
        )  # fmt: skip
    else:
        p.detail(oval(25, -40, 29, -36), outline=False)
    p.eyes((22, -40), r=1.9)


def _pineapple(p: Pen, d: float) -> None:
    for x, tilt in ((-4, -44), (4, 44), (-3, -22), (3, 22), (0, 0)):
        low, high = -30 - 6 * d, -29 - 20 * d
        leaf = curve((-4, -24), (-5, low), (0, high), (5, low), (4, -24))
        p.second(turned(leaf, tilt, x, -26))
    fruit = oval(-14, -31, 14, 0)
    p.body(fruit)
    for x, y in ((0, -25), (-7, -19.5), (7, -19.5), (0, -14), (-7, -8.5), (7, -8.5)):
        p.detail(poly((x, y - 2.8), (x + 2.8, y), (x, y + 2.8), (x - 2.8, y)), outline=False)


def _anchor(p: Pen, d: float) -> None:
    p.second(ring(0, -40, 5 * d, 3.2))
    p.body(
        union(
            rect(-2.8, -35, 2.8, -3, 1),
            tube(curve((-18, -15), (-14, -3), (0, -3), (14, -3), (18, -15)), 5.6),
            poly((-24, -13), (-19, -23), (-12, -13)),
            poly((24, -13), (19, -23), (12, -13)),
        )
    )
    p.detail(rect(-11, -32, 11, -27, 2.4))


def _lantern(p: Pen, d: float) -> None:
    p.second(ring(0, -42, 4.4 * d, 2))
    p.body(
        curve((-9, -31), (-18, -18), (-9, -6), (0, -6), (9, -6), (18, -18), (9, -31), close=True)
    )
    p.detail(curve((0, -25), (7, -17), (4, -12), (0, -8.6), (-4, -12), (-7, -17), (0, -25)))
    p.second(poly((-12, -30), (-6, -38), (6, -38), (12, -30), r=1.4))
    p.second(rect(-12 * d, -7, 12 * d, 0, 2))
    for side in (-1, 1):
        p.second(tube(curve((9.5 * side, -31), (17.5 * side, -18), (9.5 * side, -6)), 1.8))


def _octopus(p: Pen, d: float) -> None:
    for x, bend in ((-5, -15), (5, 15), (-10, -24), (10, 24)):
        tip = bend * (0.5 + 0.5 * d)
        p.second(tube(curve((x, -17), (0.7 * bend, 2), (tip, -4), (tip * 1.12, -7), (tip, -10)), 5))
    p.body(curve((-13, -17), (-19, -44), (0, -44), (19, -44), (13, -17), (0, -10), (-13, -17)))
    p.detail(discs((-8.5, -36.5, 2.2), (8.5, -36.5, 2.2), (0, -39, 2.5)), outline=False)
    p.eyes((-5.5, -26), (5.5, -26), r=2.8)
    p.fixed(tube(curve((-3, -19), (0, -16.6), (3, -19)), 1.2), (70, 30, 50), outline=False)


def _bicycle(p: Pen, d: float) -> None:
    r = 10 * (0.7 + 0.3 * d)
    for x in (-14, 14):
        p.second(ring(x, -r, r - 1.4, 2.8))
    frame = line((-14, -r), (-7, -23), (9, -23), (-1, -r), (-14, -r))
    p.body(
        union(
            tube(frame, 3.2),
            tube(line((-1, -r), (-8.4, -28)), 3.2),
            tube(line((14, -r), (8, -29)), 3.2),
        )
    )
    p.detail(rect(-14, -31, -3, -27.4, 1.8))
    p.detail(tube(line((13, -32), (7.4, -31), (8, -27)), 2.6))
    p.detail(disc(-1, -r, 3))


def _igloo(p: Pen, d: float) -> None:
    dome = curve((-23, 0), (-24, -34), (0, -34), (24, -34), (23, 0), close=True)
    p.body(dome)
    for low in (-9, -19):
        p.fixed(inside(rect(-23, low - 0.5, 23, low + 0.5), dome), (150, 168, 190), outline=False)
    blocks = [(-12, -19, -9), (8, -19, -9), (-1, -28, -19), (-18, -9, 0)]
    for x, top, low in blocks:
        p.fixed(rect(x - 0.5, top, x + 0.5, low), (150, 168, 190), outline=False)
    w = 9.5 * d
    arch = curve((4 - w, 0), (4 - w, -19), (4, -19), (4 + w, -19), (4 + w, 0), close=True)
    door = curve(
        (4 - 0.6 * w, 0),
        (4 - 0.6 * w, -13),
        (4, -13),
        (4 + 0.6 * w, -13),
        (4 + 0.6 * w, 0),
        close=True,
    )
    p.second(without(arch, door))
    p.detail(door)


HIDDEN_SHAPES: dict[str, Shape] = {
    "snowman": Shape(draw=_snowman, badge=(0, -10, 4.6)),
    "rocket": Shape(draw=_rocket, badge=(0, -14, 4.4)),
    "cactus": Shape(draw=_cactus, badge=(0, -28, 4.6)),
    "windmill": Shape(draw=_windmill, badge=(0, -18, 4.4)),
    "guitar": Shape(draw=_guitar, badge=(-4, -7, 4)),
    "dinosaur": Shape(draw=_dinosaur, badge=(-3, -14, 4.2)),
    "pineapple": Shape(draw=_pineapple, badge=(0, -14, 5)),
    "anchor": Shape(draw=_anchor, badge=(0, -18, 4.6)),
    "lantern": Shape(draw=_lantern, badge=(0, -24, 4)),
    "octopus": Shape(draw=_octopus, badge=(0, -34.5, 4.6)),
    "bicycle": Shape(draw=_bicycle, badge=(-1, -19, 4)),
    "igloo": Shape(draw=_igloo, badge=(-11, -13, 4.6)),
}
"""Of ``HIDDEN_NOUNS``."""
