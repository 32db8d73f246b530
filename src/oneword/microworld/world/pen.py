"""Pens that shapes are drawn with: one paints in a style, one marks parts, one only measures."""

from __future__ import annotations

import skia

from oneword.microworld.world.inventory import Thing
from oneword.microworld.world.paths import disc, line, rect, star, tube, union, without
from oneword.microworld.world.styles import (
    BACKDROPS,
    BLACK,
    LOOKS,
    RGB,
    WHITE,
    Rgb,
    luminance,
    mix,
    saturate,
)


PARTS = ("body", "second", "detail", "fixed", "extras", "badge")
"""What an area belongs to; "fixed": eyes, wheels, skin and the like."""
_EYE: Rgb = (26, 24, 30)
_SKIN: dict[str, Rgb] = {
    "light": (252, 216, 188),
    "medium": (204, 142, 94),
    "dark": (104, 66, 44),
}


def apart(rgb: Rgb, other: Rgb, amount: float = 0.26) -> Rgb:
    """Shade a colour where it equals its neighbour's, so that both stay visible."""
    if rgb != other:
        return rgb
    return mix(rgb, BLACK, amount) if luminance(rgb) > 0.25 else mix(rgb, WHITE, amount)


class Pen:
    """Names the parts of a shape; what is done with each area is the subclass's."""

    def __init__(self) -> None:
        self.dress(Thing(noun="ball", colours=("grey", "grey", "grey")))

    def dress(self, thing: Thing, *, bareheaded: bool = False) -> None:
        """Take the colours and the pattern of the thing that is drawn next.

        Args:
            thing: What is drawn next.
            bareheaded: Whether it wears a hat that is drawn later, so that it needs room.
        """
        self.bareheaded = bareheaded
        self.pattern = thing.pattern
        self.badged = bool(thing.badge)
        self.skin = _SKIN[thing.skin or "medium"]
        self.long_hair = thing.hair == "long"
        self._shares_colour = thing.colours[0] == thing.colours[1]
        self.main_rgb, second, detail = (RGB[name] for name in thing.colours)
        self.second_rgb = apart(second, self.main_rgb)
        self.detail_rgb = apart(apart(detail, self.main_rgb, 0.42), self.second_rgb, 0.3)

    def body(self, path: skia.Path) -> None:
        """Draw the main area, with the pattern."""
        self.paint(path, self.main_rgb, "body")
        if self.pattern != "plain":
            self.decorate(path)

    def main(self, path: skia.Path) -> None:
        """Draw more of the main colour, without the pattern."""
        self.paint(path, self.main_rgb, "body")

    def second(self, path: skia.Path, *, same: Rgb | None = None) -> None:
        """Draw an area of the second part, in ``same`` where it has no colour of its own."""
        if same is None or not self._shares_colour:
            same = self.second_rgb
        self.paint(path, same, "second")

    def detail(self, path: skia.Path, *, outline: bool = True) -> None:
        """Draw an area of the small detail."""
        self.paint(path, self.detail_rgb, "detail", outline=outline)

    def fixed(self, path: skia.Path, rgb: Rgb, *, outline: bool = True) -> None:
        """Draw an area whose colour no scene decides."""
        self.paint(path, rgb, "fixed", outline=outline)

    def extra(self, path: skia.Path) -> None:
        """Draw an area of something that is worn, in the second part's colour."""
        self.paint(path, self.second_rgb, "extras")

    def eyes(self, *points: tuple[float, float], r: float = 2.2) -> None:
        """Draw eyes that look ahead, with a glint."""
        for x, y in points:
            self.fixed(disc(x, y, r * 1.35), (252, 250, 244), outline=False)
            self.fixed(disc(x, y, r), _EYE, outline=False)
            self.fixed(disc(x - 0.35 * r, y - 0.4 * r, 0.36 * r), WHITE, outline=False)

    def badge(self, kind: str, x: float, y: float, r: float) -> None:
        """Draw a mark in the detail's colour with a rim against any ground."""
        mark = _badge(kind, x, y, r)
        rim = WHITE if luminance(self.detail_rgb) < 0.6 else RGB["black"]
        self.paint(tube(mark, 1.5), rim, "badge", outline=False)
        self.paint(mark, self.detail_rgb, "badge", outline=False)

    def paint(self, path: skia.Path, rgb: Rgb, part: str, *, outline: bool = True) -> None:
        """Do with one area of a part what this pen is for."""
        raise NotImplementedError

    def decorate(self, path: skia.Path) -> None:
        """Draw the pattern inside the body."""


