r"""How good a word is after so many samples, by the settings of training, on microworld.

    python benchmarks/samples_to_quality.py --json samples.json --plot samples.png
    python benchmarks/samples_to_quality.py --half test --variants default full-length \
        full-length-low full-length-high --json stopping.json

Every variant learns the same concepts from the same pictures and is drawn from at the same marks,
at equal samples; those of full length go on to 20,000. Scores are the share of the way from the
initialiser's plain similarity to the drawings' own, and the text similarity of edit prompts;
differences to the first variant are paired by concept. Beside them stand the lowest loss so far on
the fixed batch, which no setting but captions changes, and what the oracle sees in the plain
pictures. The rows of the best step so far are drawn (``--keep best``), or the last ones or their
average where a variant keeps those. Where the variance criterion would have stopped stands beside:
its score there, its mean samples, and the score of that fixed length for all, between the marks.
Edits are the shares of pictures of edit prompts in which the oracle sees the scene and the style
that were asked for, where the criterion would have stopped, or at the end of a full length.

What the file of ``--json`` holds already is not learned again.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import dataclasses
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import tyro
from _common import record, recorded
from torch import Tensor

from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation import harness, metrics, world
from oneword.evaluation.features import Judge, load_judge
from oneword.evaluation.metrics import mean_interval
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.making.oracle import Oracle
from oneword.microworld.world import concepts, held_out, learnable
from oneword.microworld.world.captions import PLACES
from oneword.microworld.world.drawn import concept_pictures, concept_plain
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.prompts import PLAIN_PROMPT
from oneword.training.extensions import averaging
from oneword.training.extensions.early_stopping import variance
from oneword.training.job import Job, Progress, below
from oneword.training.loop import invert_many
from oneword.training.parts import AVERAGE


_FULL = {
    "train_batch_size": 4,
    "max_train_steps": 5000,
    "evaluation_steps": 50,
    "learning_rate": 5e-3,
    # the times of the default when the first of these words were learned
    "timestep_bias": 0.8,
    "timestep_power": 1.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "fast": {"preset": "fast"},
    "paper": {"preset": "paper"},
    "release": {"preset": "release", "evaluation_steps": 40},
    "last-rows": {"keep": "last"},
    "averaged-rows": {"keep": "average"},
    "stratified": {"stratified_timesteps": True},
    "plain-times": {"timestep_power": 1.0},
    "biased-times": {"timestep_bias": 0.8, "timestep_power": 1.0},
    "norm-rule": {"norm_pull": 0.1},
    "cross-initialised": {"cross_initialization": True},
    "low-rate": {"learning_rate_ratio": 1 / 3},
    "high-rate": {"learning_rate_ratio": 3.0},
    "batch-4": {"train_batch_size": 4, "evaluation_steps": 20},
    "batch-2": {"train_batch_size": 2, "evaluation_steps": 40},
    "low-rate-batch-4": {
        "learning_rate_ratio": 1 / 3,
        "train_batch_size": 4,
        "evaluation_steps": 20,
    },
    # optimisers and courses of the rate
    "prodigy": {"optimizer": "prodigy"},
    "lion": {"optimizer": "lion"},
    "lion-low-rate": {"optimizer": "lion", "learning_rate_ratio": 1 / 3},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "adafactor": {"optimizer": "adafactor"},
    "adafactor-low-rate": {"optimizer": "adafactor", "learning_rate_ratio": 1 / 3},
    "linear": {"lr_scheduler": "linear"},
    "cosine": {"lr_scheduler": "cosine"},
    "restarts": {"lr_scheduler": "cosine_with_restarts", "lr_num_cycles": 3},
    "warm-up": {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 20},
    # tricks
    "noise-offset": {"noise_offset": 0.1},
    "huber": {"loss_type": "huber"},
    "min-snr": {"snr_gamma": 5.0},
    "caption-dropout": {"caption_dropout_rate": 0.1},
    "random-crops": {"random_crops": 8},
    "tags": {},
    "tags-shuffled": {"shuffle_caption": True},
    "tags-dropped": {"caption_tag_dropout_rate": 0.3},
    # the yardstick of early stopping
    "full-length": _FULL,
    "full-length-low": _FULL | {"learning_rate": 5e-3 / 3},
    "full-length-high": _FULL | {"learning_rate": 1.5e-2},
}
FULL_MARKS = (5_000, 10_000, 20_000)
"""Samples at which variants of full length are drawn, besides the marks of all."""
CAPTIONED = ("tags", "tags-shuffled", "tags-dropped")
"""Variants whose pictures have a caption each, with the place for a tag."""
STOP = "where the criterion stops"
SCORES = {
    "reached": "share of the way from the initialiser to the drawings",
    "text_similarity": "text similarity of edit prompts",
    "loss": "lowest loss on the fixed batch",
    "seen": "share of plain pictures in which the oracle sees the concept",
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Learn with every variant, draw at every mark."""

    half: held_out.Half = "development"
    """Settings are chosen on "development", and reported on "test"."""
    names: tuple[str, ...] = ()
    """Held-out concepts in place of the half's; styles have no plain pictures and are left out."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training, each with other pictures of the concept."""
    variants: tuple[str, ...] = tuple(v for v in VARIANTS if not v.startswith("full-length"))
    """Which settings, the first being what others are compared with."""
    marks: tuple[int, ...] = (200, 400, 800, 1200)
    """Samples at which a word is drawn; the last ends the training, but that of full length."""
    num_images: int = 8
    """Pictures for each score."""
    num_edit_images: int = 2
    """Pictures of each edit prompt; 0: none are drawn."""
    slots: int = 10
    """Words that a process trains at once."""
    num_processes: int = 2
    """Processes of one thread each."""
    model: Literal["microworld", "microworld-nano"] = "microworld"
    """Which embedded model learns and draws; the oracle of the nano one is all but blind."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Compute type of the model in training; all drawings are made in fp32."""
    thresholds: tuple[float, ...] = ()
    """Thresholds of the criterion to cut the first settings' losses at, without learning anew."""
    minutes: float | None = None
    """Begin nothing new after so many (0: print what --json holds); the same command goes on."""
    json: Path | None = None
    """File for all numbers."""
    plot: Path | None = None
    """File for the curves."""


