"""A run folder's copy on any fsspec location, from which another machine can resume it.

Object stores have no rename, and others no atomic overwrite, so nothing is ever overwritten:
complete files are written under the name of their content, then a new index that points to them.
The index with the highest number counts. If a machine dies while writing, the previous index stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from oneword._files import (
    MAX_TEXT,
    FormError,
    Hold,
    InUseError,
    check,
    hold,
    parsed,
    read_bytes,
    read_json,
    visible,
    within,
    write_atomic,
    write_json_atomic,
)
from oneword.concepts.formats import LEARNED
from oneword.errors import UserError
from oneword.runs import requests


_NOTE = ".mirror.json"
"""In the local folder: the number of the index that it matches, and that index's files."""
_OBJECTS = "objects"
_KEPT = 2  # indexes, so that a reader of the previous one still finds its files
_STORED = re.compile(rf"{_OBJECTS}/[0-9a-f]{{32}}(\.[A-Za-z0-9]{{1,16}})?")
_RECORD = "config.json"  # what makes a folder that of a run
_OF_A_RUN = re.compile(
    r"config\.json|metrics\.jsonl|state\.safetensors|report\.html|steps\.png|"
    r"learned_embeds(-trained|-steps-\d+)?\.safetensors|"
    r"previews/step-\d+\.png"
    r"|learned_embeds\.preview\.png"
)
_MAX_FILE = 2**36  # bytes; the tensors of a run that changes the model's weights


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
        self.url = url
        if not url.strip():
            raise MirrorError(
                "The mirror must be an fsspec URL of a folder, such as s3://bucket/runs/cat, got "
                "an empty one."
            )
        try:
            self.files, root = fsspec.core.url_to_fs(url)
        except Exception as error:
            # every file system reads its own part of the URL, and raises its own kinds
            raise MirrorError(
                f"The mirror must be an fsspec URL whose file system is installed, got {url}: "
                f"{error}"
            ) from error
        self.root = root.rstrip("/")
        self.known: dict[str, tuple[tuple[int, int], str]] = {}  # by name: its stamp and object
        self._pushed: dict[str, str] | None = None  # the index that was left there last
        self._held: Hold | None = None

    def claim(self) -> None:
        """Keep other writers out until ``release``, if the location is on this machine's disks.

        Object stores have no locks: there, ``push`` notices another writer and stops writing.

        Raises:
            InUseError: another process writes there.
            MirrorError: the location cannot be written.
        """
        if isinstance(self.files, LocalFileSystem):
            with self._reached():
                self._held = hold(Path(self.root))

    def release(self) -> None:
        """Let others write."""
        if self._held is not None:
            self._held.release()
            self._held = None
            with contextlib.suppress(OSError):  # it holds something
                Path(self.root).rmdir()

    def pull(self, folder: Path) -> bool:
        """Update a local folder from the mirror, if the mirror is further; return whether it was.

        Files that the mirror had before and has no longer are removed from the folder. Other files
        stay.

        Raises:
            MirrorError: the location cannot be read; the folder has something else than a run, or a
                user's file that would be overwritten; or an index names files that are not a run
                folder's.
        """
        with self._reached():
            number = self._newest()
            noted = _noted(folder)
            if number <= noted["number"]:
                return False
            index = self._read_index(number)
            places = {name: within(folder, name, error=MirrorError) for name in index}
            self._check_ours(folder, places, index, noted["files"])
            # what makes the folder that of a run comes first, so that a kill leaves no foreign one
            for name, stored in sorted(index.items(), key=lambda item: item[0] != _RECORD):
                write_atomic(places[name], self.files.cat_file(self._place(stored)))
            for name in noted["files"]:
                if name not in index:
                    within(folder, name, error=MirrorError).unlink(missing_ok=True)
            _note(folder, number, index)
            self._pushed = index
        return True

    def _check_ours(
        self, folder: Path, places: dict[str, Path], index: dict[str, str], known: list[str]
    ) -> None:
        if folder.is_dir() and visible(folder) and not (folder / _RECORD).is_file():
            raise MirrorError(
                f"The folder {folder} must be empty or contain a run, got other files; pass a new "
                "--output-dir."
            )
        theirs = [
            name
            for name, place in places.items()
            if name not in known
            and not _OF_A_RUN.fullmatch(name)
            and place.exists()
            # by a pull that was killed before it was noted
            and read_bytes(place, most=_MAX_FILE) != self.files.cat_file(self._place(index[name]))
        ]
        if theirs:
            raise MirrorError(
                f"Cannot write to {folder} in the mirror {self.url} because it has files that "
                f"oneword did not write, such as {theirs[0]!r}; move them away, or pass a new "
                "--output-dir."
            )

    def push(self, folder: Path) -> None:
        """Copy what has changed in a local folder.

        Raises:
            InUseError: another machine has written there since; the local folder is intact.
            MirrorError: the location cannot be written; the local folder is intact.
        """
        index = {}
        with self._reached():
            before = self._check_alone(_noted(folder)["number"])
            self.files.makedirs(f"{self.root}/{_OBJECTS}", exist_ok=True)
            for path in _files(folder):
                name = path.relative_to(folder).as_posix()
                index[name] = self._put(name, path)
            if LEARNED in index:  # first, so that a kill leaves none of before for good
                self._push_learned(folder, index, before)
            if index != self._pushed:
                number = before + 1
                self.files.pipe_file(self._index(number), json.dumps(index).encode())
                _note(folder, number, index)
                self._pushed = index
            self._tidy()

    def _push_learned(self, folder: Path, index: dict[str, str], before: int) -> None:
        """Write the word under its plain name, for tools that know nothing of the index."""
        data = read_bytes(folder / LEARNED, most=_MAX_FILE)
        known = self._pushed
        if known is None:
            known = self._read_index(before) if before else {}
        if known.get(LEARNED) == index[LEARNED]:
            self._write(LEARNED, data)
        else:  # another word may be as long
            self.files.pipe_file(self._place(LEARNED), data)

    def _check_alone(self, noted: int) -> int:
        """The number of the index that counts, which must be the one that was left here last."""
        newest = self._newest()
        other = newest > noted
        if newest == noted and newest and self._pushed is not None:
            other = self._read_index(newest) != self._pushed
        if other:
            raise InUseError(
                f"Cannot write to the mirror {self.url} because another machine wrote to it "
                f"(its index {newest}, ours {noted}); stop one of the two, then run the same "
                "command again to resume from the mirror, or pass another --mirror."
            )
        return max(newest, noted)

    def _put(self, name: str, path: Path) -> str:
        """Path of a file in the mirror; it is written if it is missing."""
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if name in self.known and self.known[name][0] == stamp:
            return self.known[name][1]
        data = read_bytes(path, most=_MAX_FILE)
        stored = f"{_OBJECTS}/{hashlib.sha256(data).hexdigest()[:32]}{_ending(path)}"
        self._write(stored, data)
        self.known[name] = (stamp, stored)
        return stored

    def _write(self, name: str, data: bytes) -> None:
        """Write a file unless it is there, whole: a kill or a full disk may leave half of it."""
        path = self._place(name)
        if not self.files.exists(path) or self.files.size(path) != len(data):
            self.files.pipe_file(path, data)

    def _place(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _index(self, number: int) -> str:
        return f"{self.root}/index-{number:08d}.json"

    def _numbers(self) -> list[int]:
        self.files.invalidate_cache(self.root)
        if not self.files.exists(self.root):
            return []
        names = [str(p).rsplit("/", 1)[-1] for p in self.files.ls(self.root, detail=False)]
        found = (re.fullmatch(r"index-(\d{8,12})\.json", name, re.ASCII) for name in names)
        return sorted(int(one[1]) for one in found if one)

    def _read_index(self, number: int) -> dict[str, str]:
        """File in the mirror by file in the run folder.

        Raises:
            FormError: it is half written, by a store that shows such.
            MirrorError: it is another's, and names files that are none of a mirror.
        """
        path = self._index(number)
        if self.files.size(path) > MAX_TEXT:
            raise MirrorError(f"An index of the mirror must be under {MAX_TEXT} bytes, got {path}.")
        index = check(parsed(self.files.cat_file(path)), {str: str})
        for stored in index.values():
            if not _STORED.fullmatch(stored):
                raise MirrorError(
                    f"The mirror {self.url} must list only files in its own folder, got "
                    f"{stored!r} in its index; did another program write it?"
                )
        return index

    def _newest(self) -> int:
        """Number of the index that counts: the last that is whole, 0 if there is none."""
        for number in reversed(self._numbers()):
            with contextlib.suppress(FormError):
                self._read_index(number)
                return number
        return 0

    def _tidy(self) -> None:
        """Drop older indexes, and files that none points to."""
        numbers = self._numbers()
        for number in numbers[:-_KEPT]:
            self.files.rm_file(self._index(number))
        used: set[str] = set()
        for number in numbers[-_KEPT:]:
            with contextlib.suppress(FormError):
                used |= set(self._read_index(number).values())
        for path in self.files.ls(f"{self.root}/{_OBJECTS}", detail=False):
            stored = f"{_OBJECTS}/{str(path).rsplit('/', 1)[-1]}"
            if stored not in used and _STORED.fullmatch(stored):
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
                f"Cannot read or write the mirror {self.url}: {reason[:200]}; the run folder is "
                "complete: to resume, run the same command again."
            ) from error


def _noted(folder: Path) -> dict[str, Any]:
    """What the local folder agreed with last: the index's number, and the files that it named."""
    path = folder / _NOTE
    if not path.exists():
        return {"number": 0, "files": []}
    must = "The note of a mirror must be one written by oneword"
    found = read_json(path, (int, dict), must=must, error=MirrorError)
    if isinstance(found, int):  # as it was before the files were noted
        return {"number": found, "files": []}
    return read_json(path, {"number": int, "files": [str]}, must=must, error=MirrorError)


def _note(folder: Path, number: int, index: dict[str, str]) -> None:
    write_json_atomic(folder / _NOTE, {"number": number, "files": sorted(index)})


def _ending(path: Path) -> str:
    return path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", path.suffix) else ""


def _files(folder: Path) -> list[Path]:
    """What a mirror holds of a run folder: no temporary file, note, request or link."""
    found = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    asked = {folder / name for name in requests.FILES.values()}
    return sorted(p for p in found if not p.name.startswith(".") and p not in asked)
