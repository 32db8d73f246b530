"""Shapes of people: one figure, and a uniform for each profession."""

from __future__ import annotations

from oneword.microworld.world.anchors import Anchors, Shape
from oneword.microworld.world.paths import (
    curve,
    disc,
    discs,
    line,
    oval,
    poly,
    rect,
    ring,
    tube,
    union,
)
from oneword.microworld.world.pen import Pen
from oneword.microworld.world.styles import Rgb


COAT: Rgb = (250, 251, 253)
SCRUBS: Rgb = (44, 178, 172)
DENIM: Rgb = (58, 96, 168)
STRAW: Rgb = (240, 200, 104)
VEST: Rgb = (255, 122, 24)
HELMET: Rgb = (255, 208, 36)
JACKET: Rgb = (112, 66, 92)
STEEL: Rgb = (92, 98, 112)
_SLEEVES = tuple(
    tube(curve((9 * side, -23.5), (15 * side, -22), (15.5 * side, -13.5)), 6.4) for side in (-1, 1)
)
_TORSO = poly((-10.5, -27), (10.5, -27), (11, -10.5), (-11, -10.5), r=4)


def _behind(p: Pen, d: float) -> None:
    """Draw what is behind the trunk: long hair, legs and shoes."""
    if p.long_hair:
        w = 12.4 + 2.6 * d
        p.second(
            curve((0, -49), (w, -49), (w, -37), (w + 1, -24), (w - 1, -19), (0, -15), (1 - w, -19),
                  (-w - 1, -24), (-w, -37), (-w, -49), (0, -49))
        )  # fmt: skip


def _legs(p: Pen, rgb: Rgb | None = None) -> None:
    for side in (-1, 1):
        x0, x1 = sorted((0.4 * side, 9.4 * side))
        leg = rect(x0, -14, x1, -2, 1.6)
        if rgb is None:
            p.main(leg)
        else:
            p.fixed(leg, rgb)
        p.detail(rect(x0 - (side < 0) * 2, -4.4, x1 + (side > 0) * 2, 0, 2.2))


def _arms(p: Pen, rgb: Rgb | None = None, *, bare: bool = False) -> None:
    for side, sleeve in zip((-1, 1), _SLEEVES, strict=True):
        p.fixed(disc(15.5 * side, -11.5, 3.2), p.skin)
        if bare:
            p.fixed(sleeve, p.skin)
            sleeve = tube(curve((9 * side, -23.5), (12.5 * side, -23), (14 * side, -20)), 7)
        if rgb is None:
            p.main(sleeve)
        else:
            p.fixed(sleeve, rgb)


def _head(p: Pen, d: float) -> None:
    p.fixed(rect(-3.4, -30, 3.4, -24.4, 2), p.skin)
    p.fixed(
        union(oval(-10.8, -47, 10.8, -26.5), discs((-10.6, -36, 2.4), (10.6, -36, 2.4))), p.skin
    )
    p.fixed(discs((-4.4, -35.5, 1.7), (4.4, -35.5, 1.7)), (30, 24, 30), outline=False)
    p.fixed(discs((-4.9, -36.1, 0.6), (3.9, -36.1, 0.6)), (255, 255, 255), outline=False)
    p.fixed(tube(curve((-3, -31.4), (0, -29), (3, -31.4)), 1.1), (182, 60, 64), outline=False)
    low = 3 * (d - 1)
    if p.long_hair:
        for side in (-1, 1):
            p.second(
                curve((9 * side, -43), (15 * side, -40), (13.6 * side, -24), (11 * side, -22),
                      (9.6 * side, -26), (10 * side, -36), (7 * side, -41), close=True)
            )  # fmt: skip
    p.second(
        curve((-11.4, -36 + low), (-14, -49.5 - low), (0, -49.5 - low), (14, -49.5 - low),
              (11.4, -36 + low), (10, -40), (5, -42), (-1, -39.6), (-6, -41.6), (-9.6, -40),
              (-11.4, -36 + low))
    )  # fmt: skip


def _doctor(p: Pen, d: float) -> None:
    _behind(p, d)
    _legs(p)
    p.body(_TORSO)
    for side in (-1, 1):
        p.fixed(
            poly((3.2 * side, -26.6), (11.4 * side, -27), (12.6 * side, -6), (2.6 * side, -6),
                 (2.6 * side, -16), r=1.6),
            COAT,
        )  # fmt: skip
    _arms(p, COAT)
    _head(p, d)
    p.fixed(tube(curve((-5.6, -26), (-7, -17), (0, -17), (6, -17), (5.6, -26)), 1.5), STEEL)
    p.fixed(tube(line((0, -17), (0, -14)), 1.5), STEEL, outline=False)
    p.detail(disc(0, -12.6, 2.9))


def _nurse(p: Pen, d: float) -> None:
    _behind(p, d)
    _legs(p)
    _arms(p, SCRUBS, bare=True)
    p.fixed(poly((-11, -27), (11, -27), (12, -9), (-12, -9), r=3), SCRUBS)
    p.detail(rect(2, -18.5, 8.6, -12.5, 1.2))
    _head(p, d)
    p.body(poly((-5, -26.8), (5, -26.8), (0, -20.4)))
    if not p.bareheaded:
        p.fixed(
            curve((-9.6, -42), (-13, -54), (0, -54), (13, -54), (9.6, -42), (0, -45), (-9.6, -42)),
            COAT,
        )
        cross = union(rect(-1.2, -51.8, 1.2, -45.6), rect(-3.1, -49.9, 3.1, -47.5))
        p.fixed(cross, (222, 36, 44), outline=False)


