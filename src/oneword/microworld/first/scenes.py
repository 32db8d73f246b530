"""The world of the embedded model: what there is, and how it is drawn.

A picture is a pure function of a :class:`Scene`, and a scene of a seed. Shapes are few and bold, so
that a small model can learn them; many things have colours that their caption does not name, so
that the model can draw what words cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import skia


NOUNS = (
    "mug", "teapot", "cat", "bird", "car", "house", "tree",
    "ball", "robot", "boat", "hat", "fish", "mushroom", "chair",
)  # fmt: skip
COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
PATTERNS = ("plain", "striped", "dotted", "checkered")
SCENES = ("plain", "beach", "moon", "forest", "room", "snow", "city")
STYLES = ("photo", "watercolor", "poster", "sketch", "pixel art", "oil painting")
HIDDEN_NOUNS = ("snowman", "rocket", "cactus")
"""Shapes that no training picture shows and no caption names."""
HIDDEN_STYLES = ("neon",)

RGB = {
    "red": (214, 40, 40), "orange": (245, 130, 32), "yellow": (250, 208, 44),
    "green": (46, 150, 66), "blue": (38, 92, 210), "purple": (128, 54, 172),
    "pink": (246, 140, 180), "brown": (126, 78, 42), "black": (38, 38, 44),
    "white": (240, 240, 240), "grey": (130, 134, 142),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One object; every length is a fraction of its usual size."""

    noun: str
    colours: tuple[str, str, str]
    """Main body, second part, small detail."""
    pattern: str = "plain"
    x: float = 0.5
    """Centre, fraction of the picture's width."""
    scale: float = 1.0
    aspect: float = 1.0
    """Width over usual width."""
    detail: float = 1.0
    """Size of the second part over its usual size; no caption names it."""
    flipped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Everything that a picture shows."""

    things: tuple[Thing, ...]
    """One or two, from left to right."""
    place: str = "plain"
    style: str = "photo"
    light: float = 1.0
    """Brightness; below 0.8 a dark picture, above 1.1 a bright one."""
    seed: int = 0
    """Decides the rest of the background."""


def sample_scene(
    seed: int,
    *,
    nouns: Sequence[str] = NOUNS,
    styles: Sequence[str] = STYLES,
    num_things: int | None = None,
) -> Scene:
    """The scene of a seed: half photos, a quarter with two things, a third with unnamed colours."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 11)))
    count = num_things or (2 if rng.random() < 0.22 else 1)
    chosen = rng.choice(len(nouns), count, replace=len(nouns) < count)
    things = []
    for i, noun in enumerate(chosen):
        x = 0.5 if count == 1 else (0.27, 0.73)[i]
        things.append(
            _sample_thing(rng, nouns[int(noun)], x, 1.0 if count == 1 else 0.74, single=count == 1)
        )
    plain = rng.random() < 0.08
    place = "plain" if plain else SCENES[int(rng.integers(len(SCENES)))]
    style = styles[0] if rng.random() < 0.5 else styles[int(rng.integers(len(styles)))]
    lamp = rng.random()
    light = 0.6 if lamp < 0.06 else 1.25 if lamp < 0.12 else 1.0
    return Scene(
        things=tuple(things),
        place=place,
        style=style,
        light=light,
        seed=int(rng.integers(2**31)),
    )


RESERVED = {
    "gold-mug": ("mug", ("yellow", "blue", "red"), "plain"),
    "harlequin-cat": ("cat", ("orange", "black", "white"), "checkered"),
    "berry-teapot": ("teapot", ("purple", "green", "yellow"), "dotted"),
    "parrot": ("bird", ("green", "red", "yellow"), "plain"),
    "candy-house": ("house", ("pink", "purple", "white"), "striped"),
    "rescue-robot": ("robot", ("white", "orange", "blue"), "striped"),
    "circus-hat": ("hat", ("red", "yellow", "blue"), "dotted"),
    "night-boat": ("boat", ("black", "red", "yellow"), "plain"),
    "taxi": ("car", ("yellow", "black", "red"), "checkered"),
    "fairy-mushroom": ("mushroom", ("blue", "pink", "yellow"), "plain"),
}
"""Held-out combinations of noun, colours and pattern, which sampling never draws."""
_NEVER = frozenset(RESERVED.values())


