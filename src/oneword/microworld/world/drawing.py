"""Draws scenes: a picture, and the masks of its parts, are pure functions of the scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import skia

from oneword.microworld.world.extras import draw_behind, draw_extras
from oneword.microworld.world.inventory import PLACES, Scene, Thing
from oneword.microworld.world.paths import oval, rect, union
from oneword.microworld.world.pen import PARTS, BoundsPen, MaskPen, Pen, StylePen
from oneword.microworld.world.places import draw_place
from oneword.microworld.world.scenes import sample_scene
from oneword.microworld.world.shapes import SHAPES
from oneword.microworld.world.styles import PIXELS, finish


GROUND = 56.0
"""Height at which things stand, in units of 64 to the picture."""
SIZES = {"small": 0.75, "medium": 1.0, "large": 1.22}
_WIDTH, _HEIGHT = 45.0, 42.0
"""What a thing of medium size fits into."""
_MARGIN = 2.6
"""Between things and the picture's border; wide enough for the thickest outline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Placed:
    """A thing with its position; lengths in units of 64 to the picture."""

    thing: Thing
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    bareheaded: bool = False
    shadow: bool = True
    window: tuple[float, float, float, float] | None = None
    """Opening of the container that it is in; hides what is below the front rim."""

    @property
    def stretch(self) -> float:
        """Scale of widths, negative where the thing looks the other way."""
        return self.scale * self.thing.aspect * (-1 if self.thing.flipped else 1)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Say where a point of the shape is."""
        return self.x + self.stretch * x, self.y + self.scale * y

    def box(self) -> tuple[float, float, float, float]:
        """Say how far it reaches to the left, up, to the right and down."""
        left, top, right, bottom = _bounds(
            self.thing.noun, self.thing.extras, self.thing.hair, self.thing.detail, self.bareheaded
        )
        x0, y0 = self.at(left, top)
        x1, y1 = self.at(right, bottom)
        return min(x0, x1), y0, max(x0, x1), y1


@lru_cache(maxsize=4096)
def _bounds(
    noun: str, extras: tuple[str, ...], hair: str, detail: float, bareheaded: bool
) -> tuple[float, float, float, float]:
    pen = BoundsPen()
    thing = Thing(
        noun=noun, colours=("grey", "grey", "grey"), extras=extras, hair=hair, detail=detail
    )
    _draw_shape(pen, thing, bareheaded=bareheaded)
    box = pen.bounds
    return box.left(), box.top(), box.right(), box.bottom()


def _draw_shape(pen: Pen, thing: Thing, *, bareheaded: bool = False) -> None:
    shape = SHAPES[thing.noun]
    pen.dress(thing, bareheaded=bareheaded)
    if shape.wears:
        draw_behind(pen, thing.extras, shape.wears)
    shape.draw(pen, thing.detail)
    if thing.badge and shape.badge[2]:
        pen.badge(thing.badge, *shape.badge)
    if shape.wears:
        draw_extras(pen, thing.extras, shape.wears)


# --- layout


@lru_cache
def _usual(noun: str) -> float:
    """Scale at which a noun has its usual size."""
    left, top, right, _ = _bounds(noun, (), "long", 1.0, False)
    return min(_WIDTH / (right - left), _HEIGHT / -top)


def _own(thing: Thing) -> float:
    return _usual(thing.noun) * thing.scale * SIZES[thing.size]


def _into(thing: Thing, width: float, height: float) -> float:
    """Scale at which a thing fits into a box, extras and all, whatever its own proportions."""
    left, top, right, bottom = _Placed(thing=thing).box()
    fitting = min(width / (right - left), height / (bottom - top))
    return fitting * min(1.0, SIZES[thing.size])


def _centred(placed: _Placed, x: float) -> _Placed:
    left, _, right, _ = placed.box()
    return replace(placed, x=placed.x + x - (left + right) / 2)


def _row(things: Sequence[Thing], height: float) -> list[_Placed]:
    """Place things side by side in equal cells, with gaps between."""
    cell = (64 - 2 * _MARGIN) / len(things)
    return [
        _centred(
            _Placed(thing=thing, scale=_into(thing, cell - 1.8, height)), _MARGIN + cell * (i + 0.5)
        )
        for i, thing in enumerate(things)
    ]


def _stack(upper: Thing, lower: Thing) -> list[_Placed]:
    below = _Placed(thing=lower, scale=0.74 * _own(lower))
    x, y = below.at(0, SHAPES[lower.noun].top)
    above = _Placed(thing=upper, scale=_into(upper, 25, 21), x=x, y=y + 0.6, shadow=False)
    return [below, _centred(above, x)]


def _container(thing: Thing) -> tuple[_Placed, tuple[float, float, float, float]]:
    """Place a container, and say where its opening is."""
    placed = _Placed(thing=thing, scale=0.9 * _own(thing))
    mouth = SHAPES[thing.noun].mouth or (0, -20, 20, 2)
    x, y = placed.at(*mouth[:2])
    return placed, (x, y, abs(placed.stretch) * mouth[2], placed.scale * mouth[3])


def _within(content: Thing, vessel: Thing) -> list[_Placed]:
    outer, mouth = _container(vessel)
    x, y, width, drop = mouth
    scale = _into(content, min(0.92 * width, 31), 34)
    inner = _Placed(thing=content, scale=scale, window=mouth, shadow=False)
    height = -inner.box()[1]
    return [outer, _centred(replace(inner, y=y + drop + 0.28 * height), x)]


def _full(content: Thing, vessel: Thing) -> list[_Placed]:
    outer, mouth = _container(vessel)
    x, y, width, drop = mouth
    scale = _into(content, min(0.54 * width, 18), 23)
    inner = _Placed(thing=content, scale=scale, window=mouth, shadow=False)
    left, top, right, _ = inner.box()
    half = min(0.26 * width, 0.62 * (right - left))
    spots = ((0, -0.3), (-half, 0.2), (half, 0.2))
    return [
        outer,
        *(_centred(replace(inner, y=y + drop - sink * top), x + dx) for dx, sink in spots),
    ]


def _wearing(wearer: Thing, worn: Thing) -> list[_Placed]:
    under = _Placed(thing=wearer, scale=_own(wearer), bareheaded=True)
    anchors = SHAPES[wearer.noun].wears
    if anchors is None:
        return _stack(wearer, worn)
    x, y, width = anchors.head
    at = under.at(x, y)
    scale = abs(under.stretch) * width / 30 / worn.aspect
    return [under, _Placed(thing=worn, scale=scale, x=at[0], y=at[1] + 3 * scale, shadow=False)]


def _layout(scene: Scene) -> list[_Placed]:
    """Place every thing of a scene so that all are inside the picture, the hindmost first."""
    things = scene.things
    if scene.relation == "count":
        group = _row(things, 34 if len(things) == 2 else 30)
    elif len(things) == 1:
        group = [_centred(_Placed(thing=things[0], scale=_own(things[0])), 64 * things[0].x)]
    else:
        arrange = {"on": _stack, "in": _within, "full of": _full, "wearing": _wearing}.get(
            scene.relation, lambda *pair: _row(pair, 36)
        )
        group = arrange(things[0], things[1])
        if arrange in (_stack, _within, _full, _wearing):
            group = _shifted(group, 1.0, 32 - sum(_box(group)[::2]) / 2, 0.0)
    left, top, right, bottom = _box(group)
    room = 64 - 2 * _MARGIN
    shrink = min(1.0, room / (right - left), (GROUND - _MARGIN) / (bottom - top))
    group = _shifted(group, shrink, 0.0, 0.0)
    left, _, right, bottom = _box(group)
    inward = max(0.0, _MARGIN - left) - max(0.0, right - 64 + _MARGIN)
    return _shifted(group, 1.0, inward, GROUND - max(0.0, bottom - 2.0))


def _box(group: Sequence[_Placed]) -> tuple[float, float, float, float]:
    boxes = np.array([placed.box() for placed in group])
    low, high = boxes.min(0), boxes.max(0)
    return float(low[0]), float(low[1]), float(high[2]), float(high[3])


def _shifted(group: Sequence[_Placed], factor: float, dx: float, dy: float) -> list[_Placed]:
    """Scale a group about the middle of its ground, then move it."""

    def move(placed: _Placed) -> _Placed:
        window = placed.window
        if window:
            x, y, width, drop = window
            window = (32 + (x - 32) * factor + dx, y * factor + dy, width * factor, drop * factor)
        return replace(
            placed,
            x=32 + (placed.x - 32) * factor + dx,
            y=placed.y * factor + dy,
            scale=placed.scale * factor,
            window=window,
        )

    return [move(placed) for placed in group]


# --- pictures


def _draw_placed(canvas: skia.Canvas, pen: Pen, placed: _Placed) -> None:
    canvas.save()
    if placed.window:
        x, y, width, drop = placed.window
        seen = union(rect(0, -2, 64, y), oval(x - width / 2, y - drop, x + width / 2, y + drop))
        canvas.clipPath(seen, doAntiAlias=isinstance(pen, StylePen))
    canvas.translate(placed.x, placed.y)
    if isinstance(pen, StylePen):
        if placed.shadow:
            left, _, right, _ = placed.box()
            pen.shadow(0.56 * (right - left))
        pen.flipped = placed.thing.flipped
        pen.thickness = placed.scale**-0.6
    canvas.scale(placed.stretch, placed.scale)
    _draw_shape(pen, placed.thing, bareheaded=placed.bareheaded)
    canvas.restore()


def _canvas(size: int) -> tuple[skia.Surface, skia.Canvas]:
    surface = skia.Surface(size, size)
    canvas = surface.getCanvas()
    canvas.scale(size / 64, size / 64)
    return surface, canvas


def render(scene: Scene, size: int = 128) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: What to draw.
        size: Side in pixels.

    Returns:
        uint8 (size, size, 3), RGB.
    """
    rng = np.random.default_rng(np.random.SeedSequence((scene.seed, 12)))
    surface, canvas = _canvas(PIXELS if scene.style == "pixel art" else size)
    pen = StylePen(canvas, scene.style)
    draw_place(pen, scene.place, rng)
    for placed in _layout(scene):
        _draw_placed(canvas, pen, placed)
    drawn = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., :3]
    picture = finish(drawn, scene.style, size, rng)
    if scene.light != 1.0:
        picture = picture * np.float32(scene.light)
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def empty_place(place: str, variant: int, size: int = 128) -> np.ndarray:
    """Draw a place with nothing in it.

    Args:
        place: One of ``PLACES``.
        variant: Which of its variations, from 0 on.
        size: Side in pixels.

    Returns:
        uint8 (size, size, 3), RGB.
    """
    rng = np.random.default_rng((24, variant, PLACES.index(place)))
    surface, canvas = _canvas(size)
    draw_place(StylePen(canvas, "photo"), place, rng)
    drawn = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., :3]
    return np.clip(finish(drawn, "photo", size, rng) + 0.5, 0, 255).astype(np.uint8)


def masks(scene: Scene, size: int = 128) -> dict[str, np.ndarray]:
    """Mark the visible parts of a scene's first thing, of all its copies where it has some.

    Args:
        scene: What to mark.
        size: Side in pixels.

    Returns:
        bool (size, size) each: "silhouette" (any part), "body", "second", "detail" and "extras".
    """
    surface, canvas = _canvas(size)
    canvas.clear(skia.Color(0, 0, 0))
    pen = MaskPen(canvas)
    for placed in _layout(scene):
        pen.hides = placed.thing != scene.things[0]
        _draw_placed(canvas, pen, placed)
    parts = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[..., 0]
    names = ("body", "second", "detail", "extras")
    found = {name: parts == 1 + PARTS.index(name) for name in names}
    return {"silhouette": parts > 0, **found}


def render_batch(seeds: Sequence[int], size: int = 128) -> tuple[np.ndarray, list[Scene]]:
    """Sample and draw one scene per seed: uint8 (batch, size, size, 3), and the scenes."""
    drawn = [sample_scene(seed) for seed in seeds]
    return np.stack([render(scene, size) for scene in drawn]), drawn
