"""The report of a run, put together from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oneword._files import read_json
from oneword.concepts import deltas
from oneword.config.commands import command
from oneword.config.model import ModelConfig
from oneword.evaluation import report
from oneword.evaluation.report import Report, Section
from oneword.images import read_image
from oneword.runs import sheets, words
from oneword.runs.folder import RunFolder
from oneword.runs.train import TrainOutcome


REPORT = "report.html"


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
    file = result.job.config.initializer_file
    lead = [
        f"The word {token} was learned from {len(result.job.pictures)} pictures on {model}"
        + (f", starting from the word “{started}”" if started else "")
        + (f", starting from {file}" if file else "")
        + (", starting from what an encoder makes of them" if "encoder" in provenance else "")
        + f", in {result.steps} steps"
        + (f" and {provenance['train_time_s']:.0f} s" if "train_time_s" in provenance else "")
        + f"; the word of step {result.best_step} was kept.",
    ]
    if result.concept is not None and result.concept.deltas:
        changed = result.concept.deltas
        lead.append(
            f"It also changes the model: {len(changed)} weight deltas of "
            f"{', '.join(sorted({name.partition('.')[0] for name in changed}))}, "
            f"{deltas.size_mb(changed):.2g} MB."
        )
    if result.reason:
        lead.append(f"It ended as “{result.status}”: {result.reason}")
    folder = RunFolder(outcome.folder, steps=1)
    if choice := words.choice_of(folder):
        lead.append(
            f"The run's word is {words.said_of(choice)}, one of those saved during training."
        )
    compared = sheets.read_sheets(folder)
    steps = {sheet.step for sheet in compared}
    others = [  # of an older version, or of other prompts
        (step, read_image(path))
        for path in folder.previews()
        if (step := _step_of(path)) not in steps
    ]
    sections: list[Section] = report.learning(
        training=result.job.pictures,
        names=record.get("pictures") or [""] * len(result.job.pictures),
        previews=others,
        sheets=compared,
        saved=[*folder.words()],
        metrics=folder.course(),
        best_step=result.best_step,
    )
    if folder.words():
        commands = [*commands, command("choose", outcome.folder)]
    sections.append(report.Section(title="Reproduce", commands=commands))
    return report.Report(title=f"One word: {token}", lead=lead, sections=sections)


def write_run_report(outcome: TrainOutcome, *, commands: Sequence[str]) -> Path | None:
    """Write ``report.html`` and ``steps.png`` into the run folder; nothing where nothing was learned."""
    if outcome.result.concept is None:
        return None
    folder = RunFolder(outcome.folder, steps=1)
    found = sheets.read_sheets(folder)
    if len(found) > 1:
        columns = sheets.columns_of(found, folder.words())
        sheets.save_steps(columns, found[0].prompts, found[0].seeds, folder.path / sheets.STEPS)
    return report.write(run_report(outcome, commands=commands), outcome.folder / REPORT)


def _step_of(preview: Path) -> int:
    return int(preview.stem.removeprefix("step-"))