def _sample_thing(
    rng: np.random.Generator, noun: str, x: float, size: float, *, single: bool
) -> Thing:
    while True:
        main = COLOURS[int(rng.integers(len(COLOURS)))]
        colours, pattern = (main, main, NEUTRAL.get(noun, "grey")), "plain"
        kind = rng.random()
        if kind < 0.42:  # colours that no caption names
            second, third = (COLOURS[int(i)] for i in rng.integers(len(COLOURS), size=2))
            colours = (main, second, third)
        if rng.random() < 0.36:
            pattern = PATTERNS[1 + int(rng.integers(3))]
        if (noun, colours, pattern) not in _NEVER:
            break
    spread = 0.05 if single else 0.02
    sizes = rng.random()
    scale = 0.78 if sizes < 0.1 else 1.2 if sizes < 0.2 and single else 1.0
    return Thing(
        noun=noun,
        colours=colours,
        pattern=pattern,
        x=x + float(rng.uniform(-spread, spread)),
        scale=size * scale * float(rng.uniform(0.93, 1.07)),
        aspect=float(rng.uniform(0.88, 1.12)),
        detail=float(rng.uniform(0.85, 1.15)),
        flipped=bool(rng.random() < 0.5) and noun not in ("mug",),
    )


NEUTRAL = {
    "mug": "white", "teapot": "black", "cat": "white", "bird": "orange", "car": "grey",
    "house": "brown", "tree": "brown", "ball": "white", "robot": "grey", "boat": "white",
    "hat": "black", "fish": "yellow", "mushroom": "white", "chair": "brown",
    "snowman": "orange", "rocket": "grey", "cactus": "pink",
}  # fmt: skip
"""Colour of the detail where nothing else is said."""


# --- paint


def _mix(a: tuple[int, ...], b: tuple[int, ...], amount: float) -> tuple[int, int, int]:
    r, g, bl = (round(x + (y - x) * amount) for x, y in zip(a, b, strict=True))
    return r, g, bl


