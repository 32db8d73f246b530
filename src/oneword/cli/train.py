"""``oneword train``: learn a word from a folder of pictures, or many words (``--jobs``)."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Sequence
from typing import Any

from oneword.cli import options, reports, screen
from oneword.cli.arguments import TrainArguments
from oneword.config.runs import TrainConfig
from oneword.errors import UserError
from oneword.runs import train as runs
from oneword.runs.train import TrainOutcome
from oneword.training.processes import joined
from oneword.training.started import started


EXIT_CODES = {"finished": 0, "stopped": 0, "interrupted": 130}


def run(chosen: TrainArguments, words: Sequence[str]) -> int:
    """Train, with progress; the exit code says how it ended."""
    config = options.settings(TrainConfig, chosen)
    own = started()
    if chosen.dry_run:
        if own is None or own.rank == 0:
            options.tell(json.dumps(runs.dry_run(config), indent=1))
        return 0
    with joined(own, config.model.device) as processes:
        if not processes.is_first:
            with contextlib.suppress(UserError):  # the first one says it
                runs.train(config, processes=processes)
            return 0
        try:
            with screen.display() as shown:
                outcome = runs.train(config, on_event=shown.on_run, processes=processes)
        except UserError:
            # the launcher stops all where one has died, and this is the one to say so
            if own is not None:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise
    options.write_json(chosen.json, summary(outcome))
    prompt = f"a photo of a {outcome.result.job.config.placeholder_token}"
    draw = reports.drawing(config.model.model, outcome.folder, prompt)
    page = reports.write_run_report(outcome, commands=[reports.command("train", *words), draw])
    if outcome.concept_file is not None:
        options.tell(f"The word is in {outcome.concept_file}, the report in {page}. Draw with it:")
        options.tell(f"  {draw}")
    return EXIT_CODES.get(outcome.result.status, 1)


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
