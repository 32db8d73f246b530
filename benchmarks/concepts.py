r"""How well the default preset learns microworld's held-out concepts, with 95 % intervals.

    python benchmarks/concepts.py --half test --json scores.json \
        --markdown docs/explanation/concepts.md
    python benchmarks/concepts.py --model FOLDER --families shape style

The model's world says what is held out: of the second, the artists' things are the shapes.

Every concept is learned from five pictures with each seed. The same sentences are drawn with the
word, with its initialiser and with the best existing noun, and the oracle says in how many pictures
it sees the concept, and whether the rest of the sentence was obeyed. The judge's scores are printed
as well: "reached" is the share of the way from the initialiser's plain similarity to the drawings'
own similarity to each other.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import dataclasses
import math
import multiprocessing
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import tyro
from _common import learning, record, recorded

from oneword._files import write_atomic
from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation import harness, world
from oneword.evaluation.features import Judge, load_judge
from oneword.evaluation.metrics import mean_interval
from oneword.images import contact_sheet, from_uint8, save_png
from oneword.microworld import weights
from oneword.microworld.making.oracle import Oracle
from oneword.microworld.making.wide_oracle import WideOracle
from oneword.microworld.world import held_out, learnable
from oneword.microworld.world.learnable import Learnable
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.training.job import Job
from oneword.training.loop import invert_many


_TITLE = """# How well held-out concepts are learned

Things and styles that no training picture of the embedded model shows, each learned as one new word
from five pictures.
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Learn and score held-out concepts."""

    model: str = "microworld"
    """Embedded model, or the folder of one."""
    half: held_out.Half = "test"
    """Which half: presets are tuned on "development", numbers are reported on "test"."""
    names: tuple[str, ...] = ()
    """Held-out concepts in place of the half's."""
    families: tuple[held_out.Family, ...] = ("shape", "recombination", "character", "style")
    """Which of the half's."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training, each with other pictures of the concept."""
    cut_out: int = 0
    """Learn from so many plain drawings, cut out; 0: from five pictures in places."""
    num_images: int = 8
    """Pictures per prompt."""
    slots: int = 4
    """Concepts learned at once by a process."""
    num_processes: int = 2
    """Processes of one thread each."""
    inversion: tyro.conf.OmitArgPrefixes[InversionConfig] = dataclasses.field(
        default_factory=InversionConfig
    )
    """Settings of training."""
    json: Path | None = None
    """File for all scores; what it holds already is not learned again."""
    markdown: Path | None = None
    """File for the table."""
    sheets: Path | None = None
    """Folder for contact sheets."""


@dataclass(frozen=True)
class _Bench:
    """What every run is scored with."""

    arguments: Arguments
    backbone: Backbone
    judge: Judge
    oracle: Oracle | WideOracle


@cache
def _bench(arguments: Arguments) -> _Bench:
    torch.set_num_threads(1)
    backbone = load_backbone(ModelConfig(model=arguments.model))
    oracle = weights.load_oracle(arguments.model)
    return _Bench(arguments, backbone, load_judge(None, backbone), oracle)


def main() -> None:
    """Learn, score, print."""
    arguments = tyro.cli(Arguments)
    version = weights.world(arguments.model)
    chosen = tuple(learnable.find(name, version).name for name in arguments.names) or tuple(
        one.name
        for one in learnable.learnable(version).values()
        if one.half == arguments.half and one.family in arguments.families
    )
    pairs = [(seed, name) for seed in arguments.seeds for name in chosen]
    runs: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []  # of other seeds and concepts: they stay in the file
    for run in _with_nan(recorded(arguments.json, model=arguments.model).get("runs", [])):
        if run.get("world", FIRST_WORLD) != version:
            raise SystemExit(
                f"{arguments.json} holds rows of another world than the model's, {version}; "
                "pass another file as --json."
            )
        (runs if (run["seed"], run["concept"]) in pairs else others).append(run)
    done = {(run["seed"], run["concept"]) for run in runs}
    waiting = [pair for pair in pairs if pair not in done]
    parts = [waiting[i : i + arguments.slots] for i in range(0, len(waiting), arguments.slots)]
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.num_processes, mp_context=context) as pool:
        for part in pool.map(partial(_learn_and_score, arguments), parts):
            runs += part
            here = len(runs) - len(done)
            left = (time.monotonic() - started) / here * (len(waiting) - here)
            for run in part:
                print(
                    f"{run['concept']} seed {run['seed']}: seen in "
                    f"{run['seen'][harness.CONCEPT]:.0%}, initialiser "
                    f"{run['seen'].get(harness.INITIALIZER, 0.0):.0%}, reached "
                    f"{run['reached']:.2f}, {run['steps']} steps; {left / 60:.0f} min left",
                    file=sys.stderr,
                )
            record(arguments.json, model=arguments.model, runs=others + runs)
    text = _table(arguments, runs)
    print(text)
    if arguments.markdown is not None:
        command = f"```sh\npython benchmarks/concepts.py {shlex.join(sys.argv[1:])}\n```\n"
        write_atomic(arguments.markdown, f"{_TITLE}\n{command}\n{text}".encode())


