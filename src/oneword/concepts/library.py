"""The learned words of a folder: list, search, import, rename, delete and restore them.

An SQLite file next to them records what each holds, so that a list of hundreds opens at once, and a
library keeps its last list in memory, so that a search does not even open that file. The
files decide: entries for files that have changed or are gone are dropped, and without the index
everything is read again.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from oneword._files import hold, is_plain_name, is_there, write_together
from oneword.concepts import formats, previews
from oneword.concepts.concept import Concept
from oneword.concepts.formats.names import family_of, file_name
from oneword.concepts.mixing import distinct
from oneword.config.checks import check_placeholder
from oneword.errors import UserError


INDEX = "library.sqlite"
TRASH = ".deleted"
_MAX_NAME = 60  # characters of a merged entry's name
_WAIT_S = 30.0  # for another process that writes there
_TABLE = """CREATE TABLE IF NOT EXISTS word (
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, facts TEXT NOT NULL
)"""


_Stamps = dict[Path, tuple[int, int]]
"""Sizes of files, bytes, and when they were written, ns."""


class LibraryError(UserError):
    """The library has no such word, or cannot do what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A word of the library."""

    name: str
    """Name of its folder."""
    tokens: tuple[str, ...] = ()
    """Its placeholders; several if the file holds several words."""
    base_model: str = ""
    family: str = ""
    """The family that it can be drawn with, in words."""
    kind: str = ""
    setup: str = ""
    """The way in which it was learned, and the preset; empty if its file does not say."""
    preset: str = ""
    num_vectors: int = 0
    steps: int | None = None
    loss: float | None = None
    license: str = ""
    problem: str = ""
    """Why the file cannot be used; empty if it can."""

    @property
    def text(self) -> str:
        """Everything about it that a search looks through."""
        told = self.base_model, self.family, self.kind, self.setup, self.preset
        return " ".join((self.name, *self.tokens, *told)).lower()


class Library:
    """The words of a folder, each in a folder of its own, as a run leaves it.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._last: tuple[_Stamps, list[Entry]] = {}, []

    def entries(self, search: str = "") -> list[Entry]:
        """The words, sorted by name; with a search, those that contain all of its terms."""
        wanted = search.lower().split()
        return [one for one in self._refreshed() if all(word in one.text for word in wanted)]

    def file(self, name: str) -> Path:
        """A word's file.

        Raises:
            LibraryError: the library has no such word.
        """
        path = self.root / name / formats.LEARNED
        if not is_plain_name(name) or not path.is_file():
            raise LibraryError(f"The library in {self.root} has no word {name!r}.")
        return path

    def preview(self, name: str) -> Path | None:
        """A picture that shows the word, if there is one."""
        path = previews.beside(self.file(name))
        return path if path.is_file() else None

    def take(self, path: Path) -> list[str]:
        """Import words from a file of any tool, each into its own folder; return their names.

        Raises:
            FormatError: the file has no word.
        """
        names: list[str] = []
        for concept in formats.load_all(path):
            name = self._free(file_name(concept.placeholder_token).lower())
            write_together(formats.files_of(concept, self.root / name / formats.LEARNED))
            names.append(name)
        return names

    def rename(self, name: str, token: str) -> None:
        """Give a word another placeholder; its folder and everything else stay the same.

        Raises:
            LibraryError: the library has no such word, or its file holds several.
            ConfigError: the placeholder is not valid.
        """
        check_placeholder(token, "The new word")
        path = self.file(name)
        words = formats.load_all(path)
        if len(words) != 1:
            raise LibraryError(
                f"Cannot rename a file with {len(words)} words ({path}) because it must have one; "
                "extract them first."
            )
        with hold(path.parent, wait_s=_WAIT_S):
            write_together(formats.files_of(words[0].named(token), path))

    def merge(self, names: Sequence[str]) -> str:
        """Merge the words of several entries into one file of a new entry; return its name.

        A word whose name is taken gets a number, as in ``oneword concept merge``.

        Raises:
            LibraryError: the library has no such word, or fewer than two are named.
        """
        if len(set(names)) < 2:
            raise LibraryError(f"Merging needs two or more words, got {len(set(names))}.")
        words, _ = distinct([word for one in names for word in formats.load_all(self.file(one))])
        name = self._free("-".join(names)[:_MAX_NAME])
        write_together(formats.files_of(words, self.root / name / formats.LEARNED))
        return name

    def delete(self, name: str) -> str:
        """Delete a word, so that it can be restored; return the argument for :meth:`restore`.

        Raises:
            LibraryError: the library has no such word.
        """
        folder = self.file(name).parent
        kept = f"{name}.{secrets.token_hex(4)}"
        (self.root / TRASH).mkdir(exist_ok=True)
        with hold(folder, wait_s=_WAIT_S):
            pass  # waits for anyone who is writing there
        folder.rename(self.root / TRASH / kept)
        return kept

    def deleted(self) -> list[str]:
        """Deleted words that can be restored, the latest first."""
        folder = self.root / TRASH
        found = [path for path in folder.glob("*") if path.is_dir()] if folder.is_dir() else []
        return [p.name for p in sorted(found, key=lambda p: p.stat().st_ctime_ns, reverse=True)]

    def restore(self, kept: str) -> str:
        """Restore a deleted word; return its name, which is new if the old one is taken.

        Raises:
            LibraryError: there is no such deleted word.
        """
        folder = self.root / TRASH / kept
        if not is_plain_name(kept) or not folder.is_dir():
            raise LibraryError(f"{self.root / TRASH} has no deleted word {kept!r}.")
        name = self._free(kept.rpartition(".")[0])
        folder.rename(self.root / name)
        return name

    def empty_trash(self) -> None:
        """Delete for good all words that could be restored."""
        shutil.rmtree(self.root / TRASH, ignore_errors=True)

    # --- the index ---

    def _free(self, name: str) -> str:
        found, count = name, 1
        while is_there(self.root / found):
            count += 1
            found = f"{name}-{count}"
        return found

    def _refreshed(self) -> list[Entry]:
        files = sorted(self.root.glob(f"*/{formats.LEARNED}"))
        stamps = _stamps(path for path in files if not path.parent.name.startswith("."))
        before, entries = self._last
        if before != stamps | _stamps([self.root / INDEX]) or not before:
            entries = self._looked_up(stamps)
            self._last = stamps | _stamps([self.root / INDEX]), entries
        return entries

    def _looked_up(self, stamps: _Stamps) -> list[Entry]:
        try:
            return self._through_index(stamps)
        except sqlite3.DatabaseError:  # damaged, or not an SQLite file at all
            with contextlib.suppress(OSError):
                (self.root / INDEX).unlink()
        try:
            return self._through_index(stamps)
        except sqlite3.Error:  # the folder cannot be written
            return [self._read(path.parent.name) for path in stamps]

    def _through_index(self, stamps: _Stamps) -> list[Entry]:
        with self._index() as index:
            known = {
                name: (size, mtime_ns, facts)
                for name, size, mtime_ns, facts in index.execute("SELECT * FROM word")
            }
            gone = known.keys() - {path.parent.name for path in stamps}
            index.executemany("DELETE FROM word WHERE name = ?", [(name,) for name in gone])
            found: list[Entry] = []
            for path, stamp in stamps.items():
                name = path.parent.name
                own = known.get(name)
                if own is not None and own[:2] == stamp:
                    with contextlib.suppress(ValueError, TypeError):
                        found.append(_entry(own[2]))
                        continue
                entry = self._read(name)
                index.execute(
                    "INSERT OR REPLACE INTO word VALUES (?, ?, ?, ?)",
                    (name, *stamp, json.dumps(asdict(entry))),
                )
                found.append(entry)
        return found

    @contextlib.contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.root / INDEX, timeout=_WAIT_S)
        try:
            with connection:
                connection.execute(_TABLE)
                yield connection
        finally:
            connection.close()

    def _read(self, name: str) -> Entry:
        """The entry of a word, read from its file."""
        try:
            words = formats.load_all(self.root / name)
        except UserError as error:
            return Entry(name=name, problem=str(error))
        first = words[0]
        told, how = first.provenance, how_learned(first)
        dims = {encoder: rows.shape[1] for encoder, rows in first.rows.items()}
        entry = Entry(
            name=name,
            tokens=tuple(word.placeholder_token for word in words),
            base_model=str(told.get("base_model") or ""),
            family=family_of(dims),
            kind="style" if first.learnable_property == "style" else "object",
            setup=how["setup"],
            preset=how["preset"],
            num_vectors=first.num_vectors,
            license=str(told.get("license") or ""),
        )
        steps, loss = told.get("steps"), told.get("loss")
        return replace(
            entry,
            steps=steps if isinstance(steps, int) else None,
            loss=loss if isinstance(loss, float) else None,
        )


def how_learned(concept: Concept) -> dict[str, str]:
    """The setup and the preset that a word was learned with, as far as it says."""
    settings = concept.provenance.get("config")
    given = settings if isinstance(settings, dict) else {}
    return {name: str(given.get(name) or "") for name in ("setup", "preset")}


def _stamps(paths: Iterable[Path]) -> _Stamps:
    """What tells that files have changed: their sizes, and when each was written."""
    stamps: _Stamps = {}
    for path in paths:
        with contextlib.suppress(OSError):  # deleted meanwhile
            seen = path.stat()
            stamps[path] = (seen.st_size, seen.st_mtime_ns)
    return stamps


def _entry(text: str) -> Entry:
    facts = json.loads(text)
    if {*facts} != {own.name for own in fields(Entry)}:  # of another version
        raise ValueError(f"other fields: {', '.join(facts)}")
    return Entry(**facts | {"tokens": tuple(facts["tokens"])})
