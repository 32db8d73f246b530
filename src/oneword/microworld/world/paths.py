"""Outlines that shapes and places are built from, as skia paths in units of 64 to the picture."""

from __future__ import annotations

import math
from functools import reduce

import skia


Point = tuple[float, float]


def poly(*points: Point, r: float = 0.0) -> skia.Path:
    """Join points to a closed polygon whose corners are rounded by ``r``."""
    path = skia.Path()
    path.moveTo(*points[0])
    for point in points[1:]:
        path.lineTo(*point)
    path.close()
    if not r:
        return path
    soft = skia.Path()
    skia.Paint(PathEffect=skia.CornerPathEffect.Make(r)).getFillPath(path, soft)
    return soft


def rect(x0: float, y0: float, x1: float, y1: float, r: float = 0.0) -> skia.Path:
    """Make a rectangle with corners of radius ``r``."""
    path = skia.Path()
    path.addRRect(skia.RRect.MakeRectXY(skia.Rect.MakeLTRB(x0, y0, x1, y1), r, r))
    return path


def oval(x0: float, y0: float, x1: float, y1: float) -> skia.Path:
    """Make the ellipse inside a box."""
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x0, y0, x1, y1))
    return path


def disc(x: float, y: float, r: float) -> skia.Path:
    """Make a circle."""
    return oval(x - r, y - r, x + r, y + r)


def discs(*circles: tuple[float, float, float]) -> skia.Path:
    """Make one path of many circles, each (x, y, radius)."""
    path = skia.Path()
    for x, y, r in circles:
        path.addCircle(x, y, r)
    return path


def curve(*points: Point, close: bool = False) -> skia.Path:
    """Run quadratic curves through every second point; those between pull."""
    path = skia.Path()
    path.moveTo(*points[0])
    for i in range(1, len(points) - 1, 2):
        path.quadTo(*points[i], *points[i + 1])
    if close:
        path.close()
    return path


def line(*points: Point) -> skia.Path:
    """Join points by an open line."""
    path = skia.Path()
    path.moveTo(*points[0])
    for point in points[1:]:
        path.lineTo(*point)
    return path


def tube(path: skia.Path, width: float) -> skia.Path:
    """Turn a line into the area that it covers when drawn ``width`` wide with round ends."""
    paint = skia.Paint(
        Style=skia.Paint.kStroke_Style,
        StrokeWidth=width,
        StrokeCap=skia.Paint.kRound_Cap,
        StrokeJoin=skia.Paint.kRound_Join,
    )
    area = skia.Path()
    paint.getFillPath(path, area)
    return skia.Simplify(area)


def ring(x: float, y: float, r: float, width: float) -> skia.Path:
    """Make the area of a circular line."""
    return tube(disc(x, y, r), width)


def union(*paths: skia.Path) -> skia.Path:
    """Merge areas to one without inner edges."""
    return reduce(lambda a, b: skia.Op(a, b, skia.PathOp.kUnion_PathOp), paths)


def inside(path: skia.Path, area: skia.Path) -> skia.Path:
    """Cut a path down to what lies inside an area."""
    return skia.Op(path, area, skia.PathOp.kIntersect_PathOp)


def without(path: skia.Path, area: skia.Path) -> skia.Path:
    """Cut an area out of a path."""
    return skia.Op(path, area, skia.PathOp.kDifference_PathOp)


def turned(path: skia.Path, degrees: float, x: float, y: float) -> skia.Path:
    """Turn a path about a point."""
    result = skia.Path()
    path.transform(skia.Matrix.RotateDeg(degrees, skia.Point(x, y)), result)
    return result


def star(x: float, y: float, r: float) -> skia.Path:
    """Make a five-pointed star with one point up."""
    corners = []
    for i in range(10):
        reach = r if i % 2 == 0 else 0.48 * r
        angle = math.pi * i / 5
        corners.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return poly(*corners)
