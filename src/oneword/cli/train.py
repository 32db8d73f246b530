"""``oneword train``: learn a word from a folder of pictures, or many words (``--jobs``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from oneword._files import write_json_atomic
from oneword.cli import options, reports
from oneword.cli.arguments import TrainArguments
from oneword.cli.progress import tenths, time_left
from oneword.config.runs import TrainConfig
from oneword.runs import train as runs


EXIT_CODES = {"finished": 0, "stopped": 0, "interrupted": 130}


def run(chosen: TrainArguments, words: Sequence[str]) -> int:
    """Train, with progress; the exit code says how it ended."""
    config = options.settings(TrainConfig, chosen)
    if chosen.dry_run:
        print(json.dumps(runs.dry_run(config), indent=1))
        return 0
    with shown_progress() as tell:
        outcome = runs.train(config, on_event=tell)
    if chosen.json is not None:
        write_json_atomic(chosen.json, summary(outcome))
    model = [] if config.model.model == "microworld" else ["--model", config.model.model]
    prompt = f"a photo of a {outcome.result.job.config.placeholder_token}"
    draw = reports.command("generate", *model, "--concepts", outcome.folder, "--prompts", prompt)
    page = reports.write_run_report(outcome, commands=[reports.command("train", *words), draw])
    if outcome.concept_file is not None:
        print(f"The word is in {outcome.concept_file}, the report in {page}. Draw with it:")
        print(f"  {draw}")
    return EXIT_CODES.get(outcome.result.status, 1)


def summary(outcome: Any) -> dict[str, Any]:
    """An outcome as plain numbers."""
    result = outcome.result
    return {
        "status": result.status,
        "reason": result.reason,
        "steps": result.steps,
        "best_step": result.best_step,
        "losses": result.losses,
        "seconds": round(outcome.seconds, 2),
        "concept_file": str(outcome.concept_file) if outcome.concept_file else None,
        "folder": str(outcome.folder),
    }


@contextmanager
def shown_progress() -> Iterator[Callable[[str, Any], None]]:
    """A progress line with step, loss on the fixed batch, distance moved and time left."""
    console = Console(stderr=True)
    line = tenths(console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        task: list[Any] = []
        numbers = ""

        def tell(kind: str, data: Any) -> None:
            nonlocal numbers
            if kind == "plan":
                _show_plan(console, data)
            elif kind == "message":
                console.print(data, highlight=False, markup=False)
            elif kind == "preview":
                console.print(f"preview: {data}", highlight=False, markup=False)
            elif kind == "progress":
                step, total = data["step"], data["max_train_steps"]
                if not task:
                    task.append(bar.add_task("learning", total=total, numbers=""))
                numbers = (
                    f"loss {data['loss']:.4f} (best {data['best_loss']:.4f} at "
                    f"{data['best_step']})  moved {data['distance']:.2f}"
                )
                left_s = data["left_s"]
                bar.update(task[0], completed=step, numbers=f"{numbers}  {time_left(left_s)}")
                line(step, total, left_s, f"learning: {step}/{total}  {numbers}")

        yield tell
        if task:  # a run that stops early has no time left
            bar.update(task[0], numbers=numbers)


def _show_plan(console: Any, plan: dict[str, Any]) -> None:
    inversion = plan["config"]["inversion"]
    rates = ", ".join(
        f"{rate['absolute']:.3g} for {name} ({rate['relative']:.2g} of the vocabulary's deviation)"
        for name, rate in plan["learning_rate"].items()
    )
    preset = inversion["preset"]
    validated = "" if plan["preset_validated"] else " (published values, not validated here)"
    lines = [
        f"model {plan['config']['model']['model']} ({plan['family']}, {plan['dtype']} on "
        f"{plan['device']}), preset {preset}{validated}",
        f"{len(plan['pictures'])} pictures: {', '.join(plan['pictures'])}",
        *(f"skipped {item}" for item in plan["skipped"]),
        *plan["notes"],
        *filter(None, [plan["memory"]]),
        f"learning rate {rates}; up to {inversion['max_train_steps']} steps of "
        f"{inversion['train_batch_size']} samples",
    ]
    if plan["run"] == "resume":
        lines.append("going on where this run stopped")
    for line in lines:
        console.print(line, highlight=False, markup=False)
