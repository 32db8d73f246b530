"""How good a word is after so many samples, by the settings of training, on microworld.

    python benchmarks/samples_to_quality.py --json samples.json --plot samples.png

Every variant learns the same concepts from the same pictures and is drawn from at the same marks,
at equal samples. The score is the share of the way from the initialiser's plain similarity to the
drawings' own; differences to the first variant are paired by concept. The rows of the best step so
far are drawn (``--keep best``). Where the variance criterion would have stopped stands beside: its
score there, its mean samples, and the score of that fixed length for all, between the marks.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _common import record
from torch import Tensor

from oneword.backbones.base import Backbone, load
from oneword.concept import Concept
from oneword.config import InversionConfig, ModelConfig
from oneword.evaluation import harness, metrics
from oneword.evaluation.features import Judge, load_judge
from oneword.evaluation.metrics import mean_interval
from oneword.extensions.early_stopping import variance
from oneword.images import from_uint8
from oneword.inversion import Job, Progress, invert_many
from oneword.microworld import concepts
from oneword.prompts import PLAIN_PROMPT


VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "stratified": {"stratified_timesteps": True},
    "plain times": {"timestep_bias": 0.0},
    "noisier times": {"timestep_bias": 1.0},
    "three times the rate": {"learning_rate": 1.5e-2},
    "falling rate": {"lr_scheduler": "linear"},
}
STOP = "where the criterion stops"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Learn with every variant, draw at every mark."""

    half: concepts.Half = "development"
    """Settings are chosen on "development", and reported on "test"."""
    names: tuple[str, ...] = ()
    """Held-out concepts in place of the half's; styles have no plain pictures and are left out."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training, each with other pictures of the concept."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which settings, the first being what others are compared with."""
    marks: tuple[int, ...] = (25, 50, 100, 200, 300)
    """Steps at which a word is drawn; the last ends the training."""
    num_images: int = 8
    """Pictures for each score."""
    num_processes: int = 2
    """Processes of one thread each."""
    json: Path | None = None
    """File for all numbers."""
    plot: Path | None = None
    """File for the curves."""


@cache
def _model() -> tuple[Backbone, Judge]:
    torch.set_num_threads(1)
    backbone = load(ModelConfig())
    return backbone, load_judge(None, backbone)


def main() -> None:
    """Learn, score, print."""
    arguments = tyro.cli(Arguments)
    chosen = arguments.names or tuple(
        c.name for c in concepts.HELD_OUT if c.thing and concepts.half(c) == arguments.half
    )
    pairs = [(seed, name) for seed in arguments.seeds for name in chosen]
    runs: list[dict[str, Any]] = []
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.num_processes, mp_context=context) as pool:
        for found in pool.map(partial(_compare, arguments), pairs):
            runs += found
            done = len(runs) / len(arguments.variants)
            left = (time.monotonic() - started) / done * (len(pairs) - done)
            print(f"{found[0]['concept']}: {left / 60:.0f} min left", file=sys.stderr)
            record(arguments.json, runs=runs)
    print(_table(arguments, runs))
    if arguments.plot is not None:
        _plot(arguments, runs, arguments.plot)


def _compare(arguments: Arguments, pair: tuple[int, str]) -> list[dict[str, Any]]:
    """Learn one concept with every variant, in one batch."""
    seed, name = pair
    concept = concepts.get(name)
    backbone, judge = _model()
    pictures = from_uint8(concepts.concept_pictures(concept, seed=seed, size=backbone.resolution))
    jobs = [
        Job(
            name=variant,
            pictures=pictures,
            config=InversionConfig(
                initializer_token=concept.noun,
                max_train_steps=arguments.marks[-1],
                evaluation_steps=5,
                seed=seed,
                **VARIANTS[variant],
            ),
        )
        for variant in arguments.variants
    ]
    watches = {job.name: _Watch(arguments.marks) for job in jobs}
    results = invert_many(
        backbone,
        jobs,
        slots=len(jobs),
        on_step=lambda progress: watches[progress.job.name](progress),
        stop=lambda _: False,
    )
    plain = judge.images(from_uint8(concepts.concept_plain(concept, size=backbone.resolution)))
    seeds = range(1000 * seed, 1000 * seed + arguments.num_images)

    def similarity(method: harness.Method) -> float:
        return metrics.image_similarity(judge.images(method(PLAIN_PROMPT, seeds)), plain)

    start, goal = similarity(harness.word(backbone, concept.noun)), metrics.self_similarity(plain)
    runs = []
    for job, result in zip(jobs, results, strict=True):
        watch = watches[job.name]
        assert result.concept is not None, result.reason
        reached = {}
        for step, rows in watch.rows.items():
            word = Concept(placeholder_token="S*", rows=rows, provenance={})
            found = similarity(harness.word(backbone, "S*", [word]))
            reached[step] = metrics.share_of_way(found, start, goal)
        runs.append(
            {
                "concept": name,
                "seed": seed,
                "variant": job.name,
                "samples_per_step": job.config.resolved(backbone.family).train_batch_size,
                "reached": {str(mark): reached[mark] for mark in arguments.marks},
                "stop_step": watch.stop_step,
                "stop_reached": reached[watch.stop_step],
                "losses": result.losses,
            }
        )
    return runs


