"""The page's folder: pictures, words, drawings. Its files are all that the page keeps."""

from __future__ import annotations

import re
import secrets
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneword._files import check_writable, is_plain_name, write_atomic, write_together
from oneword.errors import UserError
from oneword.generation.generate import slug


class WorkspaceError(UserError):
    """Something that the page's folder does not hold, or will not take."""


_DRAFT = re.compile(r"[0-9a-f]{16}")
_PLACE = re.compile(r"\d{3}-")  # of a picture that was put in order, before its name


def mask_of(picture: Path) -> Path:
    """Where a picture's mask lies, if it has one."""
    return picture.with_name(f"{picture.stem}.mask.png")


def is_mask(path: Path) -> bool:
    """Whether a file is a picture's mask."""
    return path.name.endswith(".mask.png")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The page's folder."""

    root: Path

    def __post_init__(self) -> None:
        check_writable(self.root)
        for folder in (self.pictures, self.words, self.drawings, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def pictures(self) -> Path:
        """Folder with a folder of pictures for each word."""
        return self.root / "pictures"

    @property
    def words(self) -> Path:
        """Folder with a run folder for each word."""
        return self.root / "words"

    @property
    def drawings(self) -> Path:
        """Folder with a folder for each drawing."""
        return self.root / "drawings"

    @property
    def uploads(self) -> Path:
        """Folder in which the server keeps what is uploaded."""
        return self.root / "uploads"

    @property
    def away(self) -> Path:
        """Folder with a folder of files for each tool that words were taken away for."""
        return self.root / "taken-away"

    @property
    def studies(self) -> Path:
        """Folder with a folder of a user study's forms for each study."""
        return self.root / "studies"

    def draft(self, number: str) -> Path:
        """Folder of the pictures that one visitor collects.

        Raises:
            WorkspaceError: the number is none that :meth:`new_draft` gave.
        """
        if not _DRAFT.fullmatch(number):
            raise WorkspaceError(
                f"A set of pictures must have a number of 16 digits, got {number!r}."
            )
        return self.pictures / f"draft-{number}"

    def new_draft(self) -> str:
        """A number for a visitor's own set of pictures."""
        return secrets.token_hex(8)

    def take(self, number: str, files: Sequence[Path], *, most: int) -> list[Path]:
        """Copy uploaded files into a visitor's set, under names that no other file has.

        Raises:
            WorkspaceError: there would be more than ``most``.
        """
        folder = self.draft(number)
        folder.mkdir(parents=True, exist_ok=True)
        there = self.listed(number)
        if len(there) + len(files) > most:
            raise WorkspaceError(
                f"A word can have at most {most} pictures, got {len(there) + len(files)}; "
                "remove some."
            )
        are_placed = bool(there) and all(_PLACE.match(path.name) for path in there)
        last = int(there[-1].name[:3]) if are_placed else 0
        for place, file in enumerate(files, start=last + 1):
            name = self._free(self.listed(number), file)
            target = folder / (f"{place:03d}-{name}" if are_placed else name)
            write_atomic(target, file.read_bytes())
        return self.listed(number)

    def listed(self, number: str) -> list[Path]:
        """The pictures of a visitor's set, in their order."""
        folder = self.draft(number)
        if not folder.is_dir():
            return []
        return sorted(
            path for path in folder.glob("*")
            if path.suffix != ".txt" and not is_mask(path) and not path.name.startswith(".")
        )  # fmt: skip

    def move(self, number: str, name: str, by: int) -> int:
        """Move one picture of a visitor's set to another place, its caption and mask with it.

        The names of all of them begin with their places from then on.

        Args:
            number: The set's.
            name: The picture's.
            by: Places to the right; to the left where it is negative.

        Returns:
            Its new place, from 0.

        Raises:
            WorkspaceError: there is none of that name, or no such place.
        """
        paths = self.listed(number)
        place = next((i for i, path in enumerate(paths) if path.name == name), None)
        if place is None:
            raise WorkspaceError(f"The picture to move must be one of the set, got {name}.")
        if not 0 <= place + by < len(paths):
            raise WorkspaceError(
                f"Cannot move {name} because it is already {'last' if by > 0 else 'first'}."
            )
        paths.insert(place + by, paths.pop(place))
        for own, path in enumerate(paths, start=1):
            target = path.with_name(f"{own:03d}-{_plain(path)}")
            # the picture last: without it, the others belong to nothing
            for source, end in (
                (path.with_suffix(".txt"), target.with_suffix(".txt")),
                (mask_of(path), mask_of(target)),
                (path, target),
            ):
                if source.exists():
                    source.rename(end)
        return place + by

    def keep(self, number: str, name: str) -> Path:
        """Copy a visitor's set for a word to learn from, whatever becomes of the set.

        Args:
            number: The set's.
            name: What the new folder is called, or nearly.

        Returns:
            The new folder.

        Raises:
            OutputError: it cannot be written.
        """
        target, count = self.pictures / name, 1
        while target.exists():
            count += 1
            target = self.pictures / f"{name}-{count}"
        files = [path for path in sorted(self.draft(number).glob("*")) if path.is_file()]
        write_together({target / path.name: path.read_bytes() for path in files})
        return target

    def drop(self, number: str, name: str) -> None:
        """Remove one picture of a visitor's set, with its caption and mask."""
        for path in self.listed(number):
            if path.name == name:
                path.unlink()
                path.with_suffix(".txt").unlink(missing_ok=True)
                mask_of(path).unlink(missing_ok=True)

    def clear(self, number: str) -> None:
        """Remove a visitor's set."""
        shutil.rmtree(self.draft(number), ignore_errors=True)

    def word_folder(self, token: str) -> Path:
        """The run folder of a word of that name."""
        name = slug(unicodedata.normalize("NFKC", token))
        return self.words / ("s-star" if token == "S*" else name)

    def run_folder(self, name: str | None) -> Path:
        """The folder of a run that there is.

        Raises:
            WorkspaceError: there is none of that name in ``words/``.
        """
        folder = self.words / (name or "")
        if not is_plain_name(name or "") or not (folder / "config.json").is_file():
            gone = f" There is no run in {folder}." if is_plain_name(name or "") else ""
            raise WorkspaceError(f"Choose a word that was trained here.{gone}")
        return folder

    @staticmethod
    def _free(there: Sequence[Path], file: Path) -> str:
        """A plain file name whose stem, which captions and masks share, no other has.

        Where the file came from has no part in it.
        """
        taken = {Path(_plain(path)).stem for path in there}
        stem, count = slug(file.stem), 1
        free = stem
        while free in taken:
            count += 1
            free = f"{stem}-{count}"
        return f"{free}{file.suffix.lower()}"


def _plain(path: Path) -> str:
    """A picture's name without its place."""
    return _PLACE.sub("", path.name)
