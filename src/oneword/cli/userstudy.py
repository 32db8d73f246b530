"""``oneword userstudy``: ask people about a study's pictures, and read what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from oneword._escaping import rich, terminal
from oneword.cli import options
from oneword.cli.arguments import (
    UserStudyCaptionsArguments,
    UserStudyMakeArguments,
    UserStudyReadArguments,
)
from oneword.cli.screen import Console
from oneword.config.commands import command
from oneword.config.scoring import UserStudyConfig
from oneword.study.userstudy import answers, captions, forms, report


def run(chosen: Any, words: Sequence[str]) -> int:
    """Run the sub-verb whose arguments these are."""
    _FOLLOW[type(chosen)](chosen, words)
    return 0


def _make(chosen: UserStudyMakeArguments, _words: Sequence[str]) -> None:
    key = forms.make(options.settings(UserStudyConfig, chosen))
    options.tell(f"Models: {', '.join(key.models)}.")
    options.tell(forms.arithmetic(key))
    options.tell(
        f"Forms: {chosen.output_dir}/likeness-*.html and match-*.html, listed in "
        f"{chosen.output_dir / forms.TASKS}. Keep {chosen.output_dir / forms.KEY} private: it "
        "says which model made which picture, and it is needed to read the answers."
    )


def _read(chosen: UserStudyReadArguments, words: Sequence[str]) -> None:
    key = forms.load(chosen.forms)
    collected = answers.collect(key, answers.read_files(chosen.answers))
    for one in collected.left_out:
        options.say(terminal(f"{one.name} is left out ({one.reason}): {one.text}"))
    found = report.write(key, collected, chosen.output_dir, command=command("userstudy", *words))
    options.write_json(chosen.json, found)
    for name, outcome in found["outcomes"].items():
        Console().print(_table(name, outcome))
    counts = ", ".join(f"{num} {why}" for why, num in found["left_out"].items()) or "none"
    options.tell(f"{found['counted']} of {found['answers']} forms count; left out: {counts}.")
    options.tell(f"Report: {chosen.output_dir / report.REPORT}")


def _table(name: str, outcome: Mapping[str, Any]) -> Table:
    """Mean ranks of one questionnaire, the best first."""
    table = Table(title=f"By {name}: {outcome['people']} people, {outcome['rankings']} pages")
    for head in ("model", "mean rank", "95 % interval", "ranked first"):
        table.add_column(head, justify="left" if head == "model" else "right")
    for model, mean in sorted(outcome["mean_rank"].items(), key=lambda one: one[1]["value"]):
        known = mean["low"] == mean["low"]
        interval = f"{mean['low']:.2f} to {mean['high']:.2f}" if known else "–"
        first = f"{outcome['ranked_first'][model]['value']:.0%}"
        table.add_row(rich(model), f"{mean['value']:.2f}", interval, first)
    return table


def _captions(chosen: UserStudyCaptionsArguments, _words: Sequence[str]) -> None:
    if chosen.answers:
        path = captions.take(chosen.pictures, answers.read_files(chosen.answers))
        options.tell(f"Descriptions: {path}")
        return
    path = captions.make(
        chosen.pictures,
        chosen.output_dir,
        each=chosen.each,
        seed=chosen.seed,
        consent=chosen.consent,
    )
    options.tell(f"Page: {path}")


_FOLLOW: dict[type[Any], Callable[[Any, Sequence[str]], None]] = {
    UserStudyMakeArguments: _make,
    UserStudyReadArguments: _read,
    UserStudyCaptionsArguments: _captions,
}