@cache
def _bench(model: str) -> tuple[Backbone, Judge, Oracle]:
    torch.set_num_threads(1)
    backbone = load_backbone(ModelConfig(model=model, dtype="fp32"))
    return backbone, load_judge(None, backbone), weights.load_oracle(model)


@cache
def _learner(model: str, dtype: Literal["fp32", "bf16"]) -> Backbone:
    if dtype == "fp32":
        return _bench(model)[0]
    return load_backbone(ModelConfig(model=model, dtype=dtype))


def main() -> None:
    """Learn, score, print."""
    arguments = tyro.cli(Arguments)
    chosen = arguments.names or tuple(
        c.name for c in held_out.HELD_OUT if c.thing and concepts.half(c) == arguments.half
    )
    _must_be_known("--variants", arguments.variants, VARIANTS)
    _must_be_known("--names", chosen, [c.name for c in held_out.HELD_OUT if c.thing])
    pairs = [(seed, name) for seed in arguments.seeds for name in chosen]
    runs = _known(arguments)
    done = {(run["seed"], run["concept"], run["variant"]) for run in runs}
    waiting = [(*pair, v) for pair in pairs for v in arguments.variants if (*pair, v) not in done]
    # a pair's variants share a batch, which is full where there are as many
    parts = [waiting[i : i + arguments.slots] for i in range(0, len(waiting), arguments.slots)]
    started, count = time.monotonic(), 0
    until_s = time.time() + 60 * (math.inf if arguments.minutes is None else arguments.minutes)
    context = multiprocessing.get_context("spawn")
    work = partial(_learn_and_score, arguments, until_s)
    with ProcessPoolExecutor(arguments.num_processes, mp_context=context) as pool:
        for future in as_completed([pool.submit(work, part) for part in parts]):
            found = future.result()
            if not found:
                continue
            runs += found
            count += len(found)
            left = (time.monotonic() - started) / count * (len(waiting) - count)
            print(f"{count} of {len(waiting)} runs, {left / 60:.0f} min left", file=sys.stderr)
            record(arguments.json, model=arguments.model, settings=_settings(arguments), runs=runs)
    wanted = [
        run
        for run in runs
        if (run["seed"], run["concept"]) in pairs and run["variant"] in arguments.variants
    ]
    for score, title in _scores(wanted).items():
        print(f"{title.capitalize()}:\n\n{_table(arguments, wanted, score)}\n")
    print(_notes(arguments, wanted))
    print(_stopping(arguments, wanted))
    print(_cut(arguments, wanted))
    if arguments.plot is not None and any(r["variant"] == arguments.variants[0] for r in wanted):
        _plot(arguments, wanted, arguments.plot)


