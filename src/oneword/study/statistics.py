"""From rows to means with intervals: over concepts, whose seeds belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oneword.evaluation.metrics import Mean, mean_interval
from oneword.study.plan import BASE
from oneword.study.prompt_sets import KINDS, PHOTO, PLAIN


Row = Mapping[str, Any]
Runs = dict[str, dict[int, float]]
"""A value by concept and seed."""
EDITS = "edits"
"""All kinds of edit prompts together."""
EVERY = "every prompt"
"""All kinds of prompts together, those that have the score."""
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
"""Scores of a run: the prompts that they are read from, and the field."""
IMAGE, TEXT, SHAPE = "image similarity", "text similarity", "silhouette overlap"
STRUCTURE = "structure kept"
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over concepts with its 95 % bootstrap interval."""

    value: float
    low: float
    """NaN with a single concept."""
    high: float
    num: int
    """Concepts."""
    runs: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def select(
    rows: Sequence[Row], *, setup: str, guidance_scale: float | None, set_size: int | None = None
) -> list[Row]:
    """Rows of prompts of one setup; ``set_size`` is that of the sweep."""
    return [
        row
        for row in rows
        if row["setup"] == setup
        and row.get("set_size") == set_size
        and row.get("guidance_scale") == guidance_scale
    ]


def values(rows: Sequence[Row], metric: str) -> Runs:
    """A score of each run; where it is of several prompts, they count alike."""
    kind, name = METRICS[metric]
    kinds = {EDITS: KINDS, EVERY: (PHOTO, PLAIN, *KINDS)}.get(kind, (kind,))
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["kind"] in kinds and row.get(name) is not None:
            found.setdefault(row["concept"], {}).setdefault(row["seed"], []).append(row[name])
    return {
        concept: {seed: math.fsum(v) / len(v) for seed, v in seeds.items()}
        for concept, seeds in found.items()
    }


def concept_means(runs: Runs) -> dict[str, float]:
    """Mean over the seeds of each concept."""
    return {c: math.fsum(seeds.values()) / len(seeds) for c, seeds in runs.items()}


def paired(runs: Runs, others: Runs) -> Runs:
    """Differences of the runs that both have."""
    found: Runs = {}
    for concept, seeds in runs.items():
        both = {s: v - others[concept][s] for s, v in seeds.items() if s in others.get(concept, {})}
        if both:
            found[concept] = both
    return found


def estimate(runs: Runs) -> Estimate | None:
    """Mean over concepts with a bootstrap interval; ``None`` where there is no run.

    Whole concepts are drawn, with all their seeds: seeds of one concept depend on it.
    """
    means = np.array(list(concept_means(runs).values()))
    if not len(means):
        return None
    num_runs = sum(len(seeds) for seeds in runs.values())
    if len(means) == 1:
        return Estimate(float(means[0]), math.nan, math.nan, 1, num_runs)
    rng = np.random.default_rng(np.random.SeedSequence(2022))
    drawn = means[rng.integers(len(means), size=(_RESAMPLES, len(means)))].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(means.mean()), float(low), float(high), len(means), num_runs)


def student(runs: Runs) -> Mean | None:
    """Mean over concepts with Student's interval, which a few concepts need; ``None`` below two."""
    means = list(concept_means(runs).values())
    return mean_interval(means) if len(means) > 1 else None


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