class _Painter:
    """A canvas of 64 x 64 units that fills shapes in a style."""

    def __init__(self, canvas: skia.Canvas, style: str) -> None:
        self.canvas, self.style = canvas, style

    def tone(self, rgb: tuple[int, ...]) -> tuple[int, int, int]:
        if self.style == "watercolor":
            return _mix(rgb, (255, 252, 244), 0.42)
        if self.style == "sketch":
            return _mix(rgb, (250, 248, 240), 0.45)
        if self.style == "poster":
            grey = sum(rgb) // 3
            r, g, b = (max(0, min(255, round(grey + (c - grey) * 1.35))) for c in rgb)
            return r, g, b
        if self.style == "oil painting":
            return _mix(_mix(rgb, (150, 100, 40), 0.14), (0, 0, 0), 0.06)
        return _mix(rgb, (0, 0, 0), 0.0)

    def fill(
        self,
        path: skia.Path,
        rgb: tuple[int, ...],
        *,
        shade: float = 0.0,
        outline: bool = True,
        flat: bool = False,
    ) -> None:
        """Fill a shape; ``shade`` darkens it, and photos get light from above."""
        rgb = self.tone(_mix(rgb, (0, 0, 0), shade))
        paint = skia.Paint(AntiAlias=True, Color=skia.Color(*rgb))
        bounds = path.getBounds()
        if self.style == "neon":
            paint.setStyle(skia.Paint.kStroke_Style)
            for width, alpha in ((5.0, 70), (2.6, 130), (1.2, 255)):
                paint.setStrokeWidth(width)
                paint.setColor(skia.Color(*_mix(rgb, (255, 255, 255), 0.3), alpha))
                self.canvas.drawPath(path, paint)
            return
        if self.style == "photo" and not flat:
            paint.setShader(
                skia.GradientShader.MakeLinear(
                    [
                        skia.Point(bounds.left(), bounds.top()),
                        skia.Point(bounds.right(), bounds.bottom()),
                    ],
                    [
                        skia.Color(*_mix(rgb, (255, 255, 255), 0.22)),
                        skia.Color(*rgb),
                        skia.Color(*_mix(rgb, (0, 0, 0), 0.3)),
                    ],
                )
            )
        if self.style == "watercolor":
            paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, 0.7))
        self.canvas.drawPath(path, paint)
        if outline and self.style in ("photo", "sketch"):
            dark = (30, 28, 30) if self.style == "sketch" else _mix(rgb, (0, 0, 0), 0.6)
            width = 1.5 if self.style == "sketch" else 0.7
            self.line(path, dark, width, raw=True)

    def line(
        self, path: skia.Path, rgb: tuple[int, ...], width: float, *, raw: bool = False
    ) -> None:
        """Stroke a path, with round ends."""
        paint = skia.Paint(
            AntiAlias=True,
            Style=skia.Paint.kStroke_Style,
            StrokeWidth=width,
            StrokeCap=skia.Paint.kRound_Cap,
            StrokeJoin=skia.Paint.kRound_Join,
            Color=skia.Color(*(rgb if raw else self.tone(rgb))),
        )
        if not raw and self.style == "sketch":
            edge = skia.Paint(paint)
            edge.setStrokeWidth(width + 2.2)
            edge.setColor(skia.Color(30, 28, 30))
            self.canvas.drawPath(path, edge)
        if not raw and self.style == "photo":
            edge = skia.Paint(paint)
            edge.setStrokeWidth(width + 1.2)
            edge.setColor(skia.Color(*_mix(rgb, (0, 0, 0), 0.6)))
            self.canvas.drawPath(path, edge)
        if self.style == "watercolor":
            paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, 0.6))
        if self.style == "neon" and not raw:
            glow = skia.Paint(paint)
            glow.setAlpha(90)
            self.canvas.drawPath(path, glow)
            paint.setStrokeWidth(1.2)
            paint.setColor(skia.Color(*_mix(rgb, (255, 255, 255), 0.3)))
        self.canvas.drawPath(path, paint)

    def patterned(self, path: skia.Path, rgb: tuple[int, ...], pattern: str) -> None:
        """Fill the main body, with its pattern inside."""
        self.fill(path, rgb)
        if pattern == "plain" or self.style == "neon":
            return
        other = RGB["white"] if sum(rgb) < 600 else RGB["black"]
        bounds = path.getBounds()
        self.canvas.save()
        self.canvas.clipPath(path, doAntiAlias=True)
        marks = skia.Path()
        if pattern == "striped":
            x = bounds.left() + 2.5
            while x < bounds.right():
                marks.addRect(skia.Rect.MakeLTRB(x, bounds.top(), x + 4, bounds.bottom()))
                x += 8
        else:
            step = 5.5 if pattern == "checkered" else 7.5
            row, y = 0, bounds.top() + (0 if pattern == "checkered" else 4)
            while y < bounds.bottom():
                x = bounds.left() + (step if row % 2 else 0) + (0 if pattern == "checkered" else 2)
                while x < bounds.right():
                    if pattern == "checkered":
                        marks.addRect(skia.Rect.MakeXYWH(x, y, step, step))
                    else:
                        marks.addCircle(x + 2, y + 1, 2.3)
                    x += 2 * step if pattern == "checkered" else 1.5 * step
                row, y = row + 1, y + step
        self.fill(marks, other, outline=False, flat=True)
        self.canvas.restore()
        if self.style in ("photo", "sketch"):
            dark = (30, 28, 30) if self.style == "sketch" else _mix(rgb, (0, 0, 0), 0.6)
            self.line(path, dark, 1.5 if self.style == "sketch" else 0.7, raw=True)


def _poly(*points: tuple[float, float], close: bool = True) -> skia.Path:
    path = skia.Path()
    path.moveTo(*points[0])
    for point in points[1:]:
        path.lineTo(*point)
    if close:
        path.close()
    return path


def _rect(x0: float, y0: float, x1: float, y1: float, r: float = 0.0) -> skia.Path:
    path = skia.Path()
    path.addRRect(skia.RRect.MakeRectXY(skia.Rect.MakeLTRB(x0, y0, x1, y1), r, r))
    return path


def _oval(x0: float, y0: float, x1: float, y1: float) -> skia.Path:
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x0, y0, x1, y1))
    return path


def _disc(x: float, y: float, r: float) -> skia.Path:
    return _oval(x - r, y - r, x + r, y + r)


def _curve(*points: tuple[float, float]) -> skia.Path:
    path = skia.Path()
    path.moveTo(*points[0])
    for i in range(1, len(points) - 1, 2):
        path.quadTo(*points[i], *points[i + 1])
    return path


# --- shapes: each stands on y = 0, reaches to about y = -40 and is about 40 wide

_Rgb = tuple[int, int, int]
_Shape = Callable[[_Painter, _Rgb, _Rgb, _Rgb, str, float], None]


