"""``oneword compose``: several words learned together, to stand in one picture."""

from __future__ import annotations

from collections.abc import Sequence

from oneword.cli import options, reports, screen
from oneword.cli.arguments import ComposeArguments
from oneword.cli.train import EXIT_CODES
from oneword.config.runs import ComposeConfig
from oneword.runs import compose as composition


def run(chosen: ComposeArguments, _words: Sequence[str]) -> int:
    """Learn, and say how to draw."""
    config = options.settings(ComposeConfig, chosen)
    with screen.counting("training together, steps") as show:
        results, file = composition.compose(config, on_step=show, on_message=options.say)
    if file is None:
        worst = next(r for r in results if r.status not in ("finished", "stopped"))
        token = worst.job.config.placeholder_token
        if worst.status == "interrupted":
            options.say("Stopped. To resume, run the same command again.")
        else:
            options.say(f"{token} was not learned: {worst.reason}")
        return EXIT_CODES.get(worst.status, 1)
    first, second, *_ = config.placeholder_tokens
    prompt = f"a photo of a {first} next to a {second}"
    options.tell(f"{len(results)} words are in {file}. To draw with them:")
    options.tell(f"  {reports.drawing(config.model.model, config.output_dir, prompt)}")
    return 0
