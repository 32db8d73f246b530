"""What a sample costs with 1, 2, 4, 8 and 16 words in the batch, and the words that makes an hour.

    python benchmarks/concepts_per_hour.py --json concepts_per_hour.json

Every number of slots trains as many words for the same steps, in alternation; loading the model and
caching the pictures are timed apart. The rows of the first word are compared with those that it
gets alone.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from _common import machine, record

from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation.metrics import mean_interval
from oneword.images import from_uint8
from oneword.microworld.world import concepts, held_out
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.training.job import Job, Progress
from oneword.training.loop import invert_many


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time shared batches."""

    model: str = "microworld"
    """Embedded model."""
    device: str = "auto"
    """torch device."""
    dtype: str = "auto"
    """Compute type."""
    slots: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of words in the batch."""
    steps: int = 20
    """Steps of each word."""
    steps_to_learn: int = 300
    """Steps that a word takes, for words an hour."""
    batch: int = 4
    """Samples of a word per step."""
    repeats: int = 5
    """Alternations."""
    json: Path | None = None
    """File for all numbers."""


@dataclass(frozen=True)
class _Time:
    caching_s: float
    """Until the first step of all words, per word."""
    sample_s: float
    """Of the steps after the first, per sample."""


def main() -> None:
    """Time, print a table."""
    arguments = tyro.cli(Arguments)
    started = time.monotonic()
    backbone = load_backbone(
        ModelConfig(model=arguments.model, device=arguments.device, dtype=arguments.dtype)  # type: ignore[arg-type]
    )
    loading_s = time.monotonic() - started
    _run(backbone, arguments, 1)  # warms up
    times: dict[int, list[_Time]] = {slots: [] for slots in arguments.slots}
    rows: dict[int, torch.Tensor] = {}
    for repeat in range(arguments.repeats):
        for slots, found in times.items():
            time_, rows[slots] = _run(backbone, arguments, slots)
            found.append(time_)
            print(f"{repeat + 1}/{arguments.repeats}, {slots} slots: {time_}", file=sys.stderr)
    alone = times[arguments.slots[0]]
    print(
        f"{arguments.model} on {backbone.device} in {backbone.dtype}, {machine()}, "
        f"batch {arguments.batch} a word; loading took {loading_s:.1f} s\n\n"
        "| slots | caching a word, s | a sample, ms | over alone | words an hour | rows apart |\n"
        "|---|---|---|---|---|---|"
    )
    samples = arguments.steps_to_learn * arguments.batch
    for slots, found in times.items():
        ratio = mean_interval(
            [own.sample_s / one.sample_s for own, one in zip(found, alone, strict=True)]
        )
        sample_s = sum(t.sample_s for t in found) / len(found)
        caching_s = sum(t.caching_s for t in found) / len(found)
        hour = 3600 / (caching_s + samples * sample_s)
        first = rows[arguments.slots[0]]
        apart = float((rows[slots] - first).norm() / first.norm())
        print(
            f"| {slots} | {caching_s:.2f} | {1000 * sample_s:.1f} | {ratio.value:.2f} ± "
            f"{ratio.half_width:.2f} | {hour:.0f} | {apart:.1e} |"
        )
    cells = {str(s): [[t.caching_s, t.sample_s] for t in found] for s, found in times.items()}
    record(arguments.json, model=None, loading_s=loading_s, times=cells)


def _run(backbone: Backbone, arguments: Arguments, slots: int) -> tuple[_Time, torch.Tensor]:
    names = [concept.name for concept in held_out.HELD_OUT if concept.thing]
    jobs = [
        Job(
            name=str(i),
            pictures=from_uint8(
                concept_pictures(concepts.get(names[i % len(names)]), size=backbone.resolution)
            ),
            config=InversionConfig(
                initializer_token=concepts.get(names[i % len(names)]).noun,
                max_train_steps=arguments.steps,
                train_batch_size=arguments.batch,
                evaluation_steps=arguments.steps,
                seed=i,
            ),
        )
        for i in range(slots)
    ]
    marks: list[float] = []

    def mark(progress: Progress) -> None:
        if progress.job.name == str(slots - 1) and progress.step in (0, 1, arguments.steps - 1):
            if backbone.device.type == "cuda":
                torch.cuda.synchronize()
            marks.append(time.monotonic())

    started = time.monotonic()
    results = invert_many(backbone, jobs, slots=slots, on_step=mark)
    begun, first, last = marks
    assert results[0].concept is not None
    samples = (arguments.steps - 2) * arguments.batch * slots
    rows = torch.cat(list(results[0].concept.rows.values()))
    return _Time((begun - started) / slots, (last - first) / samples), rows


if __name__ == "__main__":
    main()
