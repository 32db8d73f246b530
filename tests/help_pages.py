"""What every help option prints, as the pages of ``docs/reference/cli``: ``make help-pages``."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from oneword.cli.arguments import COMMON, sub_verbs
from oneword.cli.main import VERBS, main


FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "cli"
WIDTH = "100"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each page's name, and the words after ``oneword`` that print it."""
    yield "oneword", ["--help"]
    for verb in VERBS:
        yield verb, [verb, "--help"]
        for sub_verb in sub_verbs(verb):
            yield f"{verb}-{sub_verb}", [verb, sub_verb, "--help"]
    yield "train-jobs", ["train", "--jobs", ".", "--help"]
    for name in COMMON:
        words = [word for verb in name.split() for word in (verb, *["."] * (verb == "--jobs"))]
        yield f"{name.replace(' --', '-').replace(' ', '-')}-all", [*words, "--help-all"]


def page(words: list[str]) -> str:
    """What a command prints, of a fixed width and without colour."""
    printed = io.StringIO()
    plain = {"COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(printed):
        code = main(words)
    if code:
        raise RuntimeError(f"oneword {' '.join(words)} ended with {code}.")
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().rstrip().splitlines())


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, words in commands():
        (FOLDER / f"{name}.txt").write_text(page(words), encoding="utf-8")
