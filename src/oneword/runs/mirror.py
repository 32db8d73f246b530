"""A run folder's copy on any fsspec location, from which another machine can take it up.

Object stores have no rename, and others no atomic overwrite, so nothing is ever overwritten: files
are written whole under the name of their content, then a new index that points to them; the index
with the highest number counts. A machine that dies while it writes leaves the index before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from oneword._files import write_atomic, write_json_atomic
from oneword.concepts.formats import LEARNED
from oneword.errors import UserError


_NOTE = ".mirror.json"  # in the local folder: the number of the index that it agrees with
_OBJECTS = "objects"
_KEPT = 2  # indexes, so that a reader of the one before still finds its files


class MirrorError(UserError):
    """The location of a mirror cannot be used."""


class Mirror:
    """The copy of one run folder.

    Args:
        url: fsspec URL of a folder, such as "s3://bucket/runs/cat"; it need not exist.

    Raises:
        MirrorError: the URL names no file system that is installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self.files, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise MirrorError(
                f"The mirror must be an fsspec URL whose file system is installed, got {url}: "
                f"{error}"
            ) from error
        self.root = root.rstrip("/")
        self.known: dict[str, tuple[tuple[int, int], str]] = {}  # by name: its stamp and object

    def pull(self, folder: Path) -> bool:
        """Bring a local folder to where the mirror stands, if that is further; whether it was.

        Raises:
            MirrorError: the location cannot be read.
        """
        with self._reached():
            number = self._newest()
            if number <= _noted(folder):
                return False
            index: dict[str, str] = json.loads(self.files.cat_file(self._index(number)))
            for name, stored in index.items():
                write_atomic(folder / name, self.files.cat_file(f"{self.root}/{stored}"))
            for path in _files(folder):
                if path.relative_to(folder).as_posix() not in index:
                    path.unlink()
            write_json_atomic(folder / _NOTE, number)
        return True

    def push(self, folder: Path) -> None:
        """Copy what has changed in a local folder.

        Raises:
            MirrorError: the location cannot be written; the local folder is whole.
        """
        index = {}
        with self._reached():
            self.files.makedirs(f"{self.root}/{_OBJECTS}", exist_ok=True)
            for path in _files(folder):
                name = path.relative_to(folder).as_posix()
                index[name] = self._put(name, path)
            number = max(self._newest(), _noted(folder)) + 1
            self.files.pipe_file(self._index(number), json.dumps(index).encode())
            write_json_atomic(folder / _NOTE, number)
            if LEARNED in index:  # for tools that know nothing of the index
                self.files.pipe_file(f"{self.root}/{LEARNED}", (folder / LEARNED).read_bytes())
            self._tidy()

    def _put(self, name: str, path: Path) -> str:
        """Where a file lies in the mirror, written if it is not there."""
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if name in self.known and self.known[name][0] == stamp:
            return self.known[name][1]
        data = path.read_bytes()
        stored = f"{_OBJECTS}/{hashlib.sha256(data).hexdigest()[:32]}{path.suffix}"
        if not self.files.exists(f"{self.root}/{stored}"):
            self.files.pipe_file(f"{self.root}/{stored}", data)
        self.known[name] = (stamp, stored)
        return stored

    def _index(self, number: int) -> str:
        return f"{self.root}/index-{number:08d}.json"

    def _numbers(self) -> list[int]:
        self.files.invalidate_cache(self.root)
        if not self.files.exists(self.root):
            return []
        names = [str(p).rsplit("/", 1)[-1] for p in self.files.ls(self.root, detail=False)]
        return sorted(int(n[6:-5]) for n in names if n.startswith("index-") and n.endswith(".json"))

    def _newest(self) -> int:
        """Number of the index that counts: the last that is whole, 0 if there is none."""
        for number in reversed(self._numbers()):
            with contextlib.suppress(ValueError):  # half written, by a store that shows such
                json.loads(self.files.cat_file(self._index(number)))
                return number
        return 0

    def _tidy(self) -> None:
        """Drop older indexes, and files that none points to."""
        numbers = self._numbers()
        for number in numbers[:-_KEPT]:
            self.files.rm_file(self._index(number))
        used: set[str] = set()
        for number in numbers[-_KEPT:]:
            with contextlib.suppress(ValueError):
                used |= set(json.loads(self.files.cat_file(self._index(number))).values())
        for path in self.files.ls(f"{self.root}/{_OBJECTS}", detail=False):
            if f"{_OBJECTS}/{str(path).rsplit('/', 1)[-1]}" not in used:
                self.files.rm_file(path)
        self.known = {n: kept for n, kept in self.known.items() if kept[1] in used}

    @contextlib.contextmanager
    def _reached(self) -> Any:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            # every store raises its own kinds; the first line says what it lacks
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise MirrorError(
                f"The mirror {self.url} must be readable and writable, got: {reason[:200]}; the "
                "run folder is whole: run the same command again to go on."
            ) from error


def _noted(folder: Path) -> int:
    note = folder / _NOTE
    return int(json.loads(note.read_text())) if note.is_file() else 0


def _files(folder: Path) -> list[Path]:
    """What a mirror holds of a run folder: no temporary files, no notes."""
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return sorted(found)
