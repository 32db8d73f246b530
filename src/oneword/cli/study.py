"""``oneword study``: the paper's quantitative analysis, as a grid of jobs."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from oneword._files import read_json
from oneword.cli import options, screen
from oneword.cli.arguments import StudyArguments
from oneword.cli.screen import Console, Display
from oneword.config.commands import command
from oneword.config.model import is_embedded
from oneword.config.scoring import StudyConfig
from oneword.errors import ConfigError
from oneword.runs.events import Advanced, Ended, Event, Message, OnEvent, interrupted
from oneword.study import cost, grid, methods, page, pictures
from oneword.study.cost import Cost
from oneword.study.plan import Study
from oneword.study.work import failure_file


def run(chosen: StudyArguments, words: Sequence[str]) -> int:
    """Run the grid, then write the report; 1 where a job failed."""
    study = Study(options.settings(StudyConfig, chosen))
    for note in study.notes:
        options.say(note)
    setups = [arm.setup for arm in study.arms.values()]
    if missing := methods.downloads(study.config, setups):
        options.say(f"Not on this machine, and downloaded when needed: {', '.join(missing)}.")
    if chosen.markdown is not None:
        page.around(chosen.markdown)  # refuses a page without its marks
    if chosen.rows is not None:
        count = grid.take_in(study, chosen.rows)
        options.say(f"Imported {count} jobs from {chosen.rows}.")
    if chosen.dry_run:
        return _dry_run(study, chosen.json, chosen.card_tflops)
    if chosen.report:
        ended = grid.standing(study)
    else:
        with interrupted(), screen.display() as shown:
            try:
                ended = grid.run(study, on_event=_watched(study, shown))
            except KeyboardInterrupt:
                options.say("Stopped. To resume, run the same command again.")
                raise
    count = f"{len(ended.done)} of {len(study.specs)} jobs are done."
    if ended.done or chosen.report:
        shown = _shown(words)
        path = page.write(
            study,
            command=command("study", *shown),
            markdown=chosen.markdown,
            figures=chosen.figures_dir,
        )
        summary = _summary(study)
        options.write_json(chosen.json, summary)
        _show(summary)
        if not (study.folder / page.PARQUET).is_file():
            options.say(
                f"Wrote no {page.PARQUET} because pyarrow is missing; pip install 'oneword[study]'."
            )
        count += f" Report: {path}"
        for name in study.figures:
            if (study.folder / pictures.PAGES[name]).is_file():
                count += f" Pictures: {study.folder / pictures.PAGES[name]}"
    options.tell(count)
    for spec in ended.failed:
        options.tell(f"  failed: {spec.name} ({_failure(study, spec)})")
    for label, why in grid.absences(study).items():
        options.tell(f"  not available: {label} ({why})")
    if ended.absent:
        options.tell("Once what is missing is here, run again with --retry-failed.")
    if ended.failed:
        options.tell("To try them again, run again with --retry-failed.")
    return 1 if ended.failed else 0


def _shown(given: Sequence[str]) -> list[str]:
    """The words that make a study, without those that only say what to do with it now."""
    words, kept = list(given), []
    while words:
        word = words.pop(0)
        if word.partition("=")[0] in ("--rows", "--json", "--markdown", "--figures-dir"):
            if "=" not in word and words:
                words.pop(0)
        elif word not in ("--report", "--retry-failed"):
            kept.append(word)
    return kept


def _failure(study: Study, spec: Any) -> str:
    path = failure_file(study.folder, spec)
    reason = read_json(path, {"error": str}, error=ConfigError)["error"]
    return (reason.strip().splitlines() or ["for no known reason"])[-1][:300]


_ESTIMATE = {"value": (float, type(None))}
_SUMMARY = {
    "scores": {str: {str: {str: _ESTIMATE}}},
    "findings": [
        {"of": str, "summary": str, "claim": str, "numbers": str, "corrected": str}
        | dict.fromkeys(("by_oracle", "by_oracle_corrected"), (str, type(None)))
    ],
}


def _summary(study: Study) -> dict[str, Any]:
    """What ``page.write`` has just written."""
    return read_json(study.folder / "summary.json", _SUMMARY, error=ConfigError)


def _dry_run(study: Study, target: Path | None, tflops: float) -> int:
    now = grid.standing(study)
    found = cost.estimate(study, now.left) if now.left else None
    hands = study.config.workers or study.config.num_processes
    plan: dict[str, Any] = {
        "concepts": list(study.subjects),
        "setups": list(study.arms),
        "seeds": list(study.config.seeds),
        "prompts": study.prompt_set,
        "jobs": now.counts,
        "jobs_left_by_setup": dict(Counter(spec.setup for spec in now.left)),
        "pictures": sum(study.pictures(spec) for spec in now.left),
        "cost": None if found is None else dataclasses.asdict(found) | {
            "processes": hands, "wall_s": found.wall_s(hands),
            "gpu_hours": sum(found.gpu_hours(tflops)), "card_tflops": tflops,
        },
    }  # fmt: skip
    options.write_json(target, plan)
    options.tell(
        f"{len(study.subjects)} concepts x {len(study.arms)} setups x "
        f"{len(study.config.seeds)} seeds"
        + (f", and set sizes {list(study.config.set_sizes)}" if study.config.set_sizes else "")
        + f": {len(study.specs)} jobs, {len(now.done)} done, {len(now.failed)} failed, "
        f"{len(now.left)} left."
    )
    if now.absent:
        options.tell(f"  {len(now.absent)} belong to methods that are not available here.")
    options.tell(f"  concepts: {', '.join(study.subjects)}")
    for setup, count in plan["jobs_left_by_setup"].items():
        options.tell(f"  {count:5d} x {setup}")
    if found is not None:
        _show_cost(found, plan["pictures"], hands, tflops)
        if counted := [name for name in study.baselines if name not in found.guided_s]:
            options.tell(
                "These cost more than estimated, because they are counted as drawings of the "
                f"model: {', '.join(counted)}."
            )
    return 0


def _show_cost(found: Cost, pictures: int, hands: int, tflops: float) -> None:
    options.tell(
        f"Training: {found.training_s / 3600:.2f} h ({found.training_pass_s * 3e3:.3g} ms per "
        f"sample and step). Drawing: {pictures} pictures, {found.drawing_s / 3600:.2f} h "
        f"({found.picture_s:.3g} s each)."
    )
    for setup, seconds in found.guided_s.items():
        options.tell(f"{setup}, which optimises every picture: {seconds / 3600:.2f} h.")
    memory = "" if found.peak_mb is None else f" Peak memory: {found.peak_mb:.0f} MB."
    options.tell(
        f"Total: about {found.wall_s(hands) / 3600:.2f} h with {hands} "
        f"process{'es' if hands > 1 else ''}, timed on this machine just now.{memory}"
    )
    if found.training_flop is None or found.drawing_flop is None:
        return
    training, drawing = found.gpu_hours(tflops)
    options.tell(
        f"Counted: {found.training_flop:.3g} operations of training and {found.drawing_flop:.3g} of "
        f"drawing. A GPU that does {tflops:g} TFLOP/s (--card-tflops) takes {training:.3g} + "
        f"{drawing:.3g} = {training + drawing:.3g} hours. Assumed: it does so all the time. Left "
        "out: loading, networks that a setup adds, gradients of weights that it changes, and "
        "methods that optimise every picture."
    )


def _watched(study: Study, display: Display) -> OnEvent:
    """A bar of jobs with the time left, and a line for each that ends."""
    meter = Meter(study)
    ended = len(study.specs) - len(grid.standing(study).left)
    bar = display.bar("jobs", len(study.specs))
    bar.show(ended)

    def on_event(event: Event) -> None:
        nonlocal ended
        if isinstance(event, Message | Ended):
            display.say(f"{event.job}: {event.text}")
        if isinstance(event, Advanced | Ended):
            meter.tell(event)
            now = ""
            if isinstance(event, Ended):
                ended += 1
            else:
                now = f"{event.job}: {event.doing} {event.share:.0%}"
            bar.show(ended, left_s=meter.left_s(), now=now)

    return on_event


class Meter:
    """Time left, from the work done: samples through the denoiser, counted for every job.

    Args:
        study: Its plan.
        clock: Seconds.
    """

    def __init__(self, study: Study, clock: Callable[[], float] = time.monotonic) -> None:
        family = "microworld" if is_embedded(study.config.model.model) else "*"
        self.learning = {s.name: study.training_passes(s, family) for s in study.specs}
        self.drawing = {s.name: study.drawing_passes(s) for s in study.specs}
        self.left = {spec.name for spec in grid.standing(study).left}
        self.total = sum(self.learning[n] + self.drawing[n] for n in self.left)
        self.parts: dict[str, float] = {}
        self.clock, self.started = clock, clock()

    def tell(self, event: Advanced | Ended) -> None:
        """Take note of how far a job is."""
        name = event.job
        if name not in self.left:
            return
        learning, drawing = self.learning[name], self.drawing[name]
        if isinstance(event, Ended):
            self.parts[name] = learning + drawing
        elif event.doing == "learning":
            self.parts[name] = learning * event.share
        else:
            self.parts[name] = learning + drawing * event.share

    def left_s(self) -> float | None:
        """Seconds to go; ``None`` before anything is done."""
        done = sum(self.parts.values())
        if not done:
            return None
        return (self.clock() - self.started) * (self.total - done) / done


_SHOWN = ("image similarity", "text similarity", "silhouette overlap", "concept seen",
          "edits obeyed", "background leaked", "DINO similarity")  # fmt: skip


def _show(summary: dict[str, Any]) -> None:
    """Print some of the means, as many as a terminal has room for, and the findings."""
    console = Console()
    for kind, scores in summary["scores"].items():
        console.print(_table(kind, scores))
    for finding in summary["findings"]:
        if not finding["numbers"].startswith(("Not run", "Needs")):
            of = f" ({finding['of']})" if len(summary["scores"]) > 1 else ""
            said = f"{finding['summary']}; corrected: {finding['corrected']}"
            if finding["by_oracle"] is not None:
                said += f"; by the oracle: {finding['by_oracle']}"
                said += f"; corrected: {finding['by_oracle_corrected']}"
            console.print(f"{said}: {finding['claim']}{of}", highlight=False, soft_wrap=True)


def _table(kind: str, scores: dict[str, Any]) -> Any:
    """Some of the means of one kind of concept."""
    table: Any = Table(title=f"Means over {kind}")
    names = [m for m in _SHOWN if any(m in line for line in scores.values())]
    for name in ("setup", *names):
        justify = "left" if name == "setup" else "right"
        head = name.removesuffix(" similarity").removesuffix(" overlap")
        table.add_column(head, justify=justify, no_wrap=name == "setup", min_width=6)
    for setup, line in scores.items():
        means = [line.get(name, {}).get("value") for name in names]
        table.add_row(setup, *("–" if mean is None else f"{mean:.3f}" for mean in means))
    return table
