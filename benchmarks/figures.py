"""Where each figure of ``docs/`` comes from: its command, its commit, the version of the weights.

    python benchmarks/figures.py                               # the list
    python benchmarks/figures.py --made pictures/demo.png      # made anew, here and now
    python benchmarks/figures.py --made new.png --command 'oneword demo' --weights microworld
    python benchmarks/figures.py --old 'to be made anew' all   # what is of other weights stays

A figure is a picture, a file of rows, or a table of measured numbers on a page, which is named
``guides/editing.md#Measured``, the second under that heading ``guides/editing.md#Measured/2``. A
file that ``_common.record`` wrote says where it comes from itself; all others stand in
``docs/figures.json``:

- ``commit``: whose code made it; of what is older than the list, the one that brought it.
- ``weights``: versions of the embedded models that it depends on. Empty: of none. Of what is older
  than the list, those that had been landed for a day when it came; "unknown" where others were
  landed within that day.
- ``old``: why it is still shown though other weights have landed since.
- ``sums``: of the file, or of the numbers in the table, so that what is made anew is noted anew.

``facts`` are the tables that are full of numbers and measure nothing: constants, options, sizes.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from _common import ROOT, commit, weights_of

from oneword._files import write_atomic
from oneword.microworld.making.sizes import SIZES


DOCS = ROOT / "docs"
REGISTER = "figures.json"
UNKNOWN = "unknown"
NO_FIGURES = {".md", ".ipynb", ".css", ".txt"}
"""Pages, and what only makes them look so."""
_OWN = ("command", "commit", "weights")
_SHARE = 0.25  # of a table's cells with a number, from which on it must be listed


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """List the figures of the pages, or note that some were made anew."""

    figures: tyro.conf.Positional[tuple[str, ...]] = ()
    """Figures that --made or --old is about; "all": those of other weights."""
    made: bool = False
    """They were made with the code and the weights that are here now."""
    command: str | None = None
    """With --made: what makes them; needed for new ones."""
    weights: tuple[str, ...] | None = None
    """With --made: embedded models that they depend on, or none; unset: as before."""
    old: str | None = None
    """Why they stay though the weights have changed."""


# --- what there is


def files(docs: Path) -> dict[str, str]:
    """Sum of each picture and file of rows, by its path in the folder."""
    return {
        path.relative_to(docs).as_posix(): _sum(path.read_bytes())
        for path in sorted(docs.rglob("*"))
        if path.is_file() and path.suffix not in NO_FIGURES and path != docs / REGISTER
    }


def tables(docs: Path, least: float = 0.0) -> dict[str, str]:
    """Sum of the numbers of each table, by page, heading and place.

    Args:
        docs: The folder of the pages.
        least: Share of its cells, beside the first column, that must have a number.
    """
    found = {}
    for page in sorted(docs.rglob("*.md")):
        for name, cells in _tables(page.read_text(encoding="utf-8")):
            numbers = [re.findall(r"\d[\d.,]*", cell) for cell in cells]
            if cells and sum(map(bool, numbers)) >= least * len(cells):
                text = ";".join(" ".join(own) for own in numbers)
                found[f"{page.relative_to(docs).as_posix()}#{name}"] = _sum(text.encode())
    return found


def _tables(text: str) -> Iterator[tuple[str, list[str]]]:
    """Heading, with its place where it is not the first, and cells beside the first column."""
    heading, fenced, counts = "", False, {}
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        if found := re.match(r"#+ (.*)", line):
            heading = found[1]
        if re.match(r"\|[-:| ]+\|$", line) and i and lines[i - 1].startswith("|"):
            counts[heading] = counts.get(heading, 0) + 1
            rows = []
            for row in lines[i + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(re.split(r"(?<!\\)\|", row.strip().strip("|")))
            place = f"/{counts[heading]}" if counts[heading] > 1 else ""
            yield heading + place, [cell for row in rows for cell in row[1:]]


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


# --- what is known of it


def register(docs: Path) -> dict[str, Any]:
    """What ``figures.json`` holds: ``figures``, a list, and ``facts``."""
    return json.loads((docs / REGISTER).read_text(encoding="utf-8"))


def own_records(docs: Path) -> dict[str, dict[str, Any]]:
    """Files that say themselves where they come from."""
    found = {}
    for path in sorted(docs.rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and all(name in record for name in _OWN):
            command = record["command"]
            words = command if isinstance(command, str) else "python " + " ".join(command)
            found[path.relative_to(docs).as_posix()] = {**record, "command": words}
    return found


def entries(docs: Path) -> dict[str, dict[str, Any]]:
    """Command, commit and weights of every figure that is known."""
    found = {name: entry for entry in register(docs)["figures"] for name in entry["sums"]}
    return found | own_records(docs)


def problems(docs: Path, landed: Mapping[str, str]) -> list[str]:
    """What is not known of the figures in a folder, or no longer true.

    Args:
        docs: The folder of the pages.
        landed: Version of each embedded model's weights.
    """
    known = register(docs)
    there = files(docs) | tables(docs)
    full = files(docs) | tables(docs, _SHARE)
    own = own_records(docs)
    named = [name for entry in known["figures"] for name in entry["sums"]]
    found = [f"{name} is in {REGISTER} and is not there" for name in named if name not in there]
    found += [f"{name} is among the facts and is not there"
              for name in known["facts"] if name not in there]  # fmt: skip
    twice = {n for n in named if named.count(n) > 1 or n in own or n in known["facts"]}
    found += [f"{name} is told of in two places" for name in sorted(twice)]
    for name in full:
        if name not in (*named, *own, *known["facts"]):
            found.append(f"{name} has no command; python benchmarks/figures.py --made notes it")
    for entry in known["figures"]:
        for name, noted in entry["sums"].items():
            if there.get(name, noted) != noted:
                found.append(f"{name} is another one than was noted; --made notes it anew")
    for name, entry in entries(docs).items():
        found += [f"{name} lacks its {part}" for part in ("command", "commit") if not entry[part]]
        if is_old(entry, landed) and not entry.get("old"):
            found.append(
                f"{name} is of the weights {entry['weights']}, and {dict(landed)} have landed; "
                "make it anew, or say why it stays with --old"
            )
    return found


def is_old(entry: Mapping[str, Any], landed: Mapping[str, str]) -> bool:
    """Whether other weights have landed since."""
    own = entry["weights"]
    return own != UNKNOWN and any(landed.get(name) != version for name, version in own.items())


# --- what is noted


def noted(
    known: Mapping[str, Any], names: Sequence[str], there: Mapping[str, str], **facts: Any
) -> dict[str, Any]:
    """The register with facts of some figures put anew, and their sums.

    Args:
        known: The register.
        names: Figures; what stands with others leaves them.
        there: Sums of all that is there.
        facts: Parts of an entry; ``None``: as before.
    """
    parts, rest = [], []
    for entry in known["figures"]:
        own = {name: there.get(name, was) for name, was in entry["sums"].items() if name in names}
        others = {name: was for name, was in entry["sums"].items() if name not in names}
        if others:
            rest.append(entry | {"sums": others})
        if own:
            parts.append({**entry, "sums": own})
            rest.append(parts[-1])
    new = [n for n in names if not any(n in part["sums"] for part in parts)]
    if new:
        parts.append({"sums": {name: there[name] for name in new}})
        rest.append(parts[-1])
    for part in parts:
        part |= {name: value for name, value in facts.items() if value is not None}
        if not part.get("command") or "weights" not in part:
            sys.exit(f"--command and --weights must be given for what is new: {', '.join(new)}.")
        if "old" not in facts:
            part.pop("old", None)
    return {**known, "figures": rest}


def main() -> None:
    """List, or note."""
    arguments = tyro.cli(Arguments, description=__doc__)
    landed = weights_of(*SIZES)
    if not arguments.made and arguments.old is None:
        show(DOCS, landed)
        return
    names, there = list(arguments.figures), files(DOCS) | tables(DOCS)
    if names == ["all"]:
        names = [name for name, entry in entries(DOCS).items() if is_old(entry, landed)]
    if unknown := [name for name in names if name not in there]:
        sys.exit(f"Figures must be paths in docs/ or PAGE.md#HEADING, got {', '.join(unknown)}.")
    known = register(DOCS)
    if arguments.made:
        used = arguments.weights
        if used is None:  # as before, in today's version
            was = entries(DOCS)
            models = {m for n in names for m in was.get(n, {"weights": UNKNOWN})["weights"]}
            used = tuple(models & set(SIZES)) if all(n in was for n in names) else None
        versions = None if used is None else weights_of(*used)
        known = noted(
            known, names, there, command=arguments.command, commit=commit(), weights=versions
        )
    else:
        known = noted(known, names, there, old=arguments.old)
    write_atomic(DOCS / REGISTER, (json.dumps(known, indent=1, ensure_ascii=False) + "\n").encode())


def show(docs: Path, landed: Mapping[str, str]) -> None:
    """Print where every figure comes from, and what is amiss."""
    known = entries(docs)
    groups: dict[str, list[str]] = {}
    for name, entry in known.items():
        own = entry["weights"]
        told = own if own == UNKNOWN else ", ".join(f"{k} {v}" for k, v in own.items())
        told = f"weights {told or 'play no part'}"
        if is_old(entry, landed):
            told += f" (others have landed; {entry.get('old') or 'not marked'})"
        note = f"\n    {entry['note']}" if entry.get("note") else ""
        text = f"    {entry['command']}\n    commit {entry['commit']}, {told}{note}"
        groups.setdefault(text, []).append(name)
    for text, names in sorted(groups.items(), key=lambda pair: pair[1]):
        print("\n".join(names) + f"\n{text}\n")
    print(f"{len(known)} figures. Landed: {', '.join(f'{k} {v}' for k, v in landed.items())}.")
    for text in problems(docs, landed):
        print(f"  {text}")


if __name__ == "__main__":
    main()
