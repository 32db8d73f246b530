"""The report of a run, put together from its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneword._escaping import shell
from oneword._files import read_bytes, read_json
from oneword.cli.arguments import EditArguments, GenerateArguments
from oneword.concepts import deltas
from oneword.config.model import ModelConfig
from oneword.evaluation import report
from oneword.evaluation.report import Report, Section
from oneword.generation.generate import Drawing
from oneword.generation.wildcards import as_text
from oneword.images import MAX_BYTES, read_image
from oneword.runs import sheets, words
from oneword.runs.folder import RunFolder
from oneword.runs.train import TrainOutcome


REPORT = "report.html"


def command(verb: str, *words: Any) -> str:
    """A command as a person can paste it."""
    return shell(["oneword", *verb.split(), *words])


def drawing(model: str, concepts: Path | str, prompt: str) -> str:
    """The command that draws with a word, on the model that it was learned on."""
    named = [] if model == ModelConfig().model else ["--model", model]
    return command("generate", *named, "--concepts", concepts, "--prompts", prompt)


def told_how(drawing: Drawing, chosen: GenerateArguments | EditArguments) -> Drawing:
    """A drawing whose every picture says the command that makes it again, and what it starts from.

    Args:
        drawing: Pictures.
        chosen: How they were made, the model by its name.
    """
    starts = {
        f"{name}_sha256": hashlib.sha256(read_bytes(path, most=MAX_BYTES)).hexdigest()
        for name in ("image", "mask_image", "picture", "mask")
        if (path := getattr(chosen, name, None)) is not None
    }
    facts = [
        starts | {"command": _again(chosen, drawing.settings, prompt, seed)}
        for prompt, seed in zip(drawing.prompts, drawing.seeds, strict=True)
    ]
    return drawing.told(facts)


_AS_LOADED = ("vae", "clip_skip", "single_file_config", "variant", "revision", "weights", "dtype")
_AS_DRAWN = ("guidance_scale", "num_inference_steps", "sampler", "emphasis")
_AS_EDITED = ("mask", "background", "mask_growth", "pixel_blending", "strength", "invert")


def _again(
    chosen: GenerateArguments | EditArguments, settings: Mapping[str, str], prompt: str, seed: int
) -> str:
    """The command that makes one picture again."""
    given = [("model", settings["model"])]
    given += [(n, v) for n in _AS_LOADED if (v := getattr(chosen.model, n)) not in (None, "auto")]
    given += [("pool", chosen.model.pool)] if chosen.model.pool != ModelConfig().pool else []
    size = chosen.sampling.height, chosen.sampling.width
    given += [(n, v) for n, v in zip(("height", "width"), size, strict=True) if v is not None]
    given += [(name, settings[name]) for name in _AS_DRAWN]
    negative = chosen.sampling.negative_prompt
    given += [("negative_prompt", negative)] if negative else []
    if isinstance(chosen, EditArguments):
        unset = {field.name: field.default for field in dataclasses.fields(chosen)}
        given += [(n, v) for n in _AS_EDITED if (v := getattr(chosen, n)) != unset[n]]
        verb, asked = ["edit", chosen.picture], f"--prompt={prompt}"
    else:
        over = [("image", chosen.image), ("mask_image", chosen.mask_image)]
        given += [(name, path) for name, path in over if path is not None]
        given += [("strength", chosen.strength)] if chosen.image is not None else []
        tokens = json.loads(settings["concepts"])
        verb, asked = ["generate"], f"--prompts={as_text(prompt, tokens)}"
    words: list[Any] = [f"--{name.replace('_', '-')}={value}" for name, value in given]
    words += ["--concepts", *chosen.concepts] if chosen.concepts else []
    words += ["--replace"] * chosen.replace
    words += ["--no-safety-checker"] * (not chosen.model.safety_checker)
    return command(*verb, *words, asked, "--seeds", seed)


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
    folder = RunFolder(outcome.folder, steps=1)
    if choice := words.choice_of(folder):
        lead.append(f"The run's word is {words.said_of(choice)}, among those saved on the way.")
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
    sections.append(report.Section(title="Again", commands=commands))
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
