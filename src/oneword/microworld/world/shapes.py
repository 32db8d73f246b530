"""Shapes of things: each stands on y = 0 and reaches up to about y = -40."""

from __future__ import annotations

from oneword.microworld.world.anchors import Shape
from oneword.microworld.world.creatures import CREATURE_SHAPES
from oneword.microworld.world.hidden import HIDDEN_SHAPES
from oneword.microworld.world.paths import (
    curve,
    disc,
    discs,
    inside,
    line,
    oval,
    poly,
    rect,
    tube,
    turned,
    union,
)
from oneword.microworld.world.pen import Pen
from oneword.microworld.world.people import PEOPLE


GLASS = (186, 226, 246)
TYRE = (44, 44, 50)
LEAF = (70, 158, 66)


def _wheels(p: Pen, *xs: float, r: float = 6.2) -> None:
    for x in xs:
        p.fixed(disc(x, -r, r), TYRE)
        p.detail(disc(x, -r, 0.5 * r), outline=False)


def _car(p: Pen, d: float) -> None:
    top = -19 - 12 * d
    p.second(poly((-17, -17), (-11, top), (8, top), (17, -17), r=2.5))
    p.fixed(poly((-12.5, -18.5), (-8.5, top + 3), (-2, top + 3), (-2, -18.5)), GLASS, outline=False)
    p.fixed(poly((1, -18.5), (1, top + 3), (6.5, top + 3), (12, -18.5)), GLASS, outline=False)
    p.body(
        curve(
            (-24, -5), (-26, -19), (-20, -19), (0, -19), (14, -19), (26, -18), (25, -5), close=True
        )
    )
    p.fixed(disc(22, -13, 2.1), (255, 242, 170))
    _wheels(p, -13, 13.5)


def _boat(p: Pen, d: float) -> None:
    p.fixed(rect(-1.2, -44, 1.2, -10), (124, 82, 48))
    p.second(
        curve((0.8, -42), (16 * d, -32), (0.8 + 19 * d, -16), (10, -17), (0.8, -16), close=True)
    )
    p.detail(curve((-0.8, -38), (-12, -28), (-16, -16), (-8, -17), (-0.8, -16), close=True))
    p.body(
        curve(
            (-24, -13),
            (0, -11),
            (24, -13),
            (21, 0),
            (12, 0),
            (0, 0),
            (-12, 0),
            (-21, 0),
            (-24, -13),
        )
    )


def _bus(p: Pen, d: float) -> None:
    p.body(rect(-23, -31, 23, -5, 4))
    p.second(rect(-23, -33, 23, -33 + 6.5 * d, 3))
    for x in (-20, -9.5, 1):
        p.fixed(rect(x, -25, x + 8.5, -17, 1.2), GLASS)
    p.fixed(rect(13, -25, 23, -15, 1.5), GLASS)
    p.fixed(disc(21.2, -9.5, 1.8), (255, 242, 170))
    _wheels(p, -13, 12, r=5.6)


def _plane(p: Pen, d: float) -> None:
    _wheels(p, -6, 9, r=3)
    p.second(poly((-20.5, -19), (-23 - 4 * d, -21 - 12 * d), (-16, -21 - 12 * d), (-9, -18), r=2))
    p.body(
        curve(
            (-25, -20), (-14, -23), (4, -23), (24, -23), (24, -13), (22, -4), (2, -4), (-16, -5),
            (-25, -20),
        )
    )  # fmt: skip
    p.fixed(
        curve((14, -20), (21, -20), (22.5, -14), (18, -13), (13, -14), close=True),
        GLASS,
        outline=False,
    )
    p.fixed(discs((-2, -16, 2), (4, -16, 2), (10, -16, 2)), GLASS, outline=False)
    p.second(poly((-5, -11), (6, -11), (-4 - 6 * d, -2), (-9 - 6 * d, -2), r=2))
    p.fixed(oval(24.4, -25, 26.4, -2), (206, 210, 216))
    p.detail(disc(25, -13.5, 3))


