"""``oneword study``: the paper's quantitative analysis, as a grid of jobs."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from oneword._files import write_atomic, write_json_atomic
from oneword.cli import options, reports
from oneword.cli.arguments import StudyArguments
from oneword.cli.progress import tenths, time_left
from oneword.config.model import EMBEDDED
from oneword.config.scoring import StudyConfig
from oneword.study import cost, grid, page
from oneword.study.cost import Cost
from oneword.study.plan import Study
from oneword.study.work import failure_file


def run(chosen: StudyArguments, words: Sequence[str]) -> int:
    """Run the grid, then write the report; 1 where a job failed."""
    study = Study(options.settings(StudyConfig, chosen))
    for note in study.notes:
        options.say(note)
    if chosen.rows is not None:
        count = grid.take_in(study, chosen.rows)
        options.say(f"{count} jobs are taken from {chosen.rows}.")
    if chosen.dry_run:
        return _dry_run(study, chosen.json)
    if chosen.report:
        ended = grid.standing(study)
    else:
        with _stopped_by_sigterm(), _shown_progress(study) as tell:
            try:
                ended = grid.run(study, on_event=tell)
            except KeyboardInterrupt:
                options.say("Stopped; run the same command again to go on.")
                raise
    count = f"{len(ended.done)} of {len(study.specs)} jobs are done."
    if ended.done or chosen.report:
        shown = _shown(words)
        path = page.write(study, command=reports.command("study", *shown), markdown=chosen.markdown)
        if chosen.json is not None:
            write_atomic(chosen.json, (study.folder / "summary.json").read_bytes())
        _show(study)
        if not (study.folder / page.PARQUET).is_file():
            options.say(f"No {page.PARQUET}: it needs pyarrow; `pip install 'oneword[study]'`.")
        count += f" Report: {path}"
    print(count)
    for spec in ended.failed:
        print(f"  failed: {spec.name} ({_failure(study, spec)})")
    if ended.failed:
        print("Run again with --retry-failed to try them again.")
    return 1 if ended.failed else 0


def _shown(given: Sequence[str]) -> list[str]:
    """The words that make a study, without those that only say what to do with it now."""
    words, kept = list(given), []
    while words:
        word = words.pop(0)
        if word.partition("=")[0] in ("--rows", "--json", "--markdown"):
            if "=" not in word and words:
                words.pop(0)
        elif word not in ("--report", "--retry-failed"):
            kept.append(word)
    return kept


def _failure(study: Study, spec: Any) -> str:
    reason = json.loads(failure_file(study.folder, spec).read_text(encoding="utf-8"))["error"]
    return str(reason).strip().splitlines()[-1][:300]


def _dry_run(study: Study, target: Path | None) -> int:
    now = grid.standing(study)
    found = cost.estimate(study, now.left) if now.left else None
    hands = study.config.workers or study.config.num_processes
    plan: dict[str, Any] = {
        "concepts": list(study.subjects),
        "setups": list(study.arms),
        "seeds": list(study.config.seeds),
        "prompts": study.prompt_set,
        "jobs": {k: len(getattr(now, k)) for k in ("done", "failed", "left")},
        "jobs_left_by_setup": dict(Counter(spec.setup for spec in now.left)),
        "pictures": sum(study.pictures(spec) for spec in now.left),
        "cost": None if found is None else dataclasses.asdict(found) | {
            "processes": hands, "wall_s": found.wall_s(hands),
        },
    }  # fmt: skip
    if target is not None:
        write_json_atomic(target, plan)
    print(
        f"{len(study.subjects)} concepts x {len(study.arms)} setups x "
        f"{len(study.config.seeds)} seeds"
        + (f", and set sizes {list(study.config.set_sizes)}" if study.config.set_sizes else "")
        + f": {len(study.specs)} jobs, {len(now.done)} done, {len(now.failed)} failed, "
        f"{len(now.left)} left."
    )
    print(f"  concepts: {', '.join(study.subjects)}")
    for setup, count in plan["jobs_left_by_setup"].items():
        print(f"  {count:5d} x {setup}")
    if found is not None:
        _show_cost(found, plan["pictures"], hands)
    return 0


def _show_cost(found: Cost, pictures: int, hands: int) -> None:
    print(
        f"Training: {found.training_s / 3600:.2f} h ({found.training_pass_s * 3e3:.3g} ms for a "
        f"sample's step). Drawing: {pictures} pictures, {found.drawing_s / 3600:.2f} h "
        f"({found.picture_s:.3g} s for one)."
    )
    memory = "" if found.peak_mb is None else f" Peak memory: {found.peak_mb:.0f} MB."
    print(
        f"Together about {found.wall_s(hands) / 3600:.2f} h with {hands} "
        f"process{'es' if hands > 1 else ''}, timed on this machine just now.{memory}"
    )


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does, so that processes below are told to save and end."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _shown_progress(study: Study) -> Iterator[Callable[[str, str, Any], None]]:
    """A bar of jobs with the time left, and a line for each that ends."""
    console = Console(stderr=True)
    line = tenths(console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
    )
    before = len(study.specs) - len(grid.standing(study).left)
    meter = Meter(study)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("jobs", total=len(study.specs), completed=before, now="")
        ended = before

        def tell(name: str, kind: str, data: Any) -> None:
            nonlocal ended
            if kind == "message":
                console.print(f"{name}: {data}", highlight=False, markup=False)
                return
            if kind not in ("learning", "drawing", "ended"):
                return
            meter.tell(name, kind, data)
            if kind == "ended":
                ended += 1
                how = f"failed: {str(data).strip().splitlines()[-1]}" if data else "done"
                console.print(f"{name}: {how}", highlight=False, markup=False)
            left = meter.left_s()
            text = time_left(left)
            line(ended, len(study.specs), left, f"jobs: {ended}/{len(study.specs)}")
            if kind != "ended":
                text += f"  {name}: {kind} {data:.0%}"
            bar.update(task, completed=ended, now=text)

        yield tell


class Meter:
    """Time left, from the work done: samples through the denoiser, counted for every job.

    Args:
        study: Its plan.
        clock: Seconds.
    """

    def __init__(self, study: Study, clock: Callable[[], float] = time.monotonic) -> None:
        family = "microworld" if study.config.model.model in EMBEDDED else "*"
        self.learning = {s.name: study.training_passes(s, family) for s in study.specs}
        self.drawing = {s.name: study.drawing_passes(s) for s in study.specs}
        self.left = {spec.name for spec in grid.standing(study).left}
        self.total = sum(self.learning[n] + self.drawing[n] for n in self.left)
        self.parts: dict[str, float] = {}
        self.clock, self.started = clock, clock()

    def tell(self, name: str, kind: str, data: Any) -> None:
        """Take note of a job's event."""
        if name not in self.left:
            return
        whole = self.learning[name] + self.drawing[name]
        if kind == "learning":
            self.parts[name] = self.learning[name] * data
        elif kind == "drawing":
            self.parts[name] = self.learning[name] + self.drawing[name] * data
        else:
            self.parts[name] = whole

    def left_s(self) -> float | None:
        """Seconds to go; ``None`` before anything is done."""
        done = sum(self.parts.values())
        if not done:
            return None
        return (self.clock() - self.started) * (self.total - done) / done


_SHOWN = ("image similarity", "text similarity", "silhouette overlap", "concept seen",
          "edits obeyed", "DINO similarity")  # fmt: skip


def _show(study: Study) -> None:
    """Print some of the means, as many as a terminal has room for, and the findings."""
    summary = json.loads((study.folder / "summary.json").read_text(encoding="utf-8"))
    console = Console()
    table: Any = Table(title="Means over concepts")
    names = [m for m in _SHOWN if any(m in line for line in summary["scores"].values())]
    for name in ("setup", *names):
        justify = "left" if name == "setup" else "right"
        head = name.removesuffix(" similarity").removesuffix(" overlap")
        table.add_column(head, justify=justify, no_wrap=name == "setup", min_width=6)
    for setup, line in summary["scores"].items():
        table.add_row(setup, *(f"{line[n]['value']:.3f}" if n in line else "–" for n in names))
    console.print(table)
    for finding in summary["findings"]:
        if not finding["numbers"].startswith(("Not run", "Needs")):
            console.print(
                f"{finding['verdict']:>13}: {finding['claim']}", highlight=False, soft_wrap=True
            )
