"""What README and ``docs/`` say of families and verbs, made from their records.

``python tests/pages.py`` writes it between ``<!-- catalog: NAME -->`` and ``<!-- end -->`` wherever
a page has such a pair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from oneword.catalog import FAMILIES, Family, text_encoders
from oneword.cli.arguments import COMMON, sub_verbs
from oneword.cli.main import VERBS


ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"(<!-- catalog: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)


def _code(text: str, pattern: str) -> str:
    return re.sub(rf"(?<![\w/])({pattern})(?![\w/])", r"`\1`", text)


def _table(*rows: Sequence[object]) -> str:
    head, *others = (f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
    return "\n".join(["", head, "|---" * len(rows[0]) + "|", *others, ""])


def _families(chosen: Sequence[Family]) -> str:
    keys = "|".join(encoder.key for encoder in text_encoders())
    return _table(
        ("Family", "Text encoders that learn", "Draws", "Published weights"),
        *(
            (
                f"`{family.name}`: {family.title}",
                _code(family.reads_in_words, keys),
                family.draws_in_words,
                _code(", ".join(family.examples), r"[\w.-]+/[\w.-]+|\w[\w-]*-folder")
                + (f"; with `{family.options}`" if family.options else ""),
            )
            for family in chosen
        ),
    )


def _published() -> list[Family]:
    return [family for family in FAMILIES.values() if family.recipe in ("*", "ldm")]


def _relative() -> list[Family]:
    return [family for family in FAMILIES.values() if family.recipe == "relative"]


def _keys() -> str:
    named = [encoder for encoder in text_encoders() if encoder.named != "never"]
    return _table(
        ("Key", "Text encoder", "Width", "Families"),
        *(
            (
                f"`{e.key}`" + "".join(f" (also read: `{alias}`)" for alias in e.aliases),
                e.title,
                e.width,
                ", ".join(f.title for f in FAMILIES.values() if e in f.text_encoders),
            )
            for e in named
        ),
    )


def _listed(words: Sequence[str], last: str) -> str:
    *first, end = words
    return f"{', '.join(first)} {last} {end}"


def _verbs() -> str:
    def of(verb: str) -> str:
        names = [f"{verb}-{sub}" for sub in sub_verbs(verb)]
        names += [f"{verb}-all"] if verb in COMMON else []
        names += [f"{verb}-jobs"] if f"{verb} --jobs" in COMMON else []
        return ", ".join(f"[{name.removeprefix(f'{verb}-')}]({name}.txt)" for name in names)

    return _table(
        ("Verb", "What it does", "More"),
        *((f"[`{verb}`]({verb}.txt)", text, of(verb)) for verb, text in VERBS.items()),
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "published": lambda: _families(_published()),
    "relative": lambda: _families(_relative()),
    "num_relative": lambda: str(len(_relative())),
    "keys": _keys,
    "other_sizes": lambda: _listed(
        [f"`{k}`" for k in dict.fromkeys(e.other_size for e in text_encoders()) if k], "or"
    ),
    "widths": lambda: _listed(
        [f"{e.width} `{e.key}`" for e in text_encoders() if e.by_width], "and"
    ),
    "verbs": _verbs,
    "inverts": lambda: _listed([f.title for f in FAMILIES.values() if f.inverts], "and"),
}
"""What stands between a pair, by its name."""


def pages() -> Iterator[Path]:
    """README and every page of ``docs/``."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def written(text: str) -> str:
    """A page with what stands between its pairs made anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}{found[4]}", text)


def names(text: str) -> list[str]:
    """Blocks that a page has."""
    return [found[1] for found in _BLOCK.findall(text)]


if __name__ == "__main__":
    for page in pages():
        before = page.read_text()
        if (after := written(before)) != before:
            page.write_text(after)
