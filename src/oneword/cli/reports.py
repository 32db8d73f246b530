"""The report of a run, put together from its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oneword._escaping import shell
from oneword._files import FormError, check, parsed, read_json, read_lines
from oneword.concepts import deltas
from oneword.config.model import ModelConfig
from oneword.evaluation import report
from oneword.evaluation.report import Report, Section
from oneword.images import read_image
from oneword.runs.train import TrainOutcome


REPORT = "report.html"


def command(verb: str, *words: Any) -> str:
    """A command as a person can paste it."""
    return shell(["oneword", *verb.split(), *words])


def drawing(model: str, concepts: Path | str, prompt: str) -> str:
    """The command that draws with a word, on the model that it was learned on."""
    named = [] if model == ModelConfig().model else ["--model", model]
    return command("generate", *named, "--concepts", concepts, "--prompts", prompt)


def run_report(outcome: TrainOutcome, *, commands: Sequence[str]) -> Report:
    """What a run was shown and how it learned; sections with drawings and scores may be put in."""
    result = outcome.result
    token = result.job.config.placeholder_token
    provenance = {} if result.concept is None else result.concept.provenance
    record = read_json(outcome.folder / "config.json", {"config": {"model": {"model": str}}})
    model = record["config"]["model"]["model"]
    started = provenance.get("initializer_token")
    lead = [
        f"The word {token} was learned from {len(result.job.pictures)} pictures on {model}"
        + (f", starting from the word “{started}”" if started else "")
        + f", in {result.steps} steps"
        + (f" and {provenance['train_time_s']:.0f} s" if "train_time_s" in provenance else "")
        + f"; the rows of step {result.best_step} were kept.",
    ]
    if result.concept is not None and result.concept.deltas:
        changed = result.concept.deltas
        lead.append(
            f"The concept also changes the model: {len(changed)} weight deltas of "
            f"{', '.join(sorted({name.partition('.')[0] for name in changed}))}, "
            f"{deltas.size_mb(changed):.2g} MB."
        )
    if result.reason:
        lead.append(f"It ended as “{result.status}”: {result.reason}")
    sections: list[Section] = report.learning(
        training=result.job.pictures,
        names=record.get("pictures") or [""] * len(result.job.pictures),
        previews=_previews(outcome.folder),
        metrics=_metrics(outcome.folder),
        best_step=result.best_step,
    )
    sections.append(report.Section(title="Again", commands=commands))
    return report.Report(title=f"One word: {token}", lead=lead, sections=sections)


def write_run_report(outcome: TrainOutcome, *, commands: Sequence[str]) -> Path | None:
    """Write ``report.html`` into the run folder, without scores; nothing where nothing was learned."""
    if outcome.result.concept is None:
        return None
    return report.write(run_report(outcome, commands=commands), outcome.folder / REPORT)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    found = []
    for line in read_lines(path, most=2**30) if path.exists() else ():
        with contextlib.suppress(FormError):  # torn by a crash
            found.append(check(parsed(line), {"step": int}))
    return found


def _previews(folder: Path) -> list[tuple[int, Any]]:
    found = sorted((folder / "previews").glob("step-*.png"))
    return [(int(path.stem.removeprefix("step-")), read_image(path)) for path in found]
