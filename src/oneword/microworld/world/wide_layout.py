"""Where the second world's things stand; lengths in units of 64 to the picture.

Nothing here draws, so that pictures can be put together from ready parts where skia is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from oneword.microworld.world.wide_scenes import Figure, WideScene


GROUND = 56.0
"""Height at which things stand, as in the first world."""
SIZES = {"small": 0.75, "medium": 1.0, "large": 1.22}
_WIDTH, _HEIGHT = 45.0, 42.0
"""What a thing of medium size fits into."""
_MARGIN = 2.6
"""Between things and the picture's border."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How much of its square a drawing fills; it stands on the lower edge, centred."""

    width: float
    height: float
    top: float
    """Height of its middle, where something can stand on it."""


Measure = Callable[[str, str], Extent]
"""Extent of a thing (slug) in a look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A thing with its position."""

    figure: Figure
    side: float
    """Of the square that its drawing fills."""
    x: float
    """Of its middle."""
    width: float
    """Of what is drawn."""
    y: float = GROUND
    """Of its lower edge."""
    shadow: bool = True


def layout(scene: WideScene, measure: Measure) -> list[Placed]:
    """Place every thing so that all are inside the picture, the hindmost first."""
    if scene.relation == "on":
        upper, lower = scene.things
        return _stack(upper, lower, measure)
    things, room = scene.things, 64 - 2 * _MARGIN
    if len(things) == 1:
        placed = _placed(things[0], _WIDTH, _HEIGHT, measure, most=room)
        half = placed.width / 2 + _MARGIN
        return [replace(placed, x=min(max(64 * things[0].x, half), 64 - half))]
    cell = room / len(things)
    return [
        replace(
            _placed(thing, cell - 1.8, 36, measure, most=cell - 0.6), x=_MARGIN + cell * (i + 0.5)
        )
        for i, thing in enumerate(things)
    ]


def _placed(
    figure: Figure, width: float, height: float, measure: Measure, *, most: float
) -> Placed:
    """Fit a thing into a box, smaller or larger as its scene has it, but never beyond a width."""
    extent = measure(figure.slug, figure.look)
    side = min(width / extent.width, height / extent.height) * figure.scale * SIZES[figure.size]
    side = min(side, most / extent.width, (GROUND - _MARGIN) / extent.height)
    return Placed(figure=figure, side=side, x=32.0, width=side * extent.width)


def _stack(upper: Figure, lower: Figure, measure: Measure) -> list[Placed]:
    below = _placed(lower, 34, 28, measure, most=64 - 2 * _MARGIN)
    top = GROUND - below.side * measure(lower.slug, lower.look).top
    above = _placed(upper, 25, 22, measure, most=64 - 2 * _MARGIN)
    extent = measure(upper.slug, upper.look)
    side = min(above.side, (top - _MARGIN) / extent.height)
    return [
        below,
        replace(above, side=side, width=side * extent.width, y=top + 0.6, shadow=False),
    ]
