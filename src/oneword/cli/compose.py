"""``oneword compose``: several words learned together, to stand in one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from oneword.cli import options, progress, reports
from oneword.cli.train import EXIT_CODES
from oneword.config.runs import ComposeConfig


@dataclass(frozen=True, kw_only=True)
class ComposeArguments(ComposeConfig):
    """Learn several words together, so that they can stand in one picture.

    Words learned apart can be drawn together, too: oneword generate --concepts A B.
    """


def run(arguments: Sequence[str]) -> int:
    """Learn, and say how to draw."""
    chosen, notes = options.parse(ComposeArguments, "compose", arguments)
    for note in notes:
        options.say(note)
    config = ComposeConfig(
        **{f.name: getattr(chosen, f.name) for f in dataclasses.fields(ComposeConfig)}
    )
    from oneword.runs import compose as composition

    with progress.counting("learning together, steps") as show:
        results, file = composition.compose(config, on_step=show)
    if file is None:
        worst = next(r for r in results if r.status not in ("finished", "stopped"))
        token = worst.job.config.placeholder_token
        if worst.status == "interrupted":
            options.say("Stopped; run the same command again to go on.")
        else:
            options.say(f"{token} came to nothing: {worst.reason}")
        return EXIT_CODES.get(worst.status, 1)
    first, second, *_ = config.placeholder_tokens
    model = [] if config.model.model == "microworld" else ["--model", config.model.model]
    prompt = f"a photo of a {first} next to a {second}"
    print(f"{len(results)} words are in {file}. Draw with them:")
    draw = reports.command("generate", *model, "--concepts", config.output_dir, "--prompts", prompt)
    print(f"  {draw}")
    return 0
