"""Text from files, folders and settings, made safe for where a person reads it.

The strings of a downloaded file may contain anything: terminal commands, tags, a heading, a quote
that ends a command. There is one function here for each destination. All of them spell out control
characters, halves of surrogate pairs (names that are not UTF-8) and marks that change the direction
of writing, because a reader would not see them, or would see something else.
"""

from __future__ import annotations

import html as _html
import re
import shlex
import unicodedata
from collections.abc import Iterable


_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
# LRM, RLM, the embeddings, overrides and isolates
_TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# an underscore inside a word is not emphasis, and "clip_l" should stay readable
_MARKDOWN = re.compile(r"[\\`*\[\]|~$&<>]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BEGINS_A_BLOCK = re.compile(r"^(#|[-+=]|\d+(?=[.)](\s|$)))")


def is_control(char: str) -> bool:
    """Whether a character acts on a reader's screen instead of being shown."""
    return unicodedata.category(char) in _CONTROLS or char in _TURNING


def terminal(text: object, *, lines: bool = False) -> str:
    r"""Text for a terminal: invisible characters are spelled as in Python, ``\x1b``.

    Args:
        text: Anything that prints.
        lines: Keep line ends and tabs, if they come from the writer.
    """
    plain = str(text)
    if plain.isprintable():  # nothing of what is spelled is, and most text is
        return plain
    kept = "\n\t" if lines else ""
    return "".join(
        char.encode("unicode_escape").decode() if is_control(char) and char not in kept else char
        for char in plain
    )


def rich(text: object) -> str:
    """Text inside rich's markup: none of its brackets is a style."""
    from rich.markup import escape  # here, since --help does without rich

    return escape(terminal(text))


def html(text: object) -> str:
    """Text for HTML, between tags or in an attribute with quotes."""
    return _html.escape(terminal(text, lines=True), quote=True)


def markdown(text: object) -> str:
    """Text for Markdown, on one line: no heading, list, link, tag or table cell begins in it."""
    line = terminal(" ".join(str(text).split()))
    line = _MARKDOWN.sub(lambda m: _ENTITIES.get(m[0], f"\\{m[0]}"), line)
    return _BEGINS_A_BLOCK.sub(lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", line)


def markdown_code(text: object) -> str:
    """Text for Markdown as code on one line, which may be in a table."""
    line = terminal(" ".join(str(text).split())).replace("|", "\\|") or " "
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    space = " " if "`" in (line[0], line[-1]) else ""
    fence = "`" * (longest + 1)
    return f"{fence}{space}{line}{space}{fence}"


def shell(words: Iterable[object]) -> str:
    """Words as one line that a person can paste into a shell (bash, zsh, ksh)."""
    return " ".join(_quoted(str(word)) for word in words)


def _quoted(word: str) -> str:
    if not any(map(is_control, word)):
        return shlex.quote(word)

    def spelled(char: str) -> str:
        if is_control(char):
            return "".join(f"\\x{b:02x}" for b in char.encode("utf-8", "surrogateescape"))
        return f"\\{char}" if char in "\\'" else char

    return f"$'{''.join(map(spelled, word))}'"
