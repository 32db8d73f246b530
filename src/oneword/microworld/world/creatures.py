"""Shapes of animals and of the robot: each stands on y = 0 and reaches up to about y = -40."""

from __future__ import annotations

from oneword.microworld.world.anchors import Anchors, Shape
from oneword.microworld.world.paths import curve, disc, discs, line, oval, poly, rect, tube, turned
from oneword.microworld.world.pen import Pen


BEAK = (246, 150, 40)


def _cat(p: Pen, d: float) -> None:
    p.second(tube(curve((9, -4), (23, -3), (19, -13), (16, -20), (21, -19 - 5 * d)), 4.8))
    p.body(curve((-13, 0), (-13, -24), (0, -26), (13, -24), (13, 0), close=True))
    if not p.badged:
        p.detail(oval(-6, -17, 6, -1), outline=False)
    p.main(rect(-11, -5, -2, 0, 2.5))
    p.main(rect(2, -5, 11, 0, 2.5))
    for side in (-1, 1):
        p.second(
            poly((3 * side, -36), (12.5 * side, -39 - 9 * d), (15.5 * side, -29), r=3),
        )
    p.main(oval(-16, -42, 16, -18))
    p.detail(oval(-6.5, -28.5, 6.5, -19.5), outline=False)
    p.eyes((-8, -31), (8, -31), r=2.5)
    p.fixed(poly((-2.4, -27.4), (2.4, -27.4), (0, -24.6), r=0.8), (214, 92, 116), outline=False)


def _dog(p: Pen, d: float) -> None:
    p.second(tube(curve((-15, -19), (-24, -20), (-22, -30)), 4.4))
    for x in (-16, 5):
        p.main(rect(x, -12, x + 6, 0, 2.5))
    p.body(rect(-18, -25, 13, -8, 8))
    for x in (-11, 9):
        p.main(rect(x - 1, -13, x + 5, 0, 2.5))
    p.main(poly((4, -20), (5, -34), (17, -34), (17, -18), r=5))
    p.main(oval(3, -43, 22, -24))
    p.detail(oval(12, -34, 29, -23.5))
    p.fixed(oval(23.5, -35, 30, -29.5), (36, 30, 34), outline=False)
    p.eyes((12, -36.5), (19, -36.5), r=2)
    p.second(curve((8, -42), (-4, -43), (-2, -33), (-1, -22 - 4 * d), (6, -26), (9, -30), (8, -42)))


def _bird(p: Pen, d: float) -> None:
    for x in (-2, 6):
        p.fixed(tube(line((x, -7), (x, -1), (x - 3.5, -0.8)), 1.7), BEAK, outline=False)
    p.second(poly((10, -22), (19 + 8 * d, -30), (19 + 9 * d, -20), (12, -11), r=2))
    p.detail(poly((-19, -35), (-30, -30), (-19, -27), r=1))
    p.body(
        curve(
            (-20, -31), (-20, -42), (-10, -42), (0, -42), (2, -31), (4, -25), (18, -22),
            (18, -4), (0, -4), (-20, -4), (-20, -31), close=True,
        )
    )  # fmt: skip
    w = 9 * d
    p.second(curve((-5, -22), (4, -24), (8 + w, -19), (5 + w, -9), (2, -9), (-6, -10), (-5, -22)))
    p.eyes((-12, -33.5), r=2.5)


def _fish(p: Pen, d: float) -> None:
    x = 11 + 13 * d
    p.second(curve((9, -16), (14, -28), (x, -29), (x - 6, -16), (x, -3), (14, -4), (9, -16)))
    p.detail(curve((-10, -26), (-2, -39), (8, -34), (6, -28), (8, -23), close=True))
    p.body(
        curve(
            (-25, -15),
            (-15, -31),
            (0, -30),
            (12, -28),
            (15, -16),
            (12, -2),
            (0, -2),
            (-16, -1),
            (-25, -15),
        )
    )
    p.detail(curve((-3, -12), (9, -16), (8, -6), (2, -4), (-3, -12)))
    p.eyes((-14, -19), r=2.7)
    p.fixed(tube(curve((-22, -12), (-18, -9), (-14, -11)), 1.1), (90, 50, 60), outline=False)


