"""``oneword train``: learn a word from a folder of pictures, or many words (``--jobs``)."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Sequence
from typing import Any

from oneword._files import hold, write_atomic
from oneword.cli import options, reports, screen
from oneword.cli.arguments import TrainArguments
from oneword.concepts import card, formats, hub, previews
from oneword.config.commands import command
from oneword.config.runs import TrainConfig
from oneword.errors import UserError
from oneword.models.contract import Backbone
from oneword.models.full_pipeline import check_full_pipeline, save_full_pipeline
from oneword.models.loading import load_backbone
from oneword.runs import train as runs
from oneword.runs.prepare import work_of
from oneword.runs.preview import preview_pictures
from oneword.runs.train import TrainOutcome
from oneword.training.processes import joined
from oneword.training.started import started


EXIT_CODES = {"finished": 0, "stopped": 0, "interrupted": 130}


def run(chosen: TrainArguments, words: Sequence[str]) -> int:
    """Train, with progress; the exit code says how it ended."""
    config = options.settings(TrainConfig, chosen)
    own = started()
    if chosen.preview_pictures:
        if own is None or own.rank == 0:
            show_pictures(config)
        return 0
    if chosen.rank_initializers:
        if own is None or own.rank == 0:
            ranking = runs.rank_initializers(config)
            options.tell("\n".join(f"{loss:.5f}  {word}" for word, loss in ranking.items()))
            options.write_json(chosen.json, ranking)
        return 0
    if chosen.dry_run:
        if own is None or own.rank == 0:
            backbone = _checked(chosen, config)
            options.tell(json.dumps(runs.dry_run(config, backbone), indent=1))
        return 0
    with joined(own, config.model.device) as processes:
        if not processes.is_first:
            with contextlib.suppress(UserError):  # the first one says it
                runs.train(config, processes=processes)
            return 0
        try:
            backbone = _checked(chosen, config)
            with screen.display() as shown:
                outcome = runs.train(
                    config, on_event=shown.on_run, backbone=backbone, processes=processes
                )
        except UserError:
            # the launcher stops all where one has died, and this is the one to say so
            if own is not None:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise
    options.write_json(chosen.json, summary(outcome))
    prompt = f"a photo of a {outcome.result.job.config.placeholder_token}"
    draw = reports.drawing(config.model.model, outcome.folder, prompt)
    again = command("train", *options.without_secrets(words))
    page = reports.write_run_report(outcome, commands=[again, draw])
    if outcome.concept_file is not None:
        options.tell(
            f"The word is in {outcome.concept_file}, the report in {page}. To draw with it:"
        )
        options.tell(f"  {draw}")
    code = EXIT_CODES.get(outcome.result.status, 1)
    if code or outcome.result.concept is None:
        return code
    if backbone is not None:
        folder = save_full_pipeline(backbone, [outcome.result.concept], outcome.folder)
        options.tell(f"{folder} is also a whole pipeline with the word in it; load it as a model.")
    return _upload(chosen, outcome) if chosen.push_to_hub else code


def _checked(chosen: TrainArguments, config: TrainConfig) -> Backbone | None:
    """Refuse what could not be done with the word afterwards; the model, where that needed it.

    Raises:
        UserError: it could not be uploaded, or not be put into the pipeline.
    """
    if chosen.push_to_hub:
        hub.check_upload(_repository(chosen), token=chosen.hub_token)
        card.check_folder(config.output_dir)
    if not chosen.save_as_full_pipeline:
        return None
    backbone = load_backbone(config.model, work_of(config))
    resolved = config.inversion.resolved(backbone.family)
    check_full_pipeline(backbone, resolved, config.output_dir, replace=config.replace)
    return backbone


def _repository(chosen: TrainArguments) -> str:
    return chosen.hub_model_id or chosen.output_dir.resolve().name


def _upload(chosen: TrainArguments, outcome: TrainOutcome) -> int:
    """Write the word's card and upload both; where that fails, say how to do it again."""
    folder, repository = outcome.folder, _repository(chosen)
    preview, sheet = previews.kept(folder / formats.LEARNED), folder / card.PREVIEW
    try:
        with hold(folder):
            if preview is not None and previews.may_write(sheet):
                write_atomic(sheet, preview)
            card.write_card(folder)
        address = card.push_concept(folder, repository, token=chosen.hub_token)
    except UserError as problem:
        again = command(
            "concept push", folder, repository, *["--token", "TOKEN"] * bool(chosen.hub_token)
        )
        options.say(
            f"The word is learned and saved in {folder}, but not uploaded: {problem} To upload "
            f"it: {again}"
        )
        return 1
    options.tell(f"Uploaded to {address}.")
    return 0


def show_pictures(config: TrainConfig, backbone: Backbone | None = None) -> None:
    """Write the sheet of a run's pictures, and say where it is."""
    path, seen = preview_pictures(config, backbone)
    for item in (*(f"skipped {one}" for one in seen.pictures.skipped), *seen.notes):
        options.say(item)
    options.tell(f"{len(seen.pictures.names)} pictures as the model will see them: {path}")


def summary(outcome: TrainOutcome) -> dict[str, Any]:
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
