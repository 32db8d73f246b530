"""The artists' drawings as filled areas, so that every style of the world can redraw them.

The flat stickers and the line icons are nearly all plain filled paths. What holds gradients, masks
or filters is no vector drawing here, and stays a sprite in its own look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from xml.etree import ElementTree

import skia

from oneword.microworld.world import artwork
from oneword.microworld.world.styles import Rgb, mix


@dataclass(frozen=True, slots=True)
class Area:
    """One filled area of a drawing."""

    path: skia.Path
    rgb: Rgb


_NAMESPACES = re.compile(r"\{[^}]*\}")
_UNREAD = {"linearGradient", "radialGradient", "mask", "filter", "use", "image", "text"}
_NAMED_COLOURS: dict[str, Rgb] = {"black": (0, 0, 0), "white": (255, 255, 255)}


@cache
def areas(slug: str, look: str) -> tuple[Area, ...]:
    """A drawing's areas from back to front; none where it is no vector drawing.

    They are scaled so that the longer side is 1, centred on x = 0 and standing on y = 0.

    Args:
        slug: Which thing.
        look: One of ``artwork.VECTOR_LOOKS``.
    """
    art = artwork.artworks(look)[slug]
    root = ElementTree.fromstring(art.svg)
    kinds = {_NAMESPACES.sub("", node.tag) for node in root.iter()}
    if kinds & _UNREAD or not all(_is_whole(node) for node in root.iter() if _is(node, "clipPath")):
        return ()
    found = list(_read(root, {"fill": "#000000"}))
    if not found:
        return ()
    bounds = skia.Rect.MakeEmpty()
    for area in found:
        bounds.join(area.path.computeTightBounds())
    scale = 1 / max(bounds.width(), bounds.height())
    place = skia.Matrix.Scale(scale, scale)
    place.preTranslate(-bounds.centerX(), -bounds.bottom())
    for area in found:
        area.path.transform(place)
    return tuple(found)


def _is(node: ElementTree.Element, kind: str) -> bool:
    return _NAMESPACES.sub("", node.tag) == kind


def _is_whole(clip: ElementTree.Element) -> bool:
    """Whether a clip is the whole view box, so that it cuts nothing."""
    return all(re.match(r"M0 0h3[23]v3[23]H0", child.get("d", "")) for child in clip)


def _read(node: ElementTree.Element, inherited: dict[str, str]) -> Iterator[Area]:
    """Read a node's areas; a group's colours hold for what is in it."""
    style = inherited | {
        key: node.attrib[key]
        for key in ("fill", "fill-rule", "stroke", "stroke-width", "stroke-linecap")
        if key in node.attrib
    }
    # what is drawn half transparently lies on something pale, mostly
    veil = 1 - float(node.get("opacity", "1"))
    for child in node:
        if not (_is(child, "defs") or _is(child, "clipPath")):
            yield from _read(child, style)
    path = _outline(node)
    if path is None:
        return
    path.setFillType(
        skia.PathFillType.kEvenOdd
        if style.get("fill-rule") == "evenodd"
        else skia.PathFillType.kWinding
    )
    if style["fill"] != "none":
        yield Area(path, mix(_rgb(style["fill"]), (255, 255, 255), veil))
    if style.get("stroke", "none") != "none":
        paint = skia.Paint(
            Style=skia.Paint.kStroke_Style,
            StrokeWidth=float(style.get("stroke-width", "1")),
            StrokeCap=skia.Paint.kRound_Cap
            if style.get("stroke-linecap") == "round"
            else skia.Paint.kButt_Cap,
        )
        line = skia.Path()
        paint.getFillPath(path, line)
        yield Area(line, mix(_rgb(style["stroke"]), (255, 255, 255), veil))


def _outline(node: ElementTree.Element) -> skia.Path | None:
    number = {key: float(node.get(key, "0")) for key in ("x", "y", "cx", "cy", "r", "rx", "ry")}
    path = skia.Path()
    if _is(node, "path"):
        path = parse(node.get("d", ""))
    elif _is(node, "circle"):
        path.addCircle(number["cx"], number["cy"], number["r"])
    elif _is(node, "ellipse"):
        path.addOval(
            skia.Rect.MakeLTRB(
                number["cx"] - number["rx"], number["cy"] - number["ry"],
                number["cx"] + number["rx"], number["cy"] + number["ry"],
            )
        )  # fmt: skip
    elif _is(node, "rect"):
        box = skia.Rect.MakeXYWH(
            number["x"], number["y"], float(node.get("width", "0")), float(node.get("height", "0"))
        )
        path.addRRect(skia.RRect.MakeRectXY(box, number["rx"], number["ry"] or number["rx"]))
    else:
        return None
    if node.get("transform"):
        path.transform(_matrix(node.attrib["transform"]))
    return path


_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FLAG = re.compile(r"[01]")
_COUNTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}
"""Numbers that a command of a path takes; it goes on as long as more follow."""


def parse(text: str) -> skia.Path:
    """Read the path data of an SVG document.

    Args:
        text: All commands, such as "M1 2l3 0a1 1 0 01 2 2z"; numbers may lie without a space.
    """
    path = skia.Path()
    x = y = start_x = start_y = 0.0
    pull: tuple[str, float, float] = ("", 0.0, 0.0)  # the last curve's kind and control point
    for command, numbers in _commands(text):
        kind = command.upper()
        if command.islower() and kind != "A":
            numbers = [n + (y if kind == "V" or i % 2 else x) for i, n in enumerate(numbers)]
        elif command == "a":
            numbers = [*numbers[:5], numbers[5] + x, numbers[6] + y]
        mirrored = (2 * x - pull[1], 2 * y - pull[2])
        control = (x, y)
        if kind == "Z":
            path.close()
            x, y, pull = start_x, start_y, ("", 0.0, 0.0)
            continue
        if kind == "H":
            numbers = [numbers[0], y]
        elif kind == "V":
            numbers = [x, numbers[0]]
        if kind == "M":
            path.moveTo(*numbers)
            start_x, start_y = numbers
        elif kind in "LHV":
            path.lineTo(*numbers)
        elif kind in "CS":
            first = mirrored if pull[0] == "C" else (x, y)
            numbers = numbers if kind == "C" else [*first, *numbers]
            path.cubicTo(*numbers)
            control, kind = (numbers[2], numbers[3]), "C"
        elif kind in "QT":
            first = mirrored if pull[0] == "Q" else (x, y)
            numbers = numbers if kind == "Q" else [*first, *numbers]
            path.quadTo(*numbers)
            control, kind = (numbers[0], numbers[1]), "Q"
        else:
            rx, ry, tilt, large, sweep = numbers[:5]
            path.arcTo(
                rx, ry, tilt,
                skia.Path.ArcSize.kLarge_ArcSize if large else skia.Path.ArcSize.kSmall_ArcSize,
                skia.PathDirection.kCW if sweep else skia.PathDirection.kCCW,
                numbers[5], numbers[6],
            )  # fmt: skip
        x, y = numbers[-2:]
        pull = (kind, *control)
    return path


def _commands(text: str) -> Iterator[tuple[str, list[float]]]:
    """Split path data into commands with their numbers; one more pair after "M" is a line."""
    at, command = 0, ""
    while True:
        while at < len(text) and text[at] in " ,\n\t":
            at += 1
        if at == len(text):
            return
        if text[at].isalpha():
            command = text[at]
            at += 1
        elif command in "Mm":
            command = "L" if command == "M" else "l"
        numbers = []
        for i in range(_COUNTS[command.upper()]):
            pattern = _FLAG if command in "Aa" and i in (3, 4) else _NUMBER
            found = pattern.search(text, at)
            if found is None:
                raise ValueError(f"path data must hold all numbers of {command}, got {text!r}")
            numbers.append(float(found[0]))
            at = found.end()
        yield command, numbers


def _matrix(text: str) -> skia.Matrix:
    """Read a list of transformations such as "rotate(30 4 5) translate(1 2)"."""
    matrix = skia.Matrix()
    for kind, inside in re.findall(r"(\w+)\(([^)]*)\)", text):
        values = [float(n) for n in re.findall(r"-?\d*\.?\d+(?:e-?\d+)?", inside)]
        if kind == "rotate":
            x, y = values[1:] or (0.0, 0.0)
            matrix.preRotate(values[0], x, y)
        elif kind == "translate":
            matrix.preTranslate(values[0], values[1] if len(values) > 1 else 0.0)
        elif kind == "scale":
            matrix.preScale(values[0], values[-1])
        else:
            a, b, c, d, e, f = values
            matrix.preConcat(skia.Matrix.MakeAll(a, c, e, b, d, f, 0, 0, 1))
    return matrix


def _rgb(text: str) -> Rgb:
    if text in _NAMED_COLOURS:
        return _NAMED_COLOURS[text]
    digits = text.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    red, green, blue = (int(digits[i : i + 2], 16) for i in (0, 2, 4))
    return red, green, blue