def _same(a: _Rgb, b: _Rgb) -> float:
    """Shade that keeps a second part of the same colour apart from the body."""
    return 0.28 if a == b else 0.0


def _mug(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    handle = _curve((11, -27), (11 + 15 * d, -27), (11 + 12 * d, -16), (11 + 11 * d, -6), (11, -8))
    p.line(handle, _mix(b, (0, 0, 0), _same(a, b)), 4.6)
    p.patterned(_rect(-16, -36, 11, 0, 4), a, pattern)
    p.fill(_oval(-16, -40, 11, -32), c)


def _teapot(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    s = _same(a, b)
    p.fill(
        _poly((-12, -8), (-22, -20), (-25 * d, -30), (-19 * d, -30), (-12, -22)),
        b,
        shade=s,
    )
    handle = _curve((13, -26), (25 * d, -26), (24 * d, -15), (22 * d, -6), (13, -7))
    p.line(handle, _mix(b, (0, 0, 0), s), 3.8)
    p.patterned(_oval(-17, -29, 17, 0), a, pattern)
    p.fill(_poly((-10, -26), (-6, -32), (6, -32), (10, -26)), c)
    p.fill(_disc(0, -35, 3.4), c)


def _cat(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    s = _same(a, b)
    p.line(_curve((11, -5), (24, -5), (21 * d, -22)), _mix(b, (0, 0, 0), s), 4.2)
    p.patterned(_oval(-14, -25, 14, 0), a, pattern)
    p.fill(_oval(-6, -15, 6, -1), c, outline=False)
    p.fill(_poly((-13, -33), (-12, -46), (-2, -38)), b, shade=s)
    p.fill(_poly((13, -33), (12, -46), (2, -38)), b, shade=s)
    p.fill(_oval(-14, -42, 14, -20), a)
    for x in (-6, 6):
        p.fill(_disc(x, -32, 2.7), (245, 240, 200), outline=False, flat=True)
        p.fill(_disc(x, -32, 1.4), (20, 20, 20), outline=False, flat=True)
    p.fill(_poly((-2, -27.5), (2, -27.5), (0, -25)), (90, 40, 50), outline=False, flat=True)


def _bird(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    for x in (-3, 5):
        p.line(_poly((x, -8), (x, -1), close=False), RGB["orange"], 1.8)
    p.fill(_poly((12, -20), (25 * d, -27), (23 * d, -16), (13, -13)), b, shade=_same(a, b))
    p.patterned(_oval(-15, -26, 17, -5), a, pattern)
    p.fill(_poly((-18, -34), (-28, -29), (-18, -26)), c)
    p.fill(_disc(-12, -30, 9), a)
    p.fill(_oval(-2, -23, 14 * d, -11), b, shade=_same(a, b))
    p.fill(_disc(-14, -32, 2), (20, 20, 20), outline=False, flat=True)


def _car(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.fill(
        _poly((-13, -17), (-9, -17 - 13 * d), (8, -17 - 13 * d), (15, -17)),
        b,
        shade=_same(a, b),
    )
    p.fill(
        _poly((-9, -18), (-7, -27), (-1, -27), (-1, -18)),
        (190, 225, 245),
        outline=False,
    )
    p.fill(_poly((1, -18), (1, -27), (6, -27), (11, -18)), (190, 225, 245), outline=False)
    p.patterned(_rect(-25, -19, 25, -6, 5), a, pattern)
    for x in (-14, 14):
        p.fill(_disc(x, -6, 6.5), (30, 30, 34))
        p.fill(_disc(x, -6, 3.2), c, outline=False)


def _house(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.fill(_rect(8, -43, 14, -28), c)
    p.patterned(_rect(-18, -25, 18, 0), a, pattern)
    p.fill(_poly((-23, -24), (0, -25 - 19 * d), (23, -24)), b, shade=_same(a, b))
    p.fill(_rect(-5, -15, 5, 0), c)
    p.fill(_rect(8.5, -18, 15, -11), (250, 235, 150), outline=False)


def _tree(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.fill(_poly((-4, -16), (4, -16), (6, 0), (-6, 0)), c)
    crown = skia.Path()
    for x, y, r in ((-10, -22, 10), (10, -22, 10), (0, -33, 12), (0, -24, 10)):
        crown.addCircle(x, y, r)
    p.patterned(skia.Simplify(crown), a, pattern)
    for x, y in ((-10, -22), (9, -25), (-1, -36)):
        p.fill(_disc(x, y, 3.2 * d), b, shade=_same(a, b), outline=False)


def _ball(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    body = _disc(0, -18, 18)
    p.patterned(body, a, pattern)
    p.canvas.save()
    p.canvas.clipPath(body, doAntiAlias=True)
    p.fill(_rect(-20, -18 - 4 * d, 20, -18 + 4 * d), b, shade=_same(a, b))
    p.canvas.restore()
    p.fill(_disc(0, -18, 4.6), c)


def _robot(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    s = _same(a, b)
    for x in (-8, 3):
        p.fill(_rect(x, -10, x + 6, 0), c)
    p.fill(_rect(-20, -26, -14, -26 + 14 * d, 2), b, shade=s)
    p.fill(_rect(14, -26, 20, -26 + 14 * d, 2), b, shade=s)
    p.patterned(_rect(-13, -28, 13, -8, 2), a, pattern)
    p.line(_poly((0, -41), (0, -46), close=False), c, 2)
    p.fill(_rect(-10, -42, 10, -29, 2), b, shade=s)
    for x in (-4.5, 4.5):
        p.fill(_disc(x, -36, 2.7), (250, 250, 180), outline=False, flat=True)
        p.fill(_disc(x, -36, 1.2), (20, 20, 20), outline=False, flat=True)


def _boat(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.line(_poly((0, -12), (0, -44), close=False), RGB["brown"], 2)
    p.fill(_poly((2, -43), (2, -15), (2 + 19 * d, -15)), b, shade=_same(a, b))
    p.fill(_poly((-2, -38), (-2, -15), (-16, -15)), c)
    p.patterned(_poly((-25, -13), (25, -13), (17, 0), (-17, 0)), a, pattern)


def _hat(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.fill(_oval(-26 * d, -9, 26 * d, 0), b, shade=_same(a, b))
    p.patterned(
        _poly((-15, -5), (-12, -28), (-5, -31), (5, -31), (12, -28), (15, -5)),
        a,
        pattern,
    )
    p.fill(_poly((-15.5, -5), (-14.6, -12), (14.6, -12), (15.5, -5)), c)


def _fish(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.fill(
        _poly((12, -17), (27 * d, -29), (24 * d, -17), (27 * d, -5)),
        b,
        shade=_same(a, b),
    )
    p.fill(_poly((-4, -26), (3, -36), (9, -25)), c)
    p.patterned(_oval(-22, -30, 15, -4), a, pattern)
    p.fill(_poly((-2, -15), (7, -10), (-1, -7)), c)
    p.fill(_disc(-14, -20, 2.9), (250, 250, 250), outline=False, flat=True)
    p.fill(_disc(-14, -20, 1.5), (20, 20, 20), outline=False, flat=True)


def _mushroom(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    stem = (236, 222, 196) if a == b else b
    p.fill(_poly((-6 * d, -18), (6 * d, -18), (8 * d, 0), (-8 * d, 0)), stem)
    cap = skia.Path()
    cap.addArc(skia.Rect.MakeLTRB(-23, -40, 23, 6), 180, 180)
    cap.close()
    p.patterned(cap, a, pattern)
    if pattern == "plain":
        for x, y, r in ((-11, -24, 3.2), (1, -32, 3.8), (12, -24, 3.2)):
            p.fill(_disc(x, y, r), c, outline=False)


def _chair(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    s = _same(a, b)
    for x in (-13, 9):
        p.fill(_rect(x, -14, x + 4.5, 0), b, shade=s)
    p.patterned(_rect(-14, -44, 14, -19, 3), a, pattern)
    p.fill(_rect(-16, -20, 16, -13, 2), a, shade=0.15)
    p.fill(_rect(-12, -23.5 * d, 12, -18, 2.5), c)


def _snowman(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.patterned(_disc(0, -12, 12), a, pattern)
    p.fill(_disc(0, -28, 9), a)
    p.fill(_disc(0, -39, 6.5), a)
    p.fill(_rect(-9, -34.5, 9, -30.5, 2), b)
    p.fill(_poly((0, -40), (10 * d, -38.5), (0, -37)), c)
    for x in (-2.6, 2.6):
        p.fill(_disc(x, -41, 1.2), (20, 20, 20), outline=False, flat=True)


def _rocket(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    p.fill(_poly((-5, -6), (0, 2), (5, -6)), RGB["orange"])
    p.fill(_poly((-9, -18), (-18 * d, -2), (-7, -5)), b)
    p.fill(_poly((9, -18), (18 * d, -2), (7, -5)), b)
    p.patterned(_rect(-9, -36, 9, -4, 6), a, pattern)
    p.fill(_poly((-9, -32), (0, -48), (9, -32)), b)
    p.fill(_disc(0, -23, 4.5), c)


def _cactus(p: _Painter, a: _Rgb, b: _Rgb, c: _Rgb, pattern: str, d: float) -> None:
    for side in (-1, 1):
        p.line(_curve((0, -15), (16 * side, -13), (15 * side * d, -28)), a, 6)
    p.patterned(_rect(-7, -41, 7, -8, 7), a, pattern)
    p.fill(_disc(0, -42, 4), c)
    p.fill(_poly((-12, -11), (12, -11), (9, 0), (-9, 0)), b)


SHAPES: dict[str, _Shape] = {name: globals()[f"_{name}"] for name in (*NOUNS, *HIDDEN_NOUNS)}


# --- places


def _place(p: _Painter, scene: Scene, rng: np.random.Generator) -> None:
    place = scene.place
    shift = float(rng.uniform(-8, 8))

    def band(y0: float, y1: float, rgb: tuple[int, ...], to: tuple[int, ...] | None = None) -> None:
        a, b = p.tone(rgb), p.tone(to or rgb)
        if p.style in ("poster", "pixel art", "sketch"):
            b = a
        paint = skia.Paint(
            Shader=skia.GradientShader.MakeLinear(
                [skia.Point(0, y0), skia.Point(0, y1)], [skia.Color(*a), skia.Color(*b)]
            )
        )
        p.canvas.drawRect(skia.Rect.MakeLTRB(-2, y0, 66, y1), paint)
        if p.style == "sketch" and y0 > 0:
            p.line(_poly((-2, y0), (66, y0), close=False), (60, 58, 60), 0.9, raw=True)

    if place == "plain":
        tint = 214 + int(rng.integers(-12, 13))
        band(0, 64, (tint, tint, tint + 6), (tint - 26, tint - 26, tint - 22))
    elif place == "beach":
        band(0, 26, (120, 196, 240), (196, 230, 250))
        band(26, 41, (30, 120, 190), (50, 160, 210))
        band(41, 64, (240, 216, 150), (226, 190, 120))
        p.fill(_disc(50 + shift, 10, 5.5), (255, 226, 80))
    elif place == "moon":
        band(0, 40, (8, 8, 24), (20, 20, 50))
        band(40, 64, (168, 168, 174), (120, 120, 128))
        p.fill(_disc(12 + shift, 11, 6.5), (60, 120, 220))
        p.fill(_oval(9 + shift, 8, 15 + shift, 12), (80, 180, 100), outline=False)
        for x, y in ((30, 6), (42, 16), (56, 8), (25, 22), (60, 26), (4, 28)):
            p.fill(
                _disc((x + shift) % 64, y, 1.1),
                (255, 255, 240),
                outline=False,
                flat=True,
            )
        p.fill(_oval(42 + shift, 53, 58 + shift, 59), (120, 120, 128), outline=False)
    elif place == "forest":
        band(0, 42, (170, 214, 190), (140, 190, 150))
        band(42, 64, (86, 150, 70), (60, 120, 52))
        for i in range(5):
            x = 14 * i + shift / 2
            top = 6 + (i * 7) % 11
            p.fill(
                _poly((x - 10, 44), (x, top), (x + 10, 44)),
                (24, 92, 50),
                shade=0.1 * (i % 2),
            )
    elif place == "room":
        band(0, 44, (232, 208, 170), (222, 194, 150))
        band(44, 64, (156, 100, 60), (130, 80, 46))
        x = 44 + shift / 2
        p.fill(_rect(x - 8, 5, x + 8, 23), (250, 250, 250))
        p.fill(_rect(x - 6, 7, x + 6, 21), (140, 200, 240), outline=False)
        p.fill(_rect(x - 1, 7, x + 1, 21), (250, 250, 250), outline=False, flat=True)
    elif place == "snow":
        band(0, 38, (176, 196, 216), (206, 220, 232))
        band(38, 64, (246, 248, 252), (226, 232, 242))
        for _ in range(9):
            x, y = rng.uniform(2, 62), rng.uniform(2, 36)
            p.fill(_disc(x, y, 1.4), (255, 255, 255), outline=False, flat=True)
    else:
        band(0, 44, (14, 16, 54), (44, 36, 96))
        band(44, 64, (62, 62, 70), (44, 44, 50))
        for i in range(5):
            x, top = 14 * i - 4 + shift / 3, 12 + (i * 9) % 16
            p.fill(_rect(x, top, x + 11, 44), (36, 38, 62))
            for row in range(3):
                for column in range(2):
                    lit = (250, 214, 90) if (i + row + column) % 3 else (60, 60, 84)
                    y = top + 4 + 8 * row
                    if y < 40:
                        window = _rect(x + 1.5 + 5 * column, y, x + 4.5 + 5 * column, y + 4)
                        p.fill(window, lit, outline=False, flat=True)
        p.fill(_disc(54 + shift / 2, 7, 4), (250, 246, 210), outline=False)
        for x in (4, 26, 48):
            p.fill(_rect(x, 58, x + 11, 60), (230, 220, 120), outline=False, flat=True)


def _thing(p: _Painter, thing: Thing, ground: float) -> None:
    p.canvas.save()
    p.canvas.translate(64 * thing.x, ground)
    if p.style not in ("sketch", "poster", "neon"):
        soft = skia.Paint(AntiAlias=True, Color=skia.Color(0, 0, 0, 90))
        soft.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, 1.6))
        half = 19 * thing.scale * thing.aspect
        p.canvas.drawOval(skia.Rect.MakeLTRB(-half, -2.2, half, 2.4), soft)
    p.canvas.scale(thing.scale * thing.aspect * (-1 if thing.flipped else 1), thing.scale)
    a, b, c = (RGB[name] for name in thing.colours)
    SHAPES[thing.noun](p, a, b, c, thing.pattern, thing.detail)
    p.canvas.restore()


def _finish(picture: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """What a style does to the whole picture, and the light."""
    size = picture.shape[0]
    image = picture.astype(np.float32)
    if scene.style == "pixel art":
        block = max(1, size // 16)
        cells = image[: block * 16, : block * 16].reshape(16, block, 16, block, 3).mean((1, 3))
        cells = np.round(cells / 36) * 36
        image = cells.repeat(block, 0).repeat(block, 1)
    if scene.style == "watercolor":
        y, x = np.mgrid[0:size, 0:size] / (size - 1)
        wave = 0.012 * np.sin(14 * x + rng.uniform(0, 6)) + 0.012 * np.sin(17 * y)
        border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) + wave
        paper = np.clip(1 - (border - 0.03) / 0.07, 0, 1)[..., None]
        image = image * (1 - paper) + np.array([252, 249, 240], np.float32) * paper
    if scene.style == "oil painting":
        y, x = np.mgrid[0:size, 0:size] * (64 / size)
        phase = rng.uniform(0, 6.28)
        dabs = np.sin((x + y) * 0.8 + 2.2 * np.sin((x - y) * 0.16 + phase))
        image = image * (1 + 0.13 * dabs[..., None])
    if scene.light != 1.0:
        image = image * scene.light
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def render(scene: Scene, size: int = 64) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: What to draw.
        size: Side in pixels.

    Returns:
        uint8 (size, size, 3), RGB.
    """
    rng = np.random.default_rng(np.random.SeedSequence((scene.seed, 12)))
    surface = skia.Surface(size, size)
    canvas = surface.getCanvas()
    canvas.scale(size / 64, size / 64)
    painter = _Painter(canvas, scene.style)
    if scene.style == "neon":
        canvas.clear(skia.Color(10, 8, 22))
        rng.uniform()
        painter.line(_poly((0, 52), (64, 52), close=False), (80, 60, 160), 1.0)
    else:
        _place(painter, scene, rng)
    for thing in scene.things:
        _thing(painter, thing, 56.0 if len(scene.things) == 1 else 55.0)
    picture = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., :3]
    return _finish(picture, scene, rng)


def render_batch(seeds: Sequence[int], size: int = 64) -> tuple[np.ndarray, list[Scene]]:
    """Sample and draw one scene per seed: uint8 (batch, size, size, 3), and the scenes."""
    drawn = [sample_scene(seed) for seed in seeds]
    return np.stack([render(scene, size) for scene in drawn]), drawn