def _with_nan(found: Any) -> Any:
    """JSON has no NaN; null stands for it."""
    if isinstance(found, dict):
        return {key: _with_nan(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_with_nan(value) for value in found]
    return math.nan if found is None else found


def _learn_and_score(
    arguments: Arguments, pairs: Sequence[tuple[int, str]]
) -> list[dict[str, Any]]:
    bench = _bench(arguments)
    version = weights.world(arguments.model)
    chosen = [(seed, learnable.find(name, version)) for seed, name in pairs]
    jobs = [_job(bench, concept, seed) for seed, concept in chosen]
    runs = []
    for (seed, concept), job, result in zip(
        chosen, jobs, invert_many(bench.backbone, jobs, slots=arguments.slots), strict=True
    ):
        assert result.concept is not None, result.reason
        run = _scored(bench, concept, job, result.concept, seed)
        runs.append(run | {"steps": result.steps, "best_step": result.best_step})
    return runs


def _job(bench: _Bench, concept: Learnable, seed: int) -> Job:
    config = dataclasses.replace(
        bench.arguments.inversion,
        initializer_token=concept.noun,
        learnable_property="style" if concept.is_style else "object",
        seed=seed,
    )
    return learning(
        concept, config, name=concept.name, cut_out=bench.arguments.cut_out,
        size=bench.backbone.resolution,
    )  # fmt: skip


def _scored(
    bench: _Bench, concept: Learnable, job: Job, learned: Concept, seed: int
) -> dict[str, Any]:
    plain = from_uint8(concept.plain(size=bench.backbone.resolution))
    is_style = concept.is_style
    protocol = harness.protocol_for(
        bench.backbone.family,
        learnable_property="style" if is_style else "object",
        plain=not is_style,
        seeds=range(1000 * seed, 1000 * seed + bench.arguments.num_images),
    )
    methods = harness.concept_methods(bench.backbone, learned, bench.judge, job.pictures)
    found = harness.evaluate(
        {name: method for name, (_, method) in methods.items()},
        job.pictures,
        bench.judge,
        protocol,
        plain=None if is_style else plain,
    )
    if bench.arguments.sheets is not None:
        drawn = found.pictures[harness.CONCEPT]
        columns = min(len(job.pictures), bench.arguments.num_images)
        rows = [job.pictures[:columns], *(pixels[:columns] for pixels in drawn.values())]
        labels = ["training pictures", *(t.format("S*") for t in drawn)]
        sheet = contact_sheet(torch.cat(rows), columns=columns, row_labels=labels)
        save_png(sheet, bench.arguments.sheets / f"{concept.name}-{seed}.png")
    read = {
        method: {t: bench.oracle.read(pixels) for t, pixels in pictures.items()}
        for method, pictures in found.pictures.items()
    }
    seen = {method: world.seen_as(r, *concept.read_as) for method, r in read.items()}
    return (
        weights.told(bench.arguments.model)
        | {
            "concept": concept.name,
            "family": concept.family,
            "seed": seed,
            "words": {name: text for name, (text, _) in methods.items()},
            "seen": {method: share[protocol.photo] for method, share in seen.items()},
            "seen_by_prompt": seen[harness.CONCEPT],
            "edits": world.edits_obeyed(read[harness.CONCEPT]),
        }
        | found.plain()
    )


def _table(arguments: Arguments, runs: list[dict[str, Any]]) -> str:
    """Means over seeds for each concept, then over concepts."""

    def seen(method: str) -> Callable[[dict[str, Any]], float]:
        return lambda run: run["seen"].get(method, math.nan)

    def edit(name: str) -> Callable[[dict[str, Any]], float]:
        return lambda run: run["edits"].get(name, math.nan)

    def other_noun(run: dict[str, Any]) -> float:
        # what stands beside a thing, or what a style shows
        return run["edits"].get("second_noun", run["edits"].get("noun", math.nan))

    def seen_in_edits(run: dict[str, Any]) -> float:
        return sum(run["seen_by_prompt"][t] for t in run["edit_prompts"]) / len(run["edit_prompts"])

    def score(method: str, name: str) -> Callable[[dict[str, Any]], float]:
        return lambda run: run["scores"].get(method, {}).get(name, math.nan)

    columns = {
        "seen: word": seen(harness.CONCEPT),
        "seen: initialiser": seen(harness.INITIALIZER),
        "seen: best noun": seen(harness.BEST_NOUN),
        "seen in edits": seen_in_edits,
        "scene kept": edit("scene"),
        "style kept": edit("style"),
        "noun kept": other_noun,
        "reached": lambda run: run["reached"],
        "steps": lambda run: run["steps"],
        "image: word": score(harness.CONCEPT, "image_similarity"),
        "image: initialiser": score(harness.INITIALIZER, "image_similarity"),
        "image: training pictures": score(harness.TRAINING, "image_similarity"),
        "text: word": score(harness.CONCEPT, "text_similarity"),
        "text: initialiser": score(harness.INITIALIZER, "text_similarity"),
    }
    names = list(dict.fromkeys(run["concept"] for run in runs))
    groups = [[run for run in runs if run["concept"] == name] for name in names]
    kinds = [*dict.fromkeys(run["family"] for run in runs), "all"]
    better = sum(run["seen"]["concept"] > run["seen"].get("initializer", 0) for run in runs)
    lines = [
        f"{len(runs)} runs: {len(names)} concepts with {len(arguments.seeds)} seeds, preset "
        f"{arguments.inversion.preset}, 5 pictures each, {arguments.num_images} pictures per "
        f"prompt. The word was seen in more pictures than its initialiser in {better} of "
        f"{len(runs)} runs.",
        "",
        "| kind | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for kind in kinds:
        those = [g for g in groups if kind in ("all", g[0]["family"])]
        # concepts, not runs, are what the mean is over: a concept's seeds depend on it
        cells = [
            _mean([value for g in those if (value := _average(column, g)) == value])
            for column in columns.values()
        ]
        lines.append(f"| **{kind}** | " + " | ".join(cells) + " |")
    lines += [
        "",
        '- **Seen**: share of pictures of the photo prompt (for a style: "a painting in the style '
        'of S*") in which the oracle sees the concept. **In edits**: the same over the edit '
        "prompts.",
        "- **Kept**: share of pictures of edit prompts that show the scene, the style or the noun "
        "next to S* (for a style: the noun drawn in it) that the prompt asks for.",
        "- **Reached**: share of the way from the initialiser to drawings of the thing on plain "
        "ground, by the judge's image similarity.",
        f"- **Image, text**: the judge's cosines ({runs[0]['judge']}).",
        "- A number is the mean over the seeds of each concept, and then over concepts. ± is the "
        "half-width of the 95 % interval (Student's t).",
        "",
        "## Each concept",
        "",
        "Here ± is over the seeds.",
        "",
        "| concept | kind | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, group in zip(names, groups, strict=True):
        cells = [_mean([column(run) for run in group]) for column in columns.values()]
        lines.append(f"| {name} | {group[0]['family']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _average(column: Callable[[dict[str, Any]], float], runs: list[dict[str, Any]]) -> float:
    return sum(column(run) for run in runs) / len(runs)


def _mean(values: list[float]) -> str:
    if not values or any(math.isnan(value) for value in values):
        return ""
    found = mean_interval(values)
    return f"{found.value:.2f}" if found.num == 1 else f"{found.value:.2f} ± {found.half_width:.2f}"


if __name__ == "__main__":
    main()
