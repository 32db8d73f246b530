"""The study's figures, as SVG and PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from oneword.evaluation.metrics import Mean
from oneword.study import statistics
from oneword.study.plan import BASE, REFERENCES, UNTRAINED
from oneword.study.statistics import IMAGE, TEXT, Estimate, Row


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: Any = {
    "svg.hashsalt": "oneword",  # the same figure is the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
_TEXT_AXIS = "text similarity (editability)"
_IMAGE_AXIS = "image similarity (reconstruction)"


def _figure(columns: int = 1, *, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    return stream.getvalue()


def draw(
    rows: Sequence[Row], setups: Sequence[str], guidance_scale: float
) -> dict[str, tuple[str, Figure]]:
    """Every figure for which there are rows: its caption and the figure, by name."""
    from matplotlib import rc_context

    found: dict[str, tuple[str, Figure]] = {}
    with rc_context(_STYLE):
        for name, caption, figure in (
            ("plane", _PLANE, _plane(rows, setups, guidance_scale)),
            ("set-size", _SET_SIZE, _set_size(rows, guidance_scale)),
            ("learning-rate", _RATE, _learning_rate(rows, setups, guidance_scale)),
            ("guidance", _GUIDANCE, _guidance(rows, setups)),
        ):
            if figure is not None:
                found[name] = caption, figure
    return found


_PLANE = (
    "Reconstruction against editability. Each point is a setup: the mean over concepts with 95 % "
    "intervals. The table of differences compares setups on the same concepts. "
    "Filled: learned; hollow: references. The dashed line is the front: no learned setup is above "
    "it on both scores."
)
_SET_SIZE = (
    "Scores against the number of training pictures, with the references of the same concepts. "
    "For every size, image similarity is measured against the same pictures, the largest set."
)
_RATE = "Both scores of the word against the learning rate it was trained with."
_GUIDANCE = "Both scores against the guidance scale used for drawing."

Point = tuple[Estimate, Estimate]
"""Text and image similarity."""


def _point(
    rows: Sequence[Row], setup: str, scale: float, set_size: int | None = None
) -> Point | None:
    own = statistics.select(rows, setup=setup, guidance_scale=scale, set_size=set_size)
    text, image = (statistics.estimate(statistics.values(own, m)) for m in (TEXT, IMAGE))
    return None if text is None or image is None else (text, image)


def _bars(estimate: Estimate) -> list[list[float]] | None:
    if math.isnan(estimate.low):
        return None
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    return [[max(0.0, below)], [max(0.0, above)]]


def _mark(
    axes: Axes, point: Point, label: str, colour: str, *, reference: bool, legend: str = ""
) -> None:
    """A point with its intervals and its label."""
    text, image = point
    _, _, bars = axes.errorbar(
        text.value,
        image.value,
        xerr=_bars(text),
        yerr=_bars(image),
        fmt="s" if reference else "o",
        color=colour,
        markerfacecolor="white" if reference else colour,
        elinewidth=0.8,
        markersize=6,
        label=legend or label,
        zorder=3,
    )
    for bar in bars:  # the marks of close setups must stay legible
        bar.set_alpha(0.4)
    axes.annotate(
        label, (text.value, image.value), xytext=(5, 4), textcoords="offset points", fontsize=7.5
    )


def _colours(count: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    names = ("tab20", "tab20b")
    return [to_hex(colormaps[names[i // 20 % 2]](i % 20)) for i in range(count)]


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other beats on both scores, ordered by the first score."""
    best = [
        name
        for name, (x, y) in points.items()
        if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


def _plane(rows: Sequence[Row], setups: Sequence[str], scale: float) -> Figure | None:
    points = {s: p for s in setups if (p := _point(rows, s, scale)) is not None}
    if not points:
        return None
    figure, (axes,) = _figure(size=(8.2, 5.6))
    learned = {s: (p[0].value, p[1].value) for s, p in points.items() if s not in UNTRAINED}
    line = [learned[name] for name in front(learned)]
    if len(line) > 1:
        axes.plot(*zip(*line, strict=True), "--", color="0.5", linewidth=1, zorder=1)
    hull = _hull(list(learned.values()))
    if len(hull) > 2:
        axes.fill(*zip(*hull, strict=True), color="0.5", alpha=0.08, zorder=0)
    colours = _colours(len(points))
    for number, ((setup, point), colour) in enumerate(zip(points.items(), colours, strict=True), 1):
        _mark(axes, point, str(number), colour, reference=setup in UNTRAINED,
              legend=f"{number} {setup}")  # fmt: skip
    axes.set(xlabel=_TEXT_AXIS, ylabel=_IMAGE_AXIS)
    axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


_PEOPLE = (
    "Mean ranks given by people, with 95 % intervals over people; the upper right is best. As in "
    "figure 10(b) of the paper."
)


def people(points: Mapping[str, tuple[Mean, Mean]]) -> tuple[str, Figure]:
    """People's preferences: their two mean ranks as a plane, as in the paper's figure 10(b).

    Args:
        points: Mean rank by match to the text and by likeness, by model; 1 is best.

    Returns:
        The caption and the figure.
    """
    from matplotlib import rc_context

    def estimate(mean: Mean) -> Estimate:
        low, high = mean.value - mean.half_width, mean.value + mean.half_width
        return Estimate(mean.value, low, high, mean.num, mean.num)

    with rc_context(_STYLE):
        figure, (axes,) = _figure(size=(6.4, 4.8))
        for (name, (match, likeness)), colour in zip(
            points.items(), _colours(len(points)), strict=True
        ):
            point = estimate(match), estimate(likeness)
            _mark(axes, point, name, colour, reference=name in UNTRAINED)
        axes.invert_xaxis()
        axes.invert_yaxis()
        axes.set(xlabel="mean rank by match to the text", ylabel="mean rank by likeness")
    return _PEOPLE, figure


def _hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Convex hull, anticlockwise."""
    ordered = sorted(set(points))

    def half(those: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for p in those:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], p) <= 0:
                chain.pop()
            chain.append(p)
        return chain

    return half(ordered)[:-1] + half(reversed(ordered))[:-1]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _set_size(rows: Sequence[Row], scale: float) -> Figure | None:
    swept = [row for row in rows if row.get("set_size")]
    sizes = sorted({row["set_size"] for row in swept if row["setup"] == BASE})
    found = [(n, p) for n in sizes if (p := _point(rows, BASE, scale, n)) is not None]
    if len(found) < 2:
        return None
    figure, (plane, course) = _figure(2, size=(10.5, 4.4))
    plane.plot(
        [p[0].value for _, p in found], [p[1].value for _, p in found], color="0.6", linewidth=0.8
    )
    for (size, point), colour in zip(found, _shades(len(found)), strict=True):
        _mark(plane, point, str(size), colour, reference=False)
    others = [setup for setup in REFERENCES if any(row["setup"] == setup for row in swept)]
    for setup, colour in zip(others, _colours(len(others)), strict=True):
        size = max(row["set_size"] for row in swept if row["setup"] == setup)
        point = _point(rows, setup, scale, size)
        if point is not None:
            _mark(plane, point, setup, colour, reference=True)
    plane.set(xlabel=_TEXT_AXIS, ylabel=_IMAGE_AXIS)
    _two_courses(course, [(float(n), p) for n, p in found])
    course.set(xlabel="training pictures")
    return figure


def _shades(count: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](x)) for x in np.linspace(0.05, 0.9, count)]


def _two_courses(axes: Axes, points: Sequence[tuple[float, Point]], name: str = "") -> None:
    """Both scores over a variable, each with its band."""
    for index, what, style in ((1, IMAGE, "-"), (0, TEXT, "--")):
        x = [at for at, _ in points]
        means = [p[index] for _, p in points]
        label = f"{name}, {what}" if name else what
        (line,) = axes.plot(x, [m.value for m in means], style, marker="o", label=label)
        if not any(math.isnan(m.low) for m in means):
            axes.fill_between(
                x, [m.low for m in means], [m.high for m in means],
                color=line.get_color(), alpha=0.15, linewidth=0,
            )  # fmt: skip
    axes.set_ylabel("cosine")
    axes.legend(fontsize=7.5, frameon=False)


def _learning_rate(rows: Sequence[Row], setups: Sequence[str], scale: float) -> Figure | None:
    """Setups that are the method with another rate."""
    found = []
    for setup in setups:
        plain = setup in (BASE, "high-lr", "low-lr")
        changed = setup.partition(":")
        one_change = changed[0] == BASE and "," not in changed[2] and "rate" in changed[2]
        own = [row for row in rows if row["setup"] == setup and not row.get("set_size")]
        rates = {row["learning_rate"] for row in own if row.get("learning_rate")}
        point = _point(rows, setup, scale)
        if (plain or one_change) and len(rates) == 1 and point is not None:
            found.append((float(rates.pop()), point))
    if len(found) < 2:
        return None
    figure, (axes,) = _figure(size=(6, 4))
    _two_courses(axes, sorted(found, key=lambda pair: pair[0]))
    axes.set(xscale="log", xlabel="learning rate of the rows, absolute")
    return figure


def _guidance(rows: Sequence[Row], setups: Sequence[str]) -> Figure | None:
    lines: dict[str, list[tuple[float, Point]]] = {}
    for setup in setups:
        scales = sorted(
            {r["guidance_scale"] for r in rows if r["setup"] == setup and r.get("guidance_scale")}
        )
        points = [(g, p) for g in scales if (p := _point(rows, setup, g)) is not None]
        if len(points) > 1:
            lines[setup] = points
    if not lines:
        return None
    figure, panels = _figure(len(lines), size=(4.6 * len(lines), 3.8))
    for axes, (setup, points) in zip(panels, lines.items(), strict=True):
        _two_courses(axes, points)
        axes.set(xlabel="guidance scale", title=setup)
    return figure