def _mug(p: Pen, d: float) -> None:
    p.second(
        tube(
            curve((11, -26), (11 + 15 * d, -28), (11 + 13 * d, -16), (11 + 10 * d, -6), (11, -8)),
            4.8,
        )
    )
    p.body(
        curve((-17, -34), (-17, -2), (-10, 0), (-3, 0.6), (4, 0), (11, -2), (11, -34), close=True)
    )
    p.detail(oval(-17, -38, 11, -30))
    p.fixed(oval(-13.5, -36, 7.5, -30.8), (116, 70, 44), outline=False)


def _teapot(p: Pen, d: float) -> None:
    p.second(poly((-10, -7), (-20, -14), (-21 - 4 * d, -28), (-17 - 3 * d, -29), (-13, -21), r=2))
    p.second(
        tube(
            curve((12, -24), (14 + 12 * d, -27), (13 + 11 * d, -15), (12 + 9 * d, -6), (12, -7)), 4
        )
    )
    p.body(curve((-17, -14), (-17, -28), (0, -28), (17, -28), (17, -14), (16, -2), (9, 0), (0, 0.4),
                 (-9, 0), (-16, -2), (-17, -14)))  # fmt: skip
    p.detail(curve((-11, -26), (-8, -33), (0, -33), (8, -33), (11, -26), (0, -23.5), (-11, -26)))
    p.detail(disc(0, -35, 3.4))


def _vase(p: Pen, d: float) -> None:
    p.second(tube(curve((-10, -28), (-11 - 11 * d, -30), (-15, -17)), 3.4))
    p.second(tube(curve((10, -28), (11 + 11 * d, -30), (15, -17)), 3.4))
    p.body(curve((-15, -39), (-6, -32), (-11, -27), (-19, -19), (-16, -10), (-13, -3), (-9, 0),
                 (0, 1), (9, 0), (13, -3), (16, -10), (19, -19), (11, -27), (6, -32), (15, -39),
                 close=True))  # fmt: skip
    p.detail(oval(-15.5, -43, 15.5, -35.6))
    p.fixed(oval(-11.6, -41.4, 11.6, -37), (64, 52, 60), outline=False)


def _bowl(p: Pen, d: float) -> None:
    p.second(poly((-9 * d, -5), (9 * d, -5), (11 * d, 0), (-11 * d, 0), r=1))
    p.body(
        curve((-23, -24), (-22, -3), (-6, -3), (0, -2.6), (6, -3), (22, -3), (23, -24), close=True)
    )
    p.detail(oval(-23.5, -29, 23.5, -19))
    p.fixed(oval(-19.5, -27, 19.5, -20), (70, 58, 66), outline=False)


def _basket(p: Pen, d: float) -> None:
    p.second(
        tube(
            curve(
                (-17, -19), (-18, -24 - 18 * d), (0, -24 - 18 * d), (18, -24 - 18 * d), (17, -19)
            ),
            3.6,
        )
    )
    p.body(poly((-20, -19), (20, -19), (15, 0), (-15, 0), r=4))
    p.fixed(oval(-20, -25, 20, -16.5), (84, 60, 44))
    rim = curve((-20, -21), (-18, -15.6), (0, -15.6), (18, -15.6), (20, -21))
    p.detail(tube(rim, 3.4))
    p.detail(inside(rect(-18, -5, 18, -2), poly((-20, -19), (20, -19), (15, 0), (-15, 0))))


def _chair(p: Pen, d: float) -> None:
    for x in (-15.5, 15.5):
        half = 2.2 * d
        p.second(rect(x - half, -16, x + half, 0, 1.2))
    p.body(
        curve(
            (-16, -18), (-20, -45), (-14, -45), (0, -49), (14, -45), (20, -45), (16, -18),
            close=True,
        )
    )  # fmt: skip
    p.second(rect(-19.5, -17, 19.5, -17 + 4.4 * d, 2))
    p.detail(rect(-17, -21.6, 17, -15.6, 2.8))


def _lamp(p: Pen, d: float) -> None:
    p.second(tube(line((0, -22), (0, -4)), 4.4 * d))
    p.second(curve((-5, -5), (-7, -10), (0, -15), (7, -10), (5, -5), close=True))
    p.second(rect(-11 * d, -5, 11 * d, 0, 2.4))
    p.detail(disc(0, -20.5, 4))
    p.body(poly((-10, -44), (10, -44), (19, -21), (-19, -21), r=2.4))
    p.detail(rect(-11, -46, 11, -42.4, 1.6))


