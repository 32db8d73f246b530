"""What the server keeps for open tabs: uploaded files, and small pictures; old ones are deleted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from oneword._files import read_text, write_atomic
from oneword.errors import UserError
from oneword.images import jpeg_bytes, open_picture, shrunk


DAY_S = 86_400.0
_HOUR_S = 3_600.0  # between two looks for what is old
_SMALL_PX = 320  # the longer side of a small picture
_BLANK = (96, 96)  # px, of what shows nothing


class Uploads:
    """The folder of uploads, and the tabs that may still show what lies there.

    What is learned from or edited is copied out of it at once. A file is deleted when it is a day
    old, no tab is open that was open when it was written, and no run names it. A tab counts as open
    until it was silent for a day: a laptop sleeps.

    Args:
        folder: Where gradio puts uploads, each in a folder named by its content.
        words: Folder with the run folders.
        clock: Gives the time, in seconds.
    """

    def __init__(
        self, folder: Path, words: Path, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder, self.words = folder, words
        self._clock = clock
        self._tabs: dict[str, tuple[float, float]] = {}  # when each was heard first and last
        self._swept = 0.0
        self._lock = threading.Lock()

    def heard(self, tab: str) -> None:
        """Take note that a tab is open; once an hour, delete what is old.

        Args:
            tab: What tells it from the others.
        """
        now = self._clock()
        with self._lock:
            first, _ = self._tabs.get(tab, (now, now))
            self._tabs[tab] = first, now
            is_due = now - self._swept >= _HOUR_S
            if is_due:
                self._swept = now
        if is_due:
            self.sweep()

    def sweep(self) -> None:
        """Delete what is old."""
        now = self._clock()
        with self._lock:
            self._tabs = {
                tab: times for tab, times in self._tabs.items() if now - times[1] < DAY_S
            }  # fmt: skip
            before = min([now - DAY_S, *(first for first, _ in self._tabs.values())])
        old = [path for path in _inside(self.folder) if _written(path) < before]
        if not old:
            return
        try:
            records = [read_text(path) for path in self.words.glob("*/config.json")]
        except UserError:
            return  # it may name any of them
        for path in old:
            if any(path.name in record for record in records):
                continue
            with contextlib.suppress(OSError):
                path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)

    def small(self, picture: Path | None) -> Path:
        """A small copy of a picture, made once; a grey one of ``None`` or what cannot be read.

        Args:
            picture: Its file.
        """
        key = "blank"
        if picture is not None:
            with contextlib.suppress(OSError):
                seen = picture.stat()
                key = f"{picture}/{seen.st_mtime_ns}/{seen.st_size}"
        path = self.folder / hashlib.sha256(key.encode()).hexdigest() / "small.jpg"
        try:
            os.utime(path)  # a tab uses it
        except OSError:
            write_atomic(path, jpeg_bytes(_shrunk(picture)))
        return path


def _shrunk(picture: Path | None) -> Image.Image:
    if picture is not None:
        with contextlib.suppress(UserError):
            return shrunk(open_picture(picture).convert("RGB"), _SMALL_PX)
    return Image.new("RGB", _BLANK, "lightgrey")


def _inside(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [*folder.iterdir()]
    return []


def _written(path: Path) -> float:
    """When a file, or the last one of a folder, was written or put there."""

    def times(one: Path) -> Iterator[float]:
        with contextlib.suppress(OSError):  # it has vanished
            found = one.lstat()
            yield max(found.st_mtime, found.st_ctime)

    inside = [] if path.is_symlink() else path.rglob("*")
    return max((own for one in (path, *inside) for own in times(one)), default=0.0)
