"""How much longer a run takes on a busy machine, by how OpenMP's threads wait for each other.

    python benchmarks/busy.py --json busy.json

Runs `oneword train` as a whole process, start-up included, on an idle machine, beside one busy
process for each core, and beside one niced process for each core; everything in alternation. The
ways to wait: "oneword" (nothing is set, so that the command bounds the spinning itself), "runtime"
(what GNU's, Intel's and LLVM's runtimes do where nobody asks), "passive" (no spinning) and "one
thread". The machine must be idle otherwise.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import tyro
from _common import machine, record

from oneword.cli.demo import copy_pictures, pictures_of
from oneword.microworld.world.learnable import find


State = Literal["idle", "busy", "niced"]
Way = Literal["oneword", "runtime", "passive", "one thread"]
WAYS: dict[Way, dict[str, str]] = {
    "oneword": {},
    "runtime": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
_NICED = 19


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time a run beside other processes."""

    model: str = "microworld"
    """Base model."""
    steps: int = 40
    """Steps of the run; there are no previews."""
    repeats: int = 5
    """Runs of each way in each state."""
    ways: tuple[Way, ...] = tuple(WAYS)
    """Ways to wait."""
    states: tuple[State, ...] = ("idle", "busy", "niced")
    """What else the machine does."""
    json: Path | None = None
    """File for all numbers."""


def main() -> None:
    """Run, print a table of seconds and of their ratios to the idle machine's."""
    arguments = tyro.cli(Arguments)
    found: dict[tuple[str, str], list[float]] = {
        (way, state): [] for way in arguments.ways for state in arguments.states
    }
    with tempfile.TemporaryDirectory() as name:
        pictures, _ = copy_pictures(pictures_of(find("gold-mug", 1), 1, 128), Path(name))
        for repeat in range(arguments.repeats):
            for state in arguments.states:
                with _others(state):
                    for way in arguments.ways:
                        target = Path(name) / f"{way}-{state}-{repeat}"
                        seconds = _run(arguments, WAYS[way], pictures, target)
                        found[way, state].append(seconds)
                        print(f"{way}, {state}: {seconds:.1f} s", file=sys.stderr)
    print(_table(arguments, found))
    record(
        arguments.json,
        model=None,
        seconds={f"{way}, {state}": s for (way, state), s in found.items()},
    )


@contextlib.contextmanager
def _others(state: State) -> Iterator[None]:
    """A process for each core that never rests, but on an idle machine."""
    code = f"import os; os.nice({_NICED if state == 'niced' else 0})\nwhile True: pass"
    count = 0 if state == "idle" else psutil.cpu_count() or 1
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _run(arguments: Arguments, way: dict[str, str], pictures: Path, target: Path) -> float:
    command = [
        sys.executable, "-m", "oneword", "train", "--model", arguments.model,
        "--train-data-dir", str(pictures), "--output-dir", str(target),
        "--initializer-token", "mug", "--max-train-steps", str(arguments.steps),
        "--no-early-stopping", "--validation-steps", "0",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k not in _CHOSEN} | way
    started = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - started


def _table(arguments: Arguments, found: dict[tuple[str, str], list[float]]) -> str:
    lines = [
        f"{arguments.model}, {arguments.steps} steps with start-up, {machine()}, medians of "
        f"{arguments.repeats} runs",
        "",
        f"| | {' | '.join(f'{state}, s' for state in arguments.states)} |",
        f"|---{'|---' * len(arguments.states)}|",
    ]
    for way in arguments.ways:
        idle = statistics.median(found[way, "idle"]) if (way, "idle") in found else None
        cells = []
        for state in arguments.states:
            middle = statistics.median(found[way, state])
            times = f" ({middle / idle:.2f} x)" if idle and state != "idle" else ""
            low, high = min(found[way, state]), max(found[way, state])
            cells.append(f"{middle:.1f}{times}, {low:.1f} to {high:.1f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