class _Watch:
    """Copies a job's best rows at the marks, and where the criterion would stop it."""

    def __init__(self, marks: Sequence[int]) -> None:
        self.marks = marks
        self.rows: dict[int, dict[str, Tensor]] = {}
        self.best: dict[str, Tensor] = {}
        self.stopped = False
        self.stop_step = marks[-1]

    def __call__(self, progress: Progress) -> None:
        if progress.evaluated and progress.best_step == progress.step:
            self.best = {name: rows.clone() for name, rows in progress.rows.items()}
        asked = dataclasses.replace(
            progress, config=dataclasses.replace(progress.config, early_stopping=True)
        )
        stops = progress.evaluated and not self.stopped and variance(asked)
        if stops:
            self.stopped, self.stop_step = True, progress.step
        if stops or progress.step in self.marks:
            self.rows[progress.step] = dict(self.best)


def _table(arguments: Arguments, runs: list[dict[str, Any]]) -> str:
    """Means over concepts, of which each is the mean over its seeds."""
    samples = runs[0]["samples_per_step"]
    heads = [f"{mark * samples} samples" for mark in arguments.marks]
    lines = [
        "| settings | "
        + " | ".join([*heads, STOP, "its mean samples", "that length for all"])
        + " |",
        "|---" * (len(heads) + 4) + "|",
    ]
    first = _by_concept(arguments, runs, arguments.variants[0])
    for variant in arguments.variants:
        own = _by_concept(arguments, runs, variant)
        cells = []
        for column, values in own.items():
            mean = mean_interval(values)
            text = f"{mean.value:.2f}"
            if variant != arguments.variants[0] and len(values) > 1:
                apart = mean_interval([a - b for a, b in zip(values, first[column], strict=True)])
                text += f" ({apart.value:+.2f} ± {apart.half_width:.2f})"
            elif len(values) > 1:
                text += f" ± {mean.half_width:.2f}"
            cells.append(text)
        stops = [run["stop_step"] * samples for run in runs if run["variant"] == variant]
        stop = sum(stops) / len(stops)
        curve = [mean_interval(own[str(mark)]).value for mark in arguments.marks]
        fixed = np.interp(stop, [mark * samples for mark in arguments.marks], curve)
        cells += [f"{stop:.0f}", f"{fixed:.2f}"]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{len(next(iter(first.values())))} concepts ({arguments.half} half), seeds "
        f"{', '.join(map(str, arguments.seeds))}, {arguments.num_images} pictures per score. Share "
        "of the way from the initialiser to the drawings; in brackets the paired difference to "
        f"{arguments.variants[0]}; ± is the half-width of the 95 % interval over concepts.",
    ]
    return "\n".join(lines)


def _by_concept(
    arguments: Arguments, runs: list[dict[str, Any]], variant: str
) -> dict[str, list[float]]:
    """For each mark, and for the criterion's end: a value for each concept."""
    found: dict[str, list[float]] = {}
    own = [run for run in runs if run["variant"] == variant]
    for name in dict.fromkeys(run["concept"] for run in own):
        group = [run for run in own if run["concept"] == name]
        for mark in map(str, arguments.marks):
            values = [run["reached"][mark] for run in group]
            found.setdefault(mark, []).append(sum(values) / len(values))
        values = [run["stop_reached"] for run in group]
        found.setdefault(STOP, []).append(sum(values) / len(values))
    return found


def _plot(arguments: Arguments, runs: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    samples = runs[0]["samples_per_step"]
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for variant in arguments.variants:
        columns = _by_concept(arguments, runs, variant)
        means = [mean_interval(columns[str(mark)]) for mark in arguments.marks]
        axes.errorbar(
            [mark * samples for mark in arguments.marks],
            [mean.value for mean in means],
            yerr=[mean.half_width for mean in means],
            label=variant,
            capsize=2,
        )
    axes.set_xlabel("samples")
    axes.set_ylabel("share of the way to the drawings")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
