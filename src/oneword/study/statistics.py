"""From rows to means with intervals over concepts, whose seeds belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oneword.evaluation.metrics import mean_interval, t_95, t_p
from oneword.study.plan import BASE
from oneword.study.prompt_sets import KINDS, PHOTO, PLAIN


Row = Mapping[str, Any]
Runs = dict[str, dict[int, float]]
"""A value by concept and seed."""
EDITS = "edits"
"""All kinds of edit prompts together."""
EVERY = "every prompt"
"""All kinds of prompts that have the score."""
METRICS: dict[str, tuple[str, str]] = {
    "image similarity": (PHOTO, "image_similarity"),
    "text similarity": (EDITS, "text_similarity"),
    "text similarity (code)": (EDITS, "text_similarity_code"),
    "DINO similarity": (PHOTO, "dino_similarity"),
    "diversity": (PHOTO, "diversity"),
    "plain similarity": (PLAIN, "plain_similarity"),
    "silhouette overlap": (PLAIN, "silhouette_overlap"),
    "concept seen": (PHOTO, "seen"),
    "edits obeyed": (EDITS, "obeyed"),
    "structure kept": (EDITS, "structure_kept"),
    "background leaked": (EVERY, "background_leaked"),
}
"""Scores of a run: the prompts that they are computed from, and the field."""
EDITED, SECONDS = "image similarity of edits", "seconds to draw"
BOTH, BOTH_SEEN = "mean of both similarities", "thing and prompt seen"
SEEN_EDITED = "concept seen in edits"
BESIDE: dict[str, tuple[str, tuple[str, ...]]] = {
    EDITED: (EDITS, ("image_similarity",)),
    BOTH: (EDITS, ("image_similarity", "text_similarity")),
    BOTH_SEEN: (EDITS, ("seen_and_obeyed",)),
    SEEN_EDITED: (EDITS, ("seen",)),
    SECONDS: (PHOTO, ("draw_time_s",)),
}
"""Further scores, used only by findings: the prompts, and the fields that are averaged."""
IMAGE, TEXT, SHAPE = "image similarity", "text similarity", "silhouette overlap"
STRUCTURE, SEEN = "structure kept", "concept seen"
ORACLE: dict[str, str] = {
    IMAGE: SEEN,
    TEXT: "edits obeyed",
    EDITED: SEEN_EDITED,
    BOTH: BOTH_SEEN,
}
"""What the oracle of the embedded models reads where a CLIP measures similarity."""
OBJECTS, STYLES = "objects", "styles"
"""Kinds of concepts; their edit prompts differ, so their scores are kept apart."""
_LEAST_SETUPS = 4  # of a correlation over setups
_FLAT = 1e-9  # differences of a score that are none
_MOST_CONCEPTS = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over concepts with its 95 % interval by Student's t, the study's only kind."""

    value: float
    low: float
    """NaN with a single concept."""
    high: float
    num: int
    """Number of concepts."""
    runs: int

    @property
    def half_width(self) -> float:
        """Half of the interval; NaN with a single concept."""
        return (self.high - self.low) / 2

    def told(self, form: str = ".3f") -> str:
        """The mean, followed by the interval if there is one.

        Args:
            form: Format of the mean, for ``format``.
        """
        mean = format(self.value, form)
        return mean if math.isnan(self.low) else f"{mean} ± {self.half_width:.3f}"

    def __str__(self) -> str:
        return self.told()