def _tree(p: Pen, d: float) -> None:
    p.detail(curve((-4, -20), (-3, -6), (-8, 0), (0, -1.6), (8, 0), (3, -6), (4, -20), close=True))
    p.body(
        union(disc(-11, -23, 9.5), disc(11, -23, 9.5), disc(-6, -33, 9.5), disc(7, -33, 9.5),
              disc(0, -38, 8), disc(0, -25, 11))
    )  # fmt: skip
    for x, y in ((-12, -23), (0, -20.5), (12, -24), (-5, -32.5), (6.5, -34)):
        p.second(disc(x, y, 3 * d))


def _flower(p: Pen, d: float) -> None:
    p.fixed(tube(curve((0, -26), (2, -12), (0, -1)), 3), LEAF)
    p.fixed(curve((0, -4), (4, -15), (16, -15), (13, -4), (0, -4)), LEAF)
    p.fixed(curve((0, -2), (-4, -12), (-15, -11), (-12, -2), (0, -2)), LEAF)
    petals = [turned(oval(-6.6, -46, 6.6, -29), 72 * i, 0, -28) for i in range(5)]
    p.body(union(*petals))
    p.second(disc(0, -28, 7.4 * d))
    p.detail(disc(0, -28, 4))


def _mushroom(p: Pen, d: float) -> None:
    p.second(
        curve(
            (-6 * d, -20),
            (-5 * d, -8),
            (-9 * d, -2),
            (-9 * d, 0),
            (0, 0.4),
            (9 * d, 0),
            (9 * d, -2),
            (5 * d, -8),
            (6 * d, -20),
            close=True,
        ),
        same=(240, 226, 200),
    )
    p.detail(curve((-13, -18), (0, -22), (13, -18), (9, -12), (0, -12.6), (-9, -12), (-13, -18)))
    p.body(curve((-23, -19), (-22, -42), (0, -42), (22, -42), (23, -19), (0, -14.5), (-23, -19)))
    if p.pattern == "plain" and not p.badged:
        for x, y, r in ((-12.5, -25, 3.6), (1, -34.5, 3.9), (12, -24.5, 3.8), (0, -22.5, 2.8)):
            p.detail(disc(x, y, r), outline=False)


def _ball(p: Pen, d: float) -> None:
    whole = disc(0, -19, 19)
    p.body(whole)
    w = 7 * d
    p.second(inside(turned(oval(-w, -39, w, 1), 24, 0, -19), whole))
    p.detail(turned(disc(0, -33, 4.4), 24, 0, -19))


def _drum(p: Pen, d: float) -> None:
    p.body(curve((-20, -27), (-20, -6), (-20, -5), (-20, 0), (0, 0), (20, 0), (20, -5), (20, -6),
                 (20, -27), close=True))  # fmt: skip
    w = 5 * d
    p.second(tube(curve((-19, -5.5), (-18, -2), (0, -2), (18, -2), (19, -5.5)), w))
    p.second(oval(-21, -32 - w / 2, 21, -20 + w / 2))
    p.detail(oval(-18, -32, 18, -22))
    for side in (-1, 1):
        p.fixed(tube(line((4 * side, -28), (17 * side, -40)), 2), (214, 160, 92))
        p.fixed(disc(4 * side, -28, 2.2), (214, 160, 92))


def _house(p: Pen, d: float) -> None:
    p.detail(rect(7, -48, 14, -28, 1))
    p.body(rect(-18, -24, 18, 0, 1))
    p.second(poly((-23, -22), (-13, -26 - 16 * d), (13, -26 - 16 * d), (23, -22), r=2))
    p.detail(curve((-5, 0), (-5, -12), (-5, -12), (-5, -17), (0, -17), (5, -17), (5, -12), (5, -6),
                   (5, 0), close=True))  # fmt: skip
    for x in (-15, 8.5):
        p.fixed(rect(x, -17, x + 6.5, -9.5, 0.8), (255, 238, 160))


