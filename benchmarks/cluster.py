"""Whether many words on Ray survive the death of their workers, and what a second worker brings.

    python benchmarks/cluster.py --json cluster.json

Efficiency: the same words on one local worker and on two, in alternation, on the same cores' worth
of threads each; the time with start-up, and the ratio. Kills: the words train on two workers, of
which one is killed at a moment drawn by seed, again and again; each must end exactly once, with the
rows of an undisturbed run.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from _common import machine, record

from oneword.concepts import formats
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.evaluation.metrics import mean_interval
from oneword.images import from_uint8, save_png, to_images
from oneword.microworld.world import held_out
from oneword.microworld.world.drawn import concept_pictures
from oneword.runs.cluster import train_on_cluster
from oneword.runs.events import Ended, Event, WorkerStarted


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time and kill."""

    model: str = "microworld-nano"
    """Embedded model."""
    words: int = 8
    """Words that are learned."""
    steps: int = 60
    """Steps of each."""
    slots: int = 1
    """Words that train at once on each worker: with 1 the rows must be bit-equal."""
    repeats: int = 3
    """Alternations of one worker and two."""
    kills: int = 10
    """Runs in which a worker is killed."""
    json: Path | None = None
    """File for all numbers."""


def main() -> None:
    """Time, kill, print."""
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _draw(work / "pictures", arguments.words)
        times: dict[int, list[float]] = {1: [], 2: []}
        rows: dict[str, torch.Tensor] = {}
        for repeat in range(arguments.repeats):
            for workers, found in times.items():
                started = time.monotonic()
                rows = _train(arguments, work, f"{workers}-{repeat}", workers)[0]
                found.append(time.monotonic() - started)
                print(f"{workers} workers: {found[-1]:.1f} s", file=sys.stderr)
        kills = []
        for repeat in range(arguments.kills):
            after_s = random.Random(repeat).uniform(0, 0.9 * min(times[2]))
            found, ended = _train(arguments, work, f"kill-{repeat}", 2, kill_after_s=after_s)
            apart = max(float((found[n] - r).norm() / r.norm()) for n, r in rows.items())
            once = sorted(ended) == sorted(rows)
            kills.append({"after_s": after_s, "each_ended_once": once, "rows_apart": apart})
            print(f"kill after {after_s:.1f} s: {kills[-1]}", file=sys.stderr)
    ratio = mean_interval([a / b for a, b in zip(times[1], times[2], strict=True)])
    spread = f" ± {ratio.half_width:.2f}" if arguments.repeats > 1 else ""
    whole = sum(k["each_ended_once"] for k in kills)
    equal = sum(k["rows_apart"] == 0 for k in kills)
    print(
        f"{arguments.words} words of {arguments.steps} steps, {arguments.model}, "
        f"{arguments.slots} slots, {machine()}\n\n"
        f"| workers | s with start-up |\n|---|---|\n"
        + "".join(f"| {n} | {sum(t) / len(t):.1f} |\n" for n, t in times.items())
        + f"\nTwo workers are {ratio.value:.2f}{spread} times as fast as one.\n"
        f"Of {len(kills)} runs with a killed worker, every word ended exactly once in {whole}, and "
        f"all rows were bit-equal to the undisturbed ones in {equal} (farthest apart: "
        f"{max((k['rows_apart'] for k in kills), default=0.0):.1e})."
    )
    record(arguments.json, model=None, times=times, kills=kills)


def _draw(folder: Path, num: int) -> None:
    things = [c for c in held_out.HELD_OUT if c.thing]
    for i in range(num):
        concept = things[i % len(things)]
        own = folder / f"{i}-{concept.name}"
        own.mkdir(parents=True)
        drawn = from_uint8(concept_pictures(concept, 3, seed=i, size=64))
        for j, picture in enumerate(to_images(drawn)):
            save_png(picture, own / f"{j}.png")


def _train(
    arguments: Arguments, work: Path, name: str, workers: int, kill_after_s: float | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Rows by word, and the words that ended."""
    configs = [
        TrainConfig(
            train_data_dir=folder,
            output_dir=work / name / folder.name,
            model=ModelConfig(model=arguments.model, device="cpu"),
            inversion=InversionConfig(
                initializer_token="mug",
                max_train_steps=arguments.steps,
                early_stopping=False,
                seed=i,
            ),
            validation_steps=0,
            checkpointing_steps=5,
        )
        for i, folder in enumerate(sorted((work / "pictures").iterdir()))
    ]
    alive: list[int] = []
    ended: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, WorkerStarted):
            alive.append(event.pid)
        elif isinstance(event, Ended):
            ended.append(event.job)

    def kill() -> None:
        deadline = time.monotonic() + kill_after_s if kill_after_s is not None else 0.0
        while time.monotonic() < deadline or not alive:
            time.sleep(0.02)
        os.kill(alive[-1], signal.SIGKILL)

    if kill_after_s is not None:
        threading.Thread(target=kill, daemon=True).start()
    outcomes = train_on_cluster(configs, workers=workers, slots=arguments.slots, on_event=tell)
    for outcome in outcomes:
        if outcome.error:
            sys.exit(f"{outcome.name}: {outcome.error}")
    found = {}
    for config in configs:
        (rows,) = formats.load_concept(config.output_dir).rows.values()
        found[config.output_dir.name] = rows
    return found, ended


if __name__ == "__main__":
    main()