def apart(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of objects and of styles, which have different prompts; objects first, if present."""
    found: dict[str, list[Row]] = {OBJECTS: [], STYLES: []}
    for row in rows:
        found[STYLES if row.get("family") == "style" else OBJECTS].append(row)
    return {kind: own for kind, own in found.items() if own}


def select(
    rows: Sequence[Row], *, setup: str, guidance_scale: float | None, set_size: int | None = None
) -> list[Row]:
    """Rows of one setup's prompts; ``set_size`` is that of the sweep."""
    return [
        row
        for row in rows
        if row["setup"] == setup
        and row.get("set_size") == set_size
        and row.get("guidance_scale") == guidance_scale
    ]


def values(rows: Sequence[Row], metric: str) -> Runs:
    """A score of each run; if it has several prompts, they count equally."""
    kind, names = BESIDE[metric] if metric in BESIDE else _single(metric)
    kinds = {EDITS: KINDS, EVERY: (PHOTO, PLAIN, *KINDS)}.get(kind, (kind,))
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        own = [row[name] for name in names if row.get(name) is not None]
        if row["kind"] in kinds and len(own) == len(names):
            mean = math.fsum(own) / len(own)
            found.setdefault(row["concept"], {}).setdefault(row["seed"], []).append(mean)
    return {
        concept: {seed: math.fsum(v) / len(v) for seed, v in seeds.items()}
        for concept, seeds in found.items()
    }


def _single(metric: str) -> tuple[str, tuple[str, ...]]:
    kind, name = METRICS[metric]
    return kind, (name,)


def concept_means(runs: Runs) -> dict[str, float]:
    """Mean over the seeds of each concept."""
    return {c: math.fsum(seeds.values()) / len(seeds) for c, seeds in runs.items()}


def paired(runs: Runs, others: Runs) -> Runs:
    """Differences between runs that both have."""
    found: Runs = {}
    for concept, seeds in runs.items():
        both = {s: v - others[concept][s] for s, v in seeds.items() if s in others.get(concept, {})}
        if both:
            found[concept] = both
    return found


def estimate(runs: Runs) -> Estimate | None:
    """Mean over concepts with its interval; ``None`` if there are no runs.

    A concept counts once, with the mean of its seeds, because these are not independent. Student's
    t is used for a few independent values; a bootstrap interval would be too narrow.
    """
    means = list(concept_means(runs).values())
    if not means:
        return None
    mean = mean_interval(means)
    num_runs = sum(len(seeds) for seeds in runs.values())
    return _interval(mean.value, mean.half_width, len(means), num_runs)


def _interval(value: float, half_width: float, num: int, runs: int) -> Estimate:
    return Estimate(value, value - half_width, value + half_width, num, runs)


def p_value(mean: Estimate, bound: float) -> float:
    """Two-sided p of a mean over concepts against a bound, by the test of its interval."""
    error = mean.half_width / t_95(mean.num - 1)
    away = mean.value - bound
    if error < _FLAT:
        return 1.0 if abs(away) < _FLAT else 0.0
    return t_p(away / error, mean.num - 1)


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for their number, so that the share of studies with any error is kept.

    Source:
        Holm 1979, https://www.jstor.org/stable/4615733.
    """
    found, least = [1.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - place) * values[i]))
        found[i] = least
    return found


def concepts_needed(mean: Estimate, bound: float) -> int | None:
    """With how many concepts the interval would leave the bound out, mean and spread unchanged.

    Returns:
        ``None`` where no number up to 10,000 would do.
    """
    deviation = mean.half_width / t_95(mean.num - 1) * math.sqrt(mean.num)
    away = abs(mean.value - bound)

    def decides(num: int) -> bool:
        return t_95(num - 1) * deviation / math.sqrt(num) < away

    if not decides(_MOST_CONCEPTS):
        return None
    few, many = 1, _MOST_CONCEPTS  # the interval narrows with every concept
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if decides(middle) else (middle, many)
    return many


def correlation(points: Mapping[str, tuple[Runs, Runs]]) -> Estimate | None:
    """Pearson's correlation of two scores over setups, of the setups' means over concepts.

    A point per setup, as in the paper's figure. The interval shows how much it depends on the
    concepts: it is Student's t of the jackknife's pseudo-values, each of which leaves one concept
    out.

    Args:
        points: Both scores' runs by setup; a concept missing in one setup is left out in all.

    Returns:
        ``None`` with fewer than four setups, or if they do not differ.

    Source:
        Tukey 1958, doi:10.1214/aoms/1177706647, for the jackknife.
    """
    means = {
        setup: (concept_means(first), concept_means(second))
        for setup, (first, second) in points.items()
        if first and second
    }
    shared = [own.keys() for pair in means.values() for own in pair]
    concepts = sorted(set.intersection(*map(set, shared))) if shared else []

    def over_setups(kept: Sequence[str]) -> float:
        plane = [[math.fsum(own[c] for c in kept) for own in pair] for pair in means.values()]
        first, second = zip(*plane, strict=True)
        if len(plane) < _LEAST_SETUPS or min(np.ptp(first), np.ptp(second)) < _FLAT:
            return math.nan
        return float(np.corrcoef(first, second)[0, 1])

    value = over_setups(concepts) if concepts else math.nan
    if math.isnan(value):
        return None
    num = len(concepts)
    without = [over_setups([c for c in concepts if c != one]) for one in concepts]
    half_width = math.nan
    if num > 1 and not any(map(math.isnan, without)):
        half_width = mean_interval([num * value - (num - 1) * own for own in without]).half_width
    runs = sum(len(seeds) for first, _ in points.values() for seeds in first.values())
    return _interval(value, half_width, num, runs)


def table(
    rows: Sequence[Row], setups: Sequence[str], guidance_scale: float
) -> dict[str, dict[str, Estimate]]:
    """Every score of every setup that has rows; and "Δ" scores against the method."""
    by_setup = {s: select(rows, setup=s, guidance_scale=guidance_scale) for s in setups}
    found: dict[str, dict[str, Estimate]] = {}
    for setup, own in by_setup.items():
        line: dict[str, Estimate] = {}
        for metric in METRICS:
            runs = values(own, metric)
            mean = estimate(runs)
            if mean is not None:
                line[metric] = mean
            change = estimate(paired(runs, values(by_setup.get(BASE, []), metric)))
            if change is not None and setup != BASE:
                line[f"Δ {metric}"] = change
        if line:
            found[setup] = line
    return found