def _rabbit(p: Pen, d: float) -> None:
    for side in (-1, 1):
        x, top = 6 * side, -29 - 20 * d
        p.second(turned(oval(x - 4.4, top, x + 4.4, -26), 8 * side, x, -28))
        p.fixed(
            turned(oval(x - 2, top + 4, x + 2, -30), 8 * side, x, -28),
            (250, 178, 190),
            outline=False,
        )
    p.detail(disc(13, -5, 4.6))
    p.body(oval(-13.5, -23, 13.5, 0))
    if not p.badged:
        p.detail(oval(-7, -15, 7, -1.5), outline=False)
    p.main(oval(-13, -5.5, -1, 0))
    p.main(oval(1, -5.5, 13, 0))
    p.main(oval(-13, -36, 13, -14))
    p.eyes((-6, -26), (6, -26), r=2.2)
    p.fixed(oval(-1.8, -23, 1.8, -20.5), (224, 98, 126), outline=False)
    p.fixed(rect(-1.8, -19.4, 1.8, -15.6, 0.6), (255, 255, 255))


def _turtle(p: Pen, d: float) -> None:
    p.second(poly((-18, -8), (-18 - 7 * d, -2), (-16, -3), r=1))
    p.second(rect(-16, -9, -7, 0, 3))
    p.second(rect(6, -9, 15, 0, 3))
    p.second(tube(curve((14, -8), (21, -9), (22, -20)), 7))
    p.second(disc(23, -23, 5.4 + 1.6 * d))
    p.eyes((24, -24.5), r=1.9)
    p.body(curve((-20, -8), (-20, -33), (0, -33), (20, -33), (20, -8), (0, -4), (-20, -8)))
    p.detail(rect(-22, -11, 21, -6, 2.5))


def _robot(p: Pen, d: float) -> None:
    for x in (-9.5, 2.5):
        p.detail(rect(x, -9, x + 7, 0, 2))
    for side in (-1, 1):
        arm = sorted((13.6 * side, 20.5 * side))
        p.second(rect(arm[0], -26, arm[1], -26 + 15 * d, 3))
    p.body(rect(-14, -28, 14, -7, 3.5))
    p.detail(tube(line((0, -40), (0, -46)), 2.2))
    p.detail(disc(0, -47, 2.6))
    p.second(rect(-12, -43, 12, -28.5, 4))
    p.fixed(rect(-9.5, -40, 9.5, -32, 3.4), (40, 46, 60))
    p.fixed(discs((-4.6, -36, 2.3), (4.6, -36, 2.3)), (130, 240, 250), outline=False)


CREATURE_SHAPES: dict[str, Shape] = {
    "cat": Shape(
        draw=_cat,
        badge=(0, -9, 5),
        wears=Anchors(
            head=(0, -38, 24),
            neck=(0, -19.5, 19),
            eyes=((-8, -31), (8, -31)),
            hem=((-22, -2), (22, -2)),
        ),
    ),
    "dog": Shape(
        draw=_dog,
        badge=(-5, -17, 5),
        wears=Anchors(
            head=(13, -40, 17),
            neck=(10, -22.5, 13),
            eyes=((11.5, -36.5), (20, -36.5)),
            hem=((-27, -12), (-8, -34)),
        ),
    ),
    "bird": Shape(
        draw=_bird,
        badge=(-9, -13, 4.6),
        wears=Anchors(
            head=(-9, -39, 17),
            neck=(-8.5, -24.5, 21),
            eyes=((-16, -33.5), (-7, -33.5)),
            hem=((16, -3), (27, -33)),
        ),
    ),
    "fish": Shape(draw=_fish, badge=(0, -21.5, 4.4)),
    "rabbit": Shape(
        draw=_rabbit,
        badge=(0, -8, 4.8),
        wears=Anchors(
            head=(0, -33, 20),
            neck=(0, -15, 18),
            eyes=((-6, -26), (6, -26)),
            hem=((-21, -1), (21, -1)),
        ),
    ),
    "turtle": Shape(
        draw=_turtle,
        badge=(-1, -19, 5.2),
        top=-32,
        wears=Anchors(
            head=(23, -28, 12),
            neck=(20.5, -14, 9.5),
            eyes=((20.5, -24.5), (27, -24.5)),
            hem=((-25, -24), (-20, -39)),
        ),
    ),
    "robot": Shape(
        draw=_robot,
        badge=(0, -17.5, 5.6),
        wears=Anchors(
            head=(0, -41, 21),
            neck=(0, -28, 15),
            eyes=((-4.8, -36), (4.8, -36)),
            hem=((-24, -3), (24, -3)),
        ),
    ),
}