class StylePen(Pen):
    """Paints on a canvas of 64 x 64 units in a style."""

    def __init__(self, canvas: skia.Canvas, style: str) -> None:
        super().__init__()
        self.canvas, self.style = canvas, LOOKS[style]
        self.scenic_tone = BACKDROPS.get(style, self.style.tone)
        self.flipped, self.thickness = False, 1.0
        """Whether the canvas is mirrored, and what outlines are multiplied by."""

    def paint(self, path: skia.Path, rgb: Rgb, part: str, *, outline: bool = True) -> None:
        del part
        tone = self.style.tone(rgb)
        self._fill(path, tone if outline else self._mark(tone, rgb, 1.0), shaded=outline)
        if outline:
            self._sheen(path)
            self._outline(path, rgb, 1.0)

    def decorate(self, path: skia.Path) -> None:
        bounds = path.getBounds()
        other = WHITE if luminance(self.main_rgb) < 0.75 else RGB["black"]
        self.canvas.save()
        self.canvas.clipPath(path, doAntiAlias=not self.style.crisp)
        tone = self._mark(self.style.tone(other), other, 0.35)
        self._fill(_marks(self.pattern, bounds), tone, shaded=False)
        self._sheen(path)
        self.canvas.restore()
        self._outline(path, self.main_rgb, 1.0)

    def scenery(
        self, path: skia.Path, rgb: Rgb, to: Rgb | None = None, *, outline: bool = True
    ) -> None:
        """Fill an area of the background, from one colour down to another where styles shade."""
        top = self.scenic_tone(rgb)
        if not outline:
            top = self._mark(top, rgb, 0.6)
        paint = self._brush(top)
        if to is not None and (self.style.light or self.style.blur):
            bounds = path.getBounds()
            paint.setShader(_down(bounds.top(), bounds.bottom(), top, self.scenic_tone(to)))
        self.canvas.drawPath(path, paint)
        if outline and self.style.scenery:
            self._outline(path, rgb, self.style.scenery)

    def shadow(self, half: float) -> None:
        """Darken the ground at y = 0 under a thing."""
        if not self.style.shadow:
            return
        paint = skia.Paint(
            AntiAlias=True,
            Shader=skia.GradientShader.MakeRadial(
                skia.Point(0, 0),
                1.0,
                [skia.Color(0, 0, 0, self.style.shadow), skia.Color(0, 0, 0, 0)],
                [0.45, 1.0],
            ),
        )
        self.canvas.save()
        self.canvas.scale(half, min(3.4, 0.16 * half))
        self.canvas.drawCircle(0, 0, 1, paint)
        self.canvas.restore()

    def _mark(self, tone: Rgb, rgb: Rgb, share: float) -> Rgb:
        """Lift the tone of an area without an outline, where the style draws mostly lines."""
        if self.style.ink is None or not self.style.marks:
            return tone
        return mix(tone, self.style.ink(rgb), share * self.style.marks * luminance(rgb))

    def _brush(self, rgb: Rgb) -> skia.Paint:
        paint = skia.Paint(AntiAlias=not self.style.crisp, Color=skia.Color(*rgb))
        if self.style.blur:
            paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, self.style.blur))
        return paint

    def _fill(self, path: skia.Path, rgb: Rgb, *, shaded: bool) -> None:
        paint = self._brush(rgb)
        if shaded and self.style.light:
            bounds = path.getBounds()
            left, right = bounds.left(), bounds.right()
            if self.flipped:
                left, right = right, left
            paint.setShader(
                skia.GradientShader.MakeLinear(
                    [skia.Point(left, bounds.top()), skia.Point(right, bounds.bottom())],
                    [
                        skia.Color(*mix(rgb, WHITE, self.style.light)),
                        skia.Color(*rgb),
                        skia.Color(*mix(rgb, BLACK, self.style.dark)),
                    ],
                    [0.0, 0.45, 1.0],
                )
            )
        self.canvas.drawPath(path, paint)

    def _outline(self, path: skia.Path, rgb: Rgb, factor: float) -> None:
        if self.style.ink is None:
            return
        width = self.style.outline * factor * self.thickness
        ink = self.style.ink(rgb)
        paint = skia.Paint(
            AntiAlias=not self.style.crisp,
            Style=skia.Paint.kStroke_Style,
            StrokeJoin=skia.Paint.kRound_Join,
            StrokeWidth=width,
            Color=skia.Color(*ink),
        )
        if self.style.glows:
            for wide, alpha in ((4.2, 46), (2.3, 100)):
                halo = skia.Paint(paint)
                halo.setStrokeWidth(width * wide)
                halo.setColor(skia.Color(*saturate(ink, 1.5), int(alpha * min(1, factor * 1.2))))
                self.canvas.drawPath(path, halo)
            paint.setAlpha(int(255 * min(1, factor * 1.4)))
        self.canvas.drawPath(path, paint)

    def _sheen(self, path: skia.Path) -> None:
        bounds = path.getBounds()
        if not self.style.sheen or min(bounds.width(), bounds.height()) < 7:
            return
        x0, x1, y0 = bounds.left(), bounds.right(), bounds.top()
        if self.flipped:
            x0, x1 = x1, x0
        self.canvas.save()
        self.canvas.clipPath(path, doAntiAlias=not self.style.crisp)
        if self.style.sheen == "halves":
            shade = skia.Paint(Color=skia.Color(0, 0, 0, 34))
            middle = x0 + 0.56 * (x1 - x0)
            self.canvas.drawRect(
                skia.Rect.MakeLTRB(min(middle, x1), y0, max(middle, x1), bounds.bottom()), shade
            )
        else:
            shine = skia.Paint(
                AntiAlias=True,
                Color=skia.Color(255, 255, 255, 150),
                Style=skia.Paint.kStroke_Style,
                StrokeWidth=1.7,
                StrokeCap=skia.Paint.kRound_Cap,
            )
            side = 1 if x1 > x0 else -1
            reach = min(6.0, 0.3 * bounds.height(), 0.3 * bounds.width())
            x, y = x0 + side * (1.6 + 0.45 * reach), y0 + 1.6 + 0.45 * reach
            arc = skia.Path()
            arc.moveTo(x - side * 0.2, y + reach * 0.8)
            arc.quadTo(x, y, x + side * reach * 0.8, y - 0.2)
            self.canvas.drawPath(arc, shine)
        self.canvas.restore()


