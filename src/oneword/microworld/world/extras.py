"""What creatures may wear: drawn at a shape's anchors, in the second part's colour."""

from __future__ import annotations

from collections.abc import Sequence

from oneword.microworld.world.anchors import Anchors
from oneword.microworld.world.paths import curve, disc, line, poly, rect, ring, tube, union
from oneword.microworld.world.pen import Pen


def draw_behind(pen: Pen, extras: Sequence[str], wears: Anchors) -> None:
    """Draw what hangs behind its wearer."""
    if "cape" in extras:
        x, y, width = wears.neck
        (x0, y0), (x1, y1) = wears.hem
        half, mx, my = 0.5 * width, (x0 + x1) / 2, (y0 + y1) / 2
        pen.extra(
            curve(
                (x - half, y),
                (0.4 * x + 0.6 * x0 - 3, 0.6 * y + 0.4 * y0),
                (x0, y0),
                ((x0 + mx) / 2 + 1, (y0 + my) / 2 - 3),
                (mx, my),
                ((x1 + mx) / 2 - 1, (y1 + my) / 2 - 3),
                (x1, y1),
                (0.4 * x + 0.6 * x1 + 3, 0.6 * y + 0.4 * y1),
                (x + half, y),
                close=True,
            )
        )
    if "antlers" in extras:
        x, y, width = wears.head
        branches = []
        for w in (-width, width):
            stem = curve((x + 0.22 * w, y + 3), (x + 0.3 * w, y - 8), (x + 0.62 * w, y - 13))
            inner = line((x + 0.33 * w, y - 6), (x + 0.16 * w, y - 13))
            outer = line((x + 0.42 * w, y - 8.5), (x + 0.72 * w, y - 6))
            branches += [tube(path, 2.6) for path in (stem, inner, outer)]
        pen.extra(union(*branches))


def draw_extras(pen: Pen, extras: Sequence[str], wears: Anchors) -> None:
    """Draw what is in front of its wearer."""
    x, y, width = wears.neck
    if "cape" in extras:
        pen.extra(
            tube(curve((x - 0.5 * width, y - 0.6), (x, y + 3.4), (x + 0.5 * width, y - 0.6)), 2.8)
        )
    if "scarf" in extras:
        pen.extra(rect(x + 0.1 * width, y, x + 0.1 * width + 5.4, y + 12, 1.4))
        pen.extra(
            tube(curve((x - 0.5 * width, y - 0.4), (x, y + 3.6), (x + 0.5 * width, y - 0.4)), 5)
        )
    if "bow" in extras:
        for side in (-1, 1):
            pen.extra(
                poly((x, y + 1.6), (x + 8.4 * side, y - 3.6), (x + 8.4 * side, y + 6.8), r=1.6)
            )
        pen.extra(disc(x, y + 1.6, 2.5))
    if "glasses" in extras:
        (x0, y0), (x1, y1) = wears.eyes
        r = min(5.0, 0.5 * abs(x1 - x0) - 0.2)
        bridge = (
            tube(line((x0 + r, y0), (x1 - r, y1)), 1.7)
            if x1 - x0 > 2 * r
            else disc(0.5 * (x0 + x1), y0, 1)
        )
        pen.extra(union(ring(x0, y0, r, 2.2), ring(x1, y1, r, 2.2), bridge))
    if "crown" in extras:
        x, y, width = wears.head
        w = 0.2 * width + 2.6
        pen.extra(
            poly((x - w, y + 1), (x - 1.15 * w, y - 10), (x - 0.5 * w, y - 5), (x, y - 12),
                 (x + 0.5 * w, y - 5), (x + 1.15 * w, y - 10), (x + w, y + 1), r=0.8)
        )  # fmt: skip
