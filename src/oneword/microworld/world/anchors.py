"""Where on a shape other things, worn ones and marks belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oneword.microworld.world.paths import Point
from oneword.microworld.world.pen import Pen


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchors:
    """Where a creature or a person wears things."""

    head: tuple[float, float, float]
    """Middle of a hat's brim, and the head's width there."""
    neck: tuple[float, float, float] = (0, 0, 0)
    """Middle, and width."""
    eyes: tuple[Point, Point] = ((0, 0), (0, 0))
    hem: tuple[Point, Point] = ((0, 0), (0, 0))
    """Lower corners of a cape."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How a noun is drawn, and where other things meet it."""

    draw: Callable[[Pen, float], None]
    """Draws with a pen; the number scales the second part."""
    badge: tuple[float, float, float] = (0, 0, 0)
    """Middle and radius of a mark on the body."""
    wears: Anchors | None = None
    top: float = 0.0
    """Height of the surface that another thing can stand on, above x = 0."""
    mouth: tuple[float, float, float, float] | None = None
    """Opening of a container: middle, width, and half the height of its ellipse."""