class MaskPen(Pen):
    """Marks areas with their part's number, without smooth edges."""

    def __init__(self, canvas: skia.Canvas) -> None:
        super().__init__()
        self.canvas, self.hides = canvas, False
        """Whether what is drawn only hides what is behind it."""

    def paint(self, path: skia.Path, rgb: Rgb, part: str, *, outline: bool = True) -> None:
        del rgb, outline
        mark = 0 if self.hides else 1 + PARTS.index(part)
        self.canvas.drawPath(path, skia.Paint(AntiAlias=False, Color=skia.Color(mark, 0, 0)))


class BoundsPen(Pen):
    """Measures how far a shape reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = skia.Rect.MakeEmpty()

    def paint(self, path: skia.Path, rgb: Rgb, part: str, *, outline: bool = True) -> None:
        del rgb, part, outline
        self.bounds.join(path.computeTightBounds())


def _down(y0: float, y1: float, a: Rgb, b: Rgb) -> skia.Shader:
    return skia.GradientShader.MakeLinear(
        [skia.Point(0, y0), skia.Point(0, y1)], [skia.Color(*a), skia.Color(*b)]
    )


def _badge(kind: str, x: float, y: float, r: float) -> skia.Path:
    if kind == "star":
        return star(x, y + 0.1 * r, 1.15 * r)
    if kind == "ring":
        return tube(disc(x, y, 0.72 * r), 0.5 * r)
    if kind == "moon":
        return without(disc(x, y, r), disc(x + 0.5 * r, y - 0.25 * r, 0.82 * r))
    if kind == "cross":
        arm = 0.34 * r
        return union(rect(x - arm, y - r, x + arm, y + r), rect(x - r, y - arm, x + r, y + arm))
    heart = skia.Path()
    heart.moveTo(x, y + r)
    heart.cubicTo(x - 1.9 * r, y - 0.3 * r, x - 0.8 * r, y - 1.5 * r, x, y - 0.4 * r)
    heart.cubicTo(x + 0.8 * r, y - 1.5 * r, x + 1.9 * r, y - 0.3 * r, x, y + r)
    return heart


def _marks(pattern: str, bounds: skia.Rect) -> skia.Path:
    """Lay a pattern over a box, centred so that it looks the same from left and right."""
    cx, cy = bounds.centerX(), bounds.centerY()
    nx, ny = int(bounds.width() / 7) + 2, int(bounds.height() / 7) + 2
    marks = skia.Path()
    if pattern == "striped":
        for i in range(-nx, nx + 1):
            marks.addRect(skia.Rect.MakeXYWH(cx + 7 * i - 1.75, bounds.top(), 3.5, 80))
    elif pattern == "banded":
        for i in range(-ny, ny + 1):
            marks.addRect(skia.Rect.MakeXYWH(bounds.left(), cy + 7 * i - 1.75, 80, 3.5))
    elif pattern == "zigzag":
        for i in range(-ny, ny + 1):
            points = [(cx + 4 * k, cy + 8 * i + (2 if k % 2 else -2)) for k in range(-8, 9)]
            marks.addPath(tube(line(*points), 2.6))
    else:
        for i in range(-ny, ny + 1):
            for j in range(-nx, nx + 1):
                if pattern == "dotted":
                    marks.addCircle(cx + 7 * j + (3.5 if i % 2 else 0), cy + 6.2 * i, 1.9)
                elif (i + j) % 2:
                    marks.addRect(skia.Rect.MakeXYWH(cx + 5 * j - 2.5, cy + 5 * i - 2.5, 5, 5))
    return marks