def _baker(p: Pen, d: float) -> None:
    _behind(p, d)
    _legs(p)
    p.body(_TORSO)
    _arms(p)
    p.fixed(union(rect(-7, -24, 7, -12, 1.5), rect(-10.6, -16, 10.6, -4.4, 2.4)), COAT)
    p.fixed(rect(-4.6, -13, 4.6, -8, 1.2), (232, 236, 242))
    _head(p, d)
    p.detail(poly((-5.4, -26.8), (5.4, -26.8), (0, -21), r=1))
    if not p.bareheaded:
        puff = union(
            disc(-7.4, -54, 5.8),
            disc(7.4, -54, 5.8),
            disc(0, -56.4, 6.6),
            rect(-8.8, -54, 8.8, -43),
        )
        p.fixed(puff, COAT)
        p.fixed(rect(-9.4, -46.6, 9.4, -41.8, 1.4), (228, 232, 240))


def _farmer(p: Pen, d: float) -> None:
    p.fixed(tube(line((19, -34), (19, -1)), 1.8), (150, 100, 58))
    p.fixed(union(*(tube(line((19 + x, -41), (19 + x, -34)), 1.6) for x in (-3.4, 0, 3.4)),
                  tube(line((15.6, -34), (22.4, -34)), 1.6)), STEEL)  # fmt: skip
    _behind(p, d)
    _legs(p, DENIM)
    p.body(_TORSO)
    _arms(p)
    bib = union(rect(-6.6, -21, 6.6, -10, 1.5), rect(-10.8, -15, 10.8, -9, 1.5))
    straps = [tube(line((5.4 * side, -20), (6.8 * side, -26)), 2.8) for side in (-1, 1)]
    p.fixed(union(bib, *straps), DENIM)
    p.detail(discs((-5, -19, 1.5), (5, -19, 1.5)), outline=False)
    _head(p, d)
    if not p.bareheaded:
        p.fixed(curve((-9, -43), (-9, -56), (0, -55), (9, -56), (9, -43), close=True), STRAW)
        p.detail(rect(-9, -46.6, 9, -43, 0.8))
        p.fixed(oval(-18, -45.6, 18, -40), STRAW)


def _builder(p: Pen, d: float) -> None:
    _behind(p, d)
    _legs(p)
    p.body(_TORSO)
    _arms(p)
    for side in (-1, 1):
        p.fixed(
            poly(
                (3 * side, -27),
                (9.6 * side, -27),
                (11.6 * side, -10),
                (1 * side, -10),
                (1 * side, -19),
                r=1,
            ),
            VEST,
        )
        x0, x1 = sorted((1.2 * side, 11 * side))
        p.fixed(rect(x0, -16.6, x1, -13.6), (244, 244, 150), outline=False)
    p.fixed(tube(line((-17, -21), (-17, -7)), 2), (158, 108, 62))
    p.fixed(rect(-21.6, -25, -12.4, -20, 1.2), STEEL)
    p.fixed(disc(-16, -11.5, 3.2), p.skin)
    _head(p, d)
    if not p.bareheaded:
        p.fixed(
            curve((-11.6, -42), (-12, -55), (0, -55), (12, -55), (11.6, -42), close=True), HELMET
        )
        p.fixed(rect(-2.2, -54.4, 2.2, -42, 1.4), (236, 178, 20), outline=False)
        p.fixed(rect(-14, -44, 14, -40.6, 1.6), HELMET)


def _teacher(p: Pen, d: float) -> None:
    _behind(p, d)
    _legs(p)
    p.body(_TORSO)
    for side in (-1, 1):
        p.fixed(
            poly(
                (5 * side, -27),
                (11 * side, -27),
                (11.6 * side, -9),
                (1.6 * side, -9),
                (1.6 * side, -15),
                r=1.4,
            ),
            JACKET,
        )
    _arms(p, JACKET)
    _head(p, d)
    lenses = union(
        ring(-4.6, -35.5, 3.6, 1.4), ring(4.6, -35.5, 3.6, 1.4), rect(-1.4, -36.2, 1.4, -34.8)
    )
    p.fixed(lenses, (34, 32, 44), outline=False)
    p.detail(rect(8.4, -21.5, 20, -7.5, 1.2))
    p.fixed(rect(18.2, -20, 20, -9), COAT, outline=False)
    p.fixed(disc(11.4, -11.4, 3), p.skin)


_WEARS = Anchors(head=(0, -42.6, 25))
PEOPLE: dict[str, Shape] = {
    name: Shape(draw=draw, wears=_WEARS)
    for name, draw in (
        ("doctor", _doctor),
        ("nurse", _nurse),
        ("baker", _baker),
        ("farmer", _farmer),
        ("builder", _builder),
        ("teacher", _teacher),
    )
}
"""Of ``PROFESSIONS``."""