def _must_be_known(option: str, given: Sequence[str], known: Collection[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        sys.exit(f"{option} takes {', '.join(known)}; given was {', '.join(unknown)}.")


def _settings(arguments: Arguments) -> dict[str, Any]:
    """What all runs of a file must share."""
    names = ("num_images", "num_edit_images")
    found = {"marks": list(arguments.marks)} | {n: getattr(arguments, n) for n in names}
    # earlier files do not tell
    return found if arguments.model == "microworld" else found | {"model": arguments.model}


def _known(arguments: Arguments) -> list[dict[str, Any]]:
    """Runs that the file holds."""
    found = recorded(arguments.json, model=arguments.model)
    if not found:
        return []
    if found["settings"] != _settings(arguments):
        sys.exit(
            f"{arguments.json} must hold runs of the same settings, got {found['settings']} there "
            f"and {_settings(arguments)} here; name another file, or pass the same ones."
        )
    return found["runs"]


def _learn_and_score(
    arguments: Arguments, until_s: float, part: Sequence[tuple[int, str, str]]
) -> list[dict[str, Any]]:
    """Learn some words in one batch, and draw each at its marks."""
    if time.time() > until_s:
        return []
    bench, backbone = _bench(arguments.model), _learner(arguments.model, arguments.dtype)
    jobs = []
    for seed, name, variant in part:
        concept = concepts.get(name)
        settings = {"evaluation_steps": 10} | VARIANTS[variant]
        config = InversionConfig(initializer_token=concept.noun, seed=seed, **settings).resolved(
            backbone.family
        )
        if VARIANTS[variant].get("max_train_steps") is None:
            assert config.train_batch_size is not None
            steps = arguments.marks[-1] // config.train_batch_size
            config = dataclasses.replace(config, max_train_steps=steps)
        drawn = concept_pictures(concept, seed=seed, size=backbone.resolution)
        captions = None
        if variant in CAPTIONED:
            places = [scene.place for scene in concepts.concept_scenes(concept, len(drawn), seed)]
            captions = tuple(f"a photo of a S*, {PLACES[place][0]}" for place in places)
        jobs.append(
            Job(
                name=f"{variant}/{seed}/{name}",
                pictures=from_uint8(drawn),
                config=config,
                captions=captions,
            )
        )
    watches = {job.name: _Watch(_marks(arguments, job.name), job.config) for job in jobs}
    results = invert_many(
        backbone,
        jobs,
        slots=len(jobs),
        on_step=lambda progress: watches[progress.job.name](progress),
        stop=lambda _: False,
    )
    runs = []
    for (seed, name, variant), job, result in zip(part, jobs, results, strict=True):
        watch = watches[job.name]
        watch.end(result.steps)
        scored = _scored(arguments, bench, name, seed, watch, result.losses)
        runs.append(
            {"concept": name, "seed": seed, "variant": variant, "status": result.status}
            | {"dtype": arguments.dtype}
            | scored
            | {"losses": result.losses}
        )
    return runs


def _marks(arguments: Arguments, name: str) -> tuple[int, ...]:
    """Samples at which a variant is drawn."""
    more = FULL_MARKS if name.startswith("full-length") else ()
    return arguments.marks + more


def _scored(
    arguments: Arguments,
    bench: tuple[Backbone, Judge, Oracle],
    name: str,
    seed: int,
    watch: _Watch,
    losses: Sequence[tuple[int, float]],
) -> dict[str, Any]:
    backbone, judge, oracle = bench
    concept, read_as = concepts.get(name), learnable.find(name, FIRST_WORLD).read_as
    plain = judge.images(from_uint8(concept_plain(concept, size=backbone.resolution)))
    seeds = range(1000 * seed, 1000 * seed + arguments.num_images)

    def similarity(pictures: Tensor) -> float:
        return metrics.image_similarity(judge.images(pictures), plain)

    def drawing(samples: int) -> harness.Method:
        word = Concept(placeholder_token="S*", rows=watch.rows[samples], provenance={})
        return harness.word(backbone, "S*", [word])

    noun = harness.word(backbone, concept.noun)
    start, goal = similarity(noun(PLAIN_PROMPT, seeds)), metrics.self_similarity(plain)
    protocol = harness.protocol_for(backbone.family, seeds=seeds[: arguments.num_edit_images])
    texts = judge.texts([harness.bare(template) for template in protocol.edits])
    end = watch.stop_samples  # a word is what its run leaves
    reached, similar, obeyed, lowest, seen = {}, {}, {}, {}, {}
    for samples in watch.rows:
        method = drawing(samples)
        drawn = method(PLAIN_PROMPT, seeds)
        reached[samples] = metrics.share_of_way(similarity(drawn), start, goal)
        (seen[samples],) = world.seen_as({"": oracle.read(drawn)}, *read_as).values()
        lowest[samples] = min(own for step, own in losses if step * watch.per_step <= samples)
        if not arguments.num_edit_images or (watch.is_full_length and samples != end):
            continue
        edits = {template: method(template, protocol.seeds) for template in protocol.edits}
        near = [
            metrics.text_similarity(judge.images(pictures), text)
            for pictures, text in zip(edits.values(), texts, strict=True)
        ]
        similar[samples] = sum(near) / len(near)
        if samples == end:
            obeyed = world.edits_obeyed({t: oracle.read(p) for t, p in edits.items()})
    found: dict[str, Any] = {
        "reached": {str(mark): reached[mark] for mark in watch.marks},
        "loss": {str(mark): lowest[mark] for mark in watch.marks},
        "seen": {str(mark): seen[mark] for mark in watch.marks},
        "edits": obeyed,
    }
    if similar:
        near = {str(mark): similar[mark] for mark in watch.marks if mark in similar}
        found |= {"text_similarity": near}
    if watch.is_full_length:
        return found
    if end in similar:
        found["stop_text_similarity"] = similar[end]
    return found | {
        "stop_samples": end,
        "stop_reached": reached[end],
        "stop_loss": lowest[end],
        "stop_seen": seen[end],
    }


class _Watch:
    """Copies what a job would leave at each mark, and where the criterion would stop it."""

    def __init__(self, marks: Sequence[int], config: InversionConfig) -> None:
        assert config.train_batch_size is not None
        self.marks, self.per_step = marks, config.train_batch_size
        self.is_full_length = marks[-1] == FULL_MARKS[-1]
        self.rows: dict[int, dict[str, Tensor]] = {}
        self.kept: dict[str, Tensor] = {}
        self.memory: dict[str, Tensor] = {}
        self.stopped = False
        self.stop_samples = marks[-1]

    def __call__(self, progress: Progress) -> None:
        samples = progress.step * self.per_step
        if progress.step:
            averaging.followed(progress.rows, self.memory, {}, progress.config, progress.step - 1)
        is_best = progress.evaluated and progress.best_step == progress.step
        if is_best or progress.config.keep == "last":
            self.kept = {name: rows.detach().clone() for name, rows in progress.rows.items()}
        asked = dataclasses.replace(
            progress, config=dataclasses.replace(progress.config, early_stopping=True)
        )
        may_stop = progress.evaluated and not self.stopped and not self.is_full_length
        stops = may_stop and variance(asked)
        if stops:
            self.stopped, self.stop_samples = True, samples
        if stops or samples in self.marks:
            self.rows[samples] = self._left()

    def _left(self) -> dict[str, Tensor]:
        average = below(self.memory, AVERAGE)
        return {n: (average or self.kept)[n].detach().clone() for n in self.kept}

    def end(self, steps: int) -> None:
        """After a run that ended before its last mark, what it left stands there, too."""
        for mark in self.marks:
            if mark > steps * self.per_step:
                self.rows[mark] = self._left()


def _scores(runs: list[dict[str, Any]]) -> dict[str, str]:
    """The scores that any run has: earlier ones have no text similarity."""
    return {score: title for score, title in SCORES.items() if any(score in run for run in runs)}


def _table(arguments: Arguments, runs: list[dict[str, Any]], score: str) -> str:
    """Means over concepts, of which each is the mean over its seeds."""
    digits = 4 if score == "loss" else 2
    runs = [run for run in runs if score in run]
    shown = max((_marks(arguments, variant) for variant in arguments.variants), key=len)
    heads = [f"{mark} samples" for mark in shown]
    lines = [
        "| settings | "
        + " | ".join([*heads, STOP, "its mean samples", "that length for all"])
        + " |",
        "|---" * (len(heads) + 4) + "|",
    ]
    first = _by_concept(arguments, runs, arguments.variants[0], score)
    for variant in arguments.variants:
        own = _by_concept(arguments, runs, variant, score)
        if not own:  # --minutes ended before its first run
            continue
        common = [name for name in first if name in own]
        cells = []
        for column in (*map(str, shown), STOP):
            if any(column not in columns for columns in own.values()):
                cells.append("")
                continue
            values = [own[name][column] for name in own]
            mean = mean_interval(values)
            text = f"{mean.value:.{digits}f}"
            is_compared = variant != arguments.variants[0] and len(common) > 1
            if is_compared and column in first[common[0]]:
                apart = mean_interval([own[n][column] - first[n][column] for n in common])
                text += f" ({apart.value:+.{digits}f} ± {apart.half_width:.{digits}f})"
            elif len(values) > 1:
                text += f" ± {mean.half_width:.{digits}f}"
            cells.append(text)
        stop = _mean_stop(runs, variant)
        cells += (
            ["", ""]
            if stop is None
            else [f"{stop:.0f}", f"{_between(arguments, own, variant, stop).value:.{digits}f}"]
        )
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_stop(runs: list[dict[str, Any]], variant: str) -> float | None:
    """Mean samples where the criterion stops; full length has no such place."""
    stops = [
        run["stop_samples"] for run in runs if run["variant"] == variant and "stop_samples" in run
    ]
    return sum(stops) / len(stops) if stops else None


def _between(
    arguments: Arguments, own: dict[str, dict[str, float]], variant: str, samples: float
) -> metrics.Mean:
    """The mean after so many samples for all, on straight lines between the marks."""
    marks = _marks(arguments, variant)
    return mean_interval(
        [float(np.interp(samples, marks, [o[str(mark)] for mark in marks])) for o in own.values()]
    )


def _notes(arguments: Arguments, runs: list[dict[str, Any]]) -> str:
    """What the tables are of."""
    concepts_of = {run["concept"] for run in runs if run["variant"] == arguments.variants[0]}
    counts = Counter(run["variant"] for run in runs)
    types = Counter(run.get("dtype", "fp32") for run in runs)
    failed = sorted({f"{r['variant']} ({r['status']})" for r in runs if r["status"] != "finished"})
    return (
        f"{len(concepts_of)} concepts ({arguments.half} half), seeds "
        f"{', '.join(map(str, arguments.seeds))}, {arguments.num_images} pictures per plain score, "
        f"{arguments.num_edit_images} of each edit prompt. In brackets the paired difference to "
        f"{arguments.variants[0]}; ± is the half-width of the 95 % interval over concepts. Runs: "
        f"{', '.join(f'{v} {counts[v]}' for v in arguments.variants)}; "
        f"{', '.join(f'{n} in {name}' for name, n in types.items())}. Not finished: "
        f"{', '.join(failed) or 'none'}."
    )


def _stopping(arguments: Arguments, runs: list[dict[str, Any]]) -> str:
    """Variants of full length beside the first one: what it keeps of their gain."""
    full = [v for v in arguments.variants if v.startswith("full-length")]
    if not full:
        return ""
    lines = [
        "",
        "| | runs | samples | share of the way | kept of full length's best | scene | style |",
        "|---|---|---|---|---|---|---|",
    ]
    # what all have learned, so that the best is not the one with the easiest concepts
    pairs = [{(r["seed"], r["concept"]) for r in runs if r["variant"] == v} for v in full]
    pairs.append({(r["seed"], r["concept"]) for r in runs if r["variant"] == arguments.variants[0]})
    shared = set.intersection(*pairs)
    if not shared:
        return ""
    runs = [r for r in runs if (r["seed"], r["concept"]) in shared]
    groups = {v: _by_concept(arguments, runs, v) for v in arguments.variants}
    last = str(FULL_MARKS[-1])
    best = max(full, key=lambda v: sum(own[last] for own in groups[v].values()))
    goal = mean_interval([own[last] for own in groups[best].values()]).value
    rows: list[tuple[str, str, float]] = []
    for variant in (v for v in arguments.variants if v not in full):
        stop = _mean_stop(runs, variant)
        if stop is not None:
            rows += [(variant, STOP, stop), (variant, "that length for all", stop)]
    rows += [(arguments.variants[0], "", mark) for mark in arguments.marks[-2:]]
    rows += [(v, "", FULL_MARKS[-1]) for v in full]
    for variant, what, samples in rows:
        own = groups[variant]
        mean = (
            mean_interval([columns[STOP] for columns in own.values()])
            if what == STOP
            else _between(arguments, own, variant, samples)
        )
        group = [r for r in runs if r["variant"] == variant]
        edits = [
            f"{sum(r['edits'][name] for r in group) / len(group):.2f}"
            if what == STOP or variant in full
            else ""
            for name in ("scene", "style")
        ]
        name = variant + (f", {what}" if what else "")
        lines.append(
            f"| {name} | {len(group)} | {samples:.0f} | {mean.value:.2f} ± "
            f"{mean.half_width:.2f} | {mean.value / goal:.1%} | {' | '.join(edits)} |"
        )
    lines += ["", f"Of {len(groups[best])} concepts, {len(shared)} words that all have learned."]
    return "\n".join(lines)


def _cut(arguments: Arguments, runs: list[dict[str, Any]]) -> str:
    """What the first settings keep of their last mark where other thresholds would stop."""
    if not arguments.thresholds:
        return ""
    variant = arguments.variants[0]
    lines = ["| threshold | mean samples | share of the way | least, compared with its last mark |"]
    lines.append("|---" * 4 + "|")
    marks = _marks(arguments, variant)
    for threshold in arguments.thresholds:
        settings = VARIANTS[variant] | {"early_stopping": True, "stop_threshold": threshold}
        config = InversionConfig(**settings).resolved("microworld")
        stops, found, apart = [], [], []
        for run in (run for run in runs if run["variant"] == variant):
            losses = run["losses"]
            ends = (
                losses[i - 1][0]
                for i in range(1, len(losses) + 1)
                if variance(SimpleNamespace(config=config, losses=losses[:i]))
            )
            stops.append(next(ends, losses[-1][0]) * config.train_batch_size)
            reached = [run["reached"][str(mark)] for mark in marks]
            found.append(float(np.interp(stops[-1], marks, reached)))
            apart.append(found[-1] - reached[-1])
        means = [sum(values) / len(values) for values in (stops, found)]
        lines.append(f"| {threshold} | {means[0]:.0f} | {means[1]:.3f} | {min(apart):+.2f} |")
    return "\n".join(lines)


def _by_concept(
    arguments: Arguments, runs: list[dict[str, Any]], variant: str, score: str = "reached"
) -> dict[str, dict[str, float]]:
    """For each concept a value at each mark, and at the criterion's end: the mean over seeds."""
    found: dict[str, dict[str, float]] = {}
    own = [run for run in runs if run["variant"] == variant]
    for name in dict.fromkeys(run["concept"] for run in own):
        group = [run for run in own if run["concept"] == name]
        columns = {
            str(mark): [run[score][str(mark)] for run in group]
            for mark in _marks(arguments, variant)
            if all(str(mark) in run[score] for run in group)
        }
        if all("stop_samples" in run for run in group):
            columns[STOP] = [run[f"stop_{score}"] for run in group]
        found[name] = {c: sum(values) / len(values) for c, values in columns.items()}
    return found


def _plot(arguments: Arguments, runs: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first, *others = arguments.variants
    others = [v for v in others if any(run["variant"] == v for run in runs)]
    wide = min(5, len(others) or 1)
    high = math.ceil(len(others) / wide) or 1
    scores = _scores(runs)
    figure = pyplot.figure(figsize=(3 * wide, 2.6 * high * len(scores)), layout="constrained")
    blocks = figure.subfigures(len(scores), squeeze=False)[:, 0]
    for block, (score, title) in zip(blocks, scores.items(), strict=True):
        block.suptitle(f"{title}; grey: {first}" if others else f"{title}: {first}")
        panels = block.subplots(high, wide, sharex=True, sharey=True, squeeze=False).flat
        scored = [run for run in runs if score in run]
        for place, axes in enumerate(panels):
            if place >= max(len(others), 1):
                axes.axis("off")
                continue
            marks, means, widths = _curve(arguments, scored, first, score)
            axes.fill_between(marks, means - widths, means + widths, color="0.85", linewidth=0)
            axes.plot(marks, means, color="0.5")
            if others:
                marks, means, widths = _curve(arguments, scored, others[place], score)
                axes.errorbar(marks, means, yerr=widths, capsize=2)
                axes.set_title(others[place], fontsize=10)
            if any(variant.startswith("full-length") for variant in arguments.variants):
                axes.set_xscale("log")
            if score == "reached":
                axes.set_ylim(0, 1)  # what is worse than the initialiser lies outside
        block.supxlabel("samples", fontsize=10)
    figure.savefig(path, dpi=110)


def _curve(
    arguments: Arguments, runs: list[dict[str, Any]], variant: str, score: str
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Marks that all words of a variant have, the means over concepts, their half-widths."""
    columns = _by_concept(arguments, runs, variant, score)
    marks = [
        mark
        for mark in _marks(arguments, variant)
        if all(str(mark) in own for own in columns.values())
    ]
    means = [mean_interval([own[str(mark)] for own in columns.values()]) for mark in marks]
    return marks, np.array([m.value for m in means]), np.array([m.half_width for m in means])


if __name__ == "__main__":
    main()
