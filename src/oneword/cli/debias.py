"""``oneword debias``: a fairer word from a small diverse set, and who each word shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from oneword._files import hold, write_json_atomic
from oneword.cli import options, reports, screen
from oneword.cli.arguments import DebiasArguments
from oneword.cli.screen import Console
from oneword.cli.train import EXIT_CODES
from oneword.config.commands import command
from oneword.config.runs import DebiasConfig
from oneword.evaluation import fairness, report
from oneword.evaluation.fairness import Fairness
from oneword.images import contact_sheet, save_png


def run(chosen: DebiasArguments, words: Sequence[str]) -> int:
    """Learn, draw both words, print the table, and write the report."""
    config = options.settings(DebiasConfig, chosen)
    with hold(config.output_dir):
        return _debias(config, chosen.json, words)


def _debias(config: DebiasConfig, target: Path | None, words: Sequence[str]) -> int:
    with screen.display() as shown:
        outcome, found = fairness.debias(
            config,
            on_event=shown.on_run,
            on_word=lambda done: shown.bar("drawing both words", 2).show(done),
        )
    concept = outcome.result.concept
    if found is None or concept is None:
        options.say(outcome.result.reason)
        return EXIT_CODES.get(outcome.result.status, 1)
    for name, pixels in zip(("old", "new"), found.pictures, strict=True):
        save_png(contact_sheet(pixels), config.output_dir / f"{name}.png")
    page = report.Report(
        title=f"A fairer “{config.word}”",
        lead=[
            f"The word {concept.placeholder_token} was learned from "
            f"{len(outcome.result.job.pictures)} pictures, starting from “{config.word}”. It is "
            f"in {outcome.concept_file}."
        ],
        sections=[
            *fairness.sections(found),
            report.Section(
                title="Training pictures", rows=[report.row("", outcome.result.job.pictures)]
            ),
            report.Section(title="Reproduce", commands=[command("debias", *words)]),
        ],
    )
    path = report.write(page, config.output_dir / reports.REPORT)
    write_json_atomic(config.output_dir / "fairness.json", found.plain())
    options.write_json(target, found.plain())
    _show(found)
    options.tell(f"The word is in {outcome.concept_file}, the report in {path}.")
    return 0


def _show(found: Fairness) -> None:
    head, *lines = fairness.table(found)
    console = Console()
    table: Any = Table(title=f"Who is shown, read by {found.reader}")
    for i, text in enumerate(head):
        table.add_column(text, justify="left" if i == 0 else "right")
    for line in lines:
        table.add_row(*line, style="bold" if line[-1] else None)
    console.print(table)
    name, *values = found.meaning
    kept = ", ".join(f"{w} {v:.2f}" for w, v in zip(found.words, values, strict=True))
    console.print(f"Meaning kept, {name}: {kept}.", highlight=False, markup=False)
    if found.reader != "the oracle":
        for caveat in fairness.CAVEATS:
            console.print(caveat, highlight=False, markup=False)
