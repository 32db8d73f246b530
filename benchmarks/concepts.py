"""How well the default preset learns microworld's held-out concepts: scores with 95 % intervals.

    python benchmarks/concepts.py --json scores.json --markdown docs/concepts.md

Every concept is learned from four pictures with each seed, the same sentences are drawn with the
word, with its initialiser and with the best existing noun, and the judge compares them with
drawings of the thing alone. "Reached" is the share of the way from the initialiser's plain
similarity to the drawings' own similarity to each other.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from oneword._files import write_atomic, write_json_atomic
from oneword.backbones.base import load
from oneword.config import InversionConfig, ModelConfig
from oneword.evaluation import harness
from oneword.evaluation.features import load_judge
from oneword.evaluation.metrics import Mean, mean_interval
from oneword.images import contact_sheet, from_uint8, save_png
from oneword.inversion import Job, invert_many
from oneword.microworld.first import concepts


NAMES = (
    "gold-mug", "harlequin-cat", "parrot", "candy-house", "taxi", "snowman", "rocket", "cactus",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Learn and score held-out concepts."""

    names: tuple[str, ...] = NAMES
    """Held-out concepts that are things."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training, each with other pictures of the concept."""
    num_images: int = 8
    """Pictures per prompt."""
    inversion: tyro.conf.OmitArgPrefixes[InversionConfig] = dataclasses.field(
        default_factory=InversionConfig
    )
    """Settings of training."""
    json: Path | None = None
    """File for all scores."""
    markdown: Path | None = None
    """File for the table."""
    sheets: Path | None = None
    """Folder for contact sheets."""


def main() -> None:
    """Learn, score, print."""
    arguments = tyro.cli(Arguments)
    backbone = load(ModelConfig())
    judge = load_judge(None, backbone)
    runs: list[dict[str, Any]] = []
    started = time.monotonic()
    for seed in arguments.seeds:
        jobs = []
        for name in arguments.names:
            held_out = concepts.get(name)
            config = dataclasses.replace(
                arguments.inversion, initializer_token=held_out.noun, seed=seed
            )
            pictures = from_uint8(concepts.concept_pictures(held_out, seed=seed))
            jobs.append(Job(name=name, pictures=pictures, config=config))
        results = invert_many(backbone, jobs, slots=len(jobs))
        for job, result in zip(jobs, results, strict=True):
            assert result.concept is not None, result.reason
            runs.append(_scored(arguments, backbone, judge, job, result, seed))
            spent = time.monotonic() - started
            left = spent / len(runs) * (len(arguments.names) * len(arguments.seeds) - len(runs))
            print(
                f"{job.name} seed {seed}: reached {runs[-1]['reached']:.2f}, "
                f"{left / 60:.0f} min left",
                file=sys.stderr,
            )
    text = _table(arguments, runs)
    print(text)
    if arguments.markdown is not None:
        write_atomic(arguments.markdown, text.encode())
    if arguments.json is not None:
        write_json_atomic(arguments.json, runs)


def _scored(
    arguments: Arguments, backbone: Any, judge: Any, job: Job, result: Any, seed: int
) -> dict[str, Any]:
    held_out = concepts.get(job.name)
    plain = from_uint8(concepts.concept_plain(held_out, num=8))
    protocol = harness.protocol_for(
        backbone.family, plain=True, seeds=range(1000 * seed, 1000 * seed + arguments.num_images)
    )
    methods = harness.concept_methods(backbone, result.concept, judge, job.pictures)
    evaluation = harness.evaluate(
        {name: method for name, (_, method) in methods.items()},
        job.pictures,
        judge,
        protocol,
        plain=plain,
    )
    if arguments.sheets is not None:
        drawn = evaluation.pictures[harness.CONCEPT]
        rows = [plain[:6], job.pictures, *(pixels[:6] for pixels in drawn.values())]
        labels = ["drawings", "training pictures", *(t.format("S*") for t in drawn)]
        for label, pixels in zip(labels, rows, strict=True):
            sheet = contact_sheet(pixels, columns=6)
            folder = arguments.sheets / f"{job.name}-{seed}"
            save_png(sheet, folder / f"{label.replace(' ', '-').replace('*', '')}.png")
    return {
        "concept": job.name,
        "kind": held_out.kind,
        "seed": seed,
        "steps": result.steps,
        "best_step": result.best_step,
    } | evaluation.plain()


def _table(arguments: Arguments, runs: list[dict[str, Any]]) -> str:
    """Means over seeds for each concept, then over all runs."""

    def score(run: dict[str, Any], method: str, name: str) -> float:
        return run["scores"][method][name]

    def mean(values: list[float]) -> str:
        found: Mean = mean_interval(values)
        return f"{found.value:.3f}" if found.num == 1 else str(found)

    columns = {
        "plain: initialiser": lambda r: score(r, harness.INITIALIZER, "plain_similarity"),
        "plain: word": lambda r: score(r, harness.CONCEPT, "plain_similarity"),
        "plain: drawings": lambda r: score(r, harness.TRAINING, "plain_similarity"),
        "reached": lambda r: r["reached"],
        "image: initialiser": lambda r: score(r, harness.INITIALIZER, "image_similarity"),
        "image: word": lambda r: score(r, harness.CONCEPT, "image_similarity"),
        "image: training pictures": lambda r: score(r, harness.TRAINING, "image_similarity"),
        "text: initialiser": lambda r: score(r, harness.INITIALIZER, "text_similarity"),
        "text: word": lambda r: score(r, harness.CONCEPT, "text_similarity"),
    }
    lines = ["| concept | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    groups = [(name, [r for r in runs if r["concept"] == name]) for name in arguments.names]
    for name, group in groups:
        cells = [mean([column(r) for r in group]) for column in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    # Concepts, not runs, are what the mean is over: seeds of one concept are not independent of it.
    means = {
        head: [sum(column(r) for r in group) / len(group) for _, group in groups]
        for head, column in columns.items()
    }
    cells = [mean(values) for values in means.values()]
    lines.append("| **all** | " + " | ".join(cells) + " |")
    reached = [r["reached"] for r in runs]
    half = sum(value >= 0.5 for value in reached)
    higher = sum(value > 0 for value in reached)
    lines += [
        "",
        f"{len(runs)} runs: {len(arguments.names)} concepts with {len(arguments.seeds)} seeds, "
        f"preset {arguments.inversion.preset}, {arguments.num_images} pictures per prompt, judged "
        f"by {runs[0]['judge']}. The word beat its initialiser in {higher} of {len(runs)} runs "
        f"and went at least half of the way in {half} of {len(runs)}. Per concept: mean over "
        "seeds; all: mean over concepts; ± is the half-width of the 95 % interval (Student's t).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