def _castle(p: Pen, d: float) -> None:
    for x in (-17, 17):
        p.fixed(rect(x - 0.7, -52, x + 0.7, -40), (110, 90, 76))
        p.detail(poly((x + 0.7, -52), (x + 9, -49), (x + 0.7, -46)))
    merlons = [rect(x - 2, -27, x + 2, -20) for x in (-8, 0, 8)]
    p.body(union(rect(-11, -23, 11, 0), *merlons, rect(-23, -31, -11, 0), rect(11, -31, 23, 0)))
    for x in (-17, 17):
        p.second(poly((x - 8, -29.5), (x, -31 - 13 * d), (x + 8, -29.5), r=1))
        p.fixed(rect(x - 1.8, -25, x + 1.8, -18, 1.8), (56, 46, 60), outline=False)
    p.detail(curve((-5.5, 0), (-5.5, -8), (-5.5, -8), (-5.5, -14), (0, -14), (5.5, -14), (5.5, -8),
                   (5.5, -4), (5.5, 0), close=True))  # fmt: skip


def _hat(p: Pen, d: float) -> None:
    p.second(
        curve(
            (-17 - 7 * d, -6),
            (-18, 1),
            (0, 1),
            (18, 1),
            (17 + 7 * d, -6),
            (0, -10),
            (-17 - 7 * d, -6),
        )
    )
    p.body(curve((-15, -5), (-15, -31), (-8, -31), (0, -27.5), (8, -31), (15, -31), (15, -5),
                 (0, -1.5), (-15, -5)))  # fmt: skip
    p.detail(curve((-15, -5.5), (-15.2, -9), (-14.8, -12), (0, -8.4), (14.8, -12), (15.2, -9),
                   (15, -5.5), (0, -1.5), (-15, -5.5)))  # fmt: skip


def _shoe(p: Pen, d: float) -> None:
    p.body(curve((-20, -4), (-21, -20), (-17, -27), (-14, -23), (-7, -25), (-2, -23), (0, -19),
                 (5, -14), (14, -13), (23, -11), (23, -4), close=True))  # fmt: skip
    p.detail(curve((23, -4), (23, -11.5), (14, -13), (10, -10), (10, -4), close=True))
    for x, y in ((-4.5, -21.5), (-0.5, -17.6), (4, -14.6)):
        p.detail(tube(line((x - 4, y + 4.6), (x + 1.2, y)), 2.2), outline=False)
    p.second(rect(-21.5, -5.5 * d, 24, 0, 2.4))


SHAPES: dict[str, Shape] = {
    **CREATURE_SHAPES,
    **PEOPLE,
    **HIDDEN_SHAPES,
    "car": Shape(draw=_car, badge=(0, -12, 4.6), top=-31),
    "boat": Shape(draw=_boat, badge=(0, -6.2, 4.4), mouth=(0, -12.5, 38, 0.8)),
    "bus": Shape(draw=_bus, badge=(0, -10.8, 4.6), top=-33),
    "plane": Shape(draw=_plane, badge=(-10, -15, 4.6)),
    "mug": Shape(draw=_mug, badge=(-3, -16, 5.6), mouth=(-3, -34, 27, 3.6)),
    "teapot": Shape(draw=_teapot, badge=(0, -13, 5.6), top=-37.5),
    "vase": Shape(draw=_vase, badge=(0, -14, 5.6), mouth=(0, -39.2, 30, 3.2)),
    "bowl": Shape(draw=_bowl, badge=(0, -11.5, 5), mouth=(0, -24, 45, 4.4)),
    "basket": Shape(draw=_basket, badge=(0, -9.5, 4.8), mouth=(0, -20.5, 38, 4)),
    "chair": Shape(draw=_chair, badge=(0, -34, 5.6), top=-20),
    "lamp": Shape(draw=_lamp, badge=(0, -31.5, 5.4)),
    "tree": Shape(draw=_tree, badge=(0, -27.5, 5)),
    "flower": Shape(draw=_flower, badge=(0, -40, 4)),
    "mushroom": Shape(draw=_mushroom, badge=(0, -27, 5.2)),
    "ball": Shape(draw=_ball, badge=(9, -15, 5)),
    "drum": Shape(draw=_drum, badge=(0, -11.5, 5.2), top=-29),
    "house": Shape(draw=_house, badge=(0, -31, 5), top=-42),
    "castle": Shape(draw=_castle, badge=(0, -19, 4.4), top=-26),
    "hat": Shape(draw=_hat, badge=(0, -19, 5.2), top=-28.5),
    "shoe": Shape(draw=_shoe, badge=(-11.5, -13.5, 4.8)),
}
"""Of every noun and profession."""
