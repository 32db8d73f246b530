"""Commands and code on the pages: what stands in blocks, and in spans of the text."""

from __future__ import annotations

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path


ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^( *)(`{3,})(\w*)\n(.*?)^\1\2 *$", re.M | re.S)
_INDENTED = re.compile(r"(?:^\n|\A)((?:^(?: {4}.*)?\n)+)", re.M)
_ENDS = {"|", ";", "&&", "||", "&", ">", ">>", "2>", "<"}


def pages() -> list[Path]:
    """README, CONTRIBUTING and the pages of docs, but neither the log nor copies of help."""
    docs = ROOT / "docs"
    left_out = (docs / "log", docs / "reference" / "cli")
    found = [path for path in docs.rglob("*.md") if not {*left_out} & {*path.parents}]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def code(page: Path, *languages: str) -> list[str]:
    """A page's fenced blocks of some languages; "sh" takes blocks without a language as well."""
    wanted = {*languages} | ({""} if "sh" in languages else set())
    text = page.read_text(encoding="utf-8")
    found = [textwrap.dedent(m[4]) for m in _FENCE.finditer(text) if m[3] in wanted]
    if "sh" in languages:  # outside of fences and of lists
        plain = _FENCE.sub("\n", text)
        found += [textwrap.dedent(m[1]) for m in _INDENTED.finditer(plain) if m[1].strip()]
    return found


def lines(block: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, up to a pipe or the like.

    Its continuation lines are joined, comments dropped, and plain ``name="..."`` filled in.
    """
    known: dict[str, str] = {}
    for line in block.replace("\\\n", " ").splitlines():
        if assigned := re.fullmatch(r"(\w+)=\"(.*)\"", line.strip()):
            known[assigned[1]] = assigned[2]
            continue
        for name, value in known.items():
            line = line.replace(f"${name}", value)
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:  # no shell: a program's output, a quotation
            continue
        while words:
            end = next((i for i, word in enumerate(words) if word in _ENDS), len(words))
            yield words[:end]
            words = words[end + 1 :]


def commands(page: Path) -> list[list[str]]:
    """What a page's shell blocks give to ``oneword``, by itself, by a launcher or as a module."""
    found = []
    for block in code(page, "sh", "console"):
        for words in lines(block):
            if words[:1] == ["oneword"]:
                found.append(words[1:])
            elif ("-m", "oneword") in itertools.pairwise(words):
                found.append(words[words.index("oneword") + 1 :])
    return [words for words in found if words]


def spans(page: Path) -> list[str]:
    """What stands between backticks in a page's text, with single spaces."""
    text = _FENCE.sub("\n", page.read_text(encoding="utf-8"))
    return [" ".join(found.split()) for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
