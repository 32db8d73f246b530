"""``oneword encoder``: train what maps pictures of a thing to its word at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from oneword.cli import options, screen
from oneword.cli.arguments import EncoderTrainArguments
from oneword.config.commands import command
from oneword.config.encoder import EncoderConfig
from oneword.runs.encoder import train_encoder


def run(chosen: EncoderTrainArguments, words: Sequence[str]) -> int:  # noqa: ARG001  (its shape)
    """Train, with progress; 130 where it was stopped."""
    config = options.settings(EncoderConfig, chosen)
    deadline = options.Deadline(chosen.minutes)
    with screen.display() as shown:
        counters: dict[str, screen.Counter] = {}

        def on_progress(what: str, done: int, total: int, numbers: str) -> None:
            if what not in counters:
                counters[what] = shown.counting(what)
            counters[what](done, total, numbers)
            if what == "steps":
                deadline.check()

        outcome = train_encoder(config, on_progress=on_progress, on_message=shown.say)
    options.write_json(
        chosen.json,
        dataclasses.asdict(outcome) | {"file": str(outcome.file) if outcome.file else None},
    )
    if outcome.file is None and deadline.is_over:
        options.tell(deadline.said)
        return 0
    if outcome.file is None:
        options.tell(f"Stopped after step {outcome.steps}. To resume, run the same command again.")
        return 130
    before = "Training had already finished. " if outcome.was_finished else ""
    speed = f", {outcome.samples_per_s:.3g} samples a second" if outcome.samples_per_s else ""
    options.tell(
        f"{before}The encoder is in {outcome.file}: {outcome.steps} steps on {outcome.num_things} "
        f"things{speed}. To learn a word with it:"
    )
    own = [
        "--model",
        config.model.model,
        "--initializer",
        "encoder",
        "--encoder",
        config.output_dir,
    ]
    own += ["--num-vectors", config.num_vectors] * (config.num_vectors > 1)
    own += ["--max-train-steps", 20, "--train-data-dir", "PICTURES"]
    options.tell("  " + command("train", *own))
    return 0
