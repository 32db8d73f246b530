r"""Wildcards in prompts: ``{red|green|blue}``, and ``__animals__`` for a line of animals.txt.

The choice depends only on the picture's seed, so that a picture can be drawn again by itself, and
another prompt with the same number of wildcards gets the same choices. Braces without "|" are text,
and so are ``\{`` and ``\}``.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable
from pathlib import Path

from oneword._files import within
from oneword.prompts import PromptError, read_prompts


_DEEPEST = 10
_MOST = 100_000  # most characters of a prompt after wildcards
_FILE = re.compile(r"(?<!\w)__((?!_)[\w./][\w./-]*?)__(?!\w)")
_ODDS = re.compile(r"\s*[\d.-]+(\$\$|::)")


def has_wildcards(prompt: str, words: Iterable[str] = ()) -> bool:
    """Whether a prompt has wildcards; loaded words are not."""
    return any(m[0] not in {*words} for m in _FILE.finditer(prompt)) or _group(prompt) is not None


def resolved(
    prompt: str, seed: int, *, folder: Path | None = None, words: Iterable[str] = ()
) -> str:
    """A prompt with its wildcards chosen.

    Args:
        prompt: The prompt as written.
        seed: The picture's seed.
        folder: Folder with the files of ``__NAME__``, one choice per line.
        words: Loaded words, which are not wildcards, however they are written.

    Raises:
        PromptError: a file or the folder is missing, its name leads out of the folder, wildcards
            contain each other without end, or a number of choices is requested.
    """
    known = {*words}
    # random() gives the same numbers in every version of Python, with a text as the seed
    chosen = _chosen(prompt, random.Random(f"wildcards {seed}"), folder, known, 0)
    return _text(chosen)


def as_text(prompt: str, words: Iterable[str] = ()) -> str:
    """A prompt that is read as this text, with what looks like a wildcard escaped."""
    special = has_wildcards(prompt, words) or "\\{" in prompt or "\\}" in prompt
    return re.sub(r"([{}])", r"\\\1", prompt) if special else prompt


def _text(chosen: str) -> str:
    return chosen.replace("\\{", "{").replace("\\}", "}")


def _chosen(
    text: str, draw: random.Random, folder: Path | None, words: set[str], depth: int
) -> str:
    """A text with its wildcards chosen, from left to right."""
    if depth > _DEEPEST:
        raise PromptError(
            f"Wildcards must be nested at most {_DEEPEST} deep, got more in {text[:80]!r}; does a "
            "file contain its own name?"
        )
    out = ""
    while True:
        group = _group(text)
        file = next((m for m in _FILE.finditer(text) if m[0] not in words), None)
        if group is None and file is None:
            return out + text
        if file is None or (group is not None and group[0] < file.start()):
            assert group is not None
            start, end, options = group
        else:
            start, end = file.span()
            options = list(_lines(file[1], folder))
        picked = options[int(draw.random() * len(options))]
        if odds := next(filter(None, map(_ODDS.match, options)), None):
            raise PromptError(
                f"Wildcards must be plain choices, got {odds[0]!r} in {text[start:end][:80]!r}; "
                "numbers and odds of choices are not supported."
            )
        out += text[:start] + _chosen(picked, draw, folder, words, depth + 1)
        text = text[end:]
        if len(out) > _MOST:
            raise PromptError(
                f"A prompt must have at most {_MOST} characters, got more from its wildcards."
            )


def _group(text: str) -> tuple[int, int, list[str]] | None:
    """The first outermost ``{a|b}``: its position and options."""
    opened: list[tuple[int, list[int]]] = []  # start of a brace, and the bars in it
    found: tuple[int, int, list[int]] | None = None
    for match in re.finditer(r"\\[{}]|[{}|]", text):
        sign, place = match[0], match.start()
        if sign == "{":
            opened.append((place, []))
        elif sign == "|" and opened:
            opened[-1][1].append(place)
        elif sign == "}" and opened:
            start, bars = opened.pop()
            if bars and (found is None or start < found[0]):
                found = start, place + 1, bars
            if found is not None and not any(bars for _, bars in opened):
                break
    if found is None:
        return None
    start, end, bars = found
    cuts = [start, *bars, end - 1]
    return start, end, [text[a + 1 : b] for a, b in itertools.pairwise(cuts)]


def _lines(name: str, folder: Path | None) -> tuple[str, ...]:
    """The choices in a file."""
    if folder is None:
        raise PromptError(
            f"Cannot read the wildcard __{name}__ without the folder of such files; pass "
            "--wildcard-dir."
        )
    path = within(folder, f"{name}.txt", error=PromptError)
    if not path.exists():
        there = sorted(
            p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.txt")
        )[:20]
        raise PromptError(
            f"A wildcard must be a file in {folder}, got __{name}__; files there: "
            f"{', '.join(there) or 'none'}."
        )
    return read_prompts(path)
