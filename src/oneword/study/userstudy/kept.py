"""People's answers on a server: an SQLite file next to the forms, with a row for each."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from oneword._files import open_regular
from oneword.study.userstudy.items import UserStudyError


FILE = "answers.sqlite"
MOST = 10_000
"""Answers to one form that are kept: no study needs as many, and a disk is soon full of them."""
_HEAD = b"SQLite format 3\0"
_MAX_FILE = 2**36  # bytes
_WAIT_S = 30.0  # for another answer that is being written
_TABLE = """CREATE TABLE IF NOT EXISTS answer (
    form TEXT NOT NULL, person TEXT NOT NULL, respondent TEXT NOT NULL, content TEXT NOT NULL,
    UNIQUE (form, person), UNIQUE (form, respondent)
)"""


class TwiceError(UserStudyError):
    """A person has filled in a form before, or it takes no more answers."""


def put(path: Path, *, form: str, person: str, respondent: str, content: str) -> bool:
    """Keep one person's answers to a form.

    Args:
        path: The SQLite file; it is made if there is none.
        form: The form's name.
        person: Who answered: by the participant id, or the page's random number.
        respondent: The page's random number.
        content: The answers, as JSON.

    Returns:
        Whether they are new; the same answers sent again are not, and kept once.

    Raises:
        TwiceError: other answers of the same person are there, or the form has enough of them.
        UserStudyError: the file cannot be written.
    """
    row = (form, person, respondent, content)
    try:
        with _opened(path) as kept:
            kept.execute(_TABLE)
            kept.execute("BEGIN IMMEDIATE")
            found = kept.execute(
                "SELECT * FROM answer WHERE form = ? AND (person = ? OR respondent = ?)", row[:3]
            ).fetchall()
            if found == [row]:
                return False
            if found:
                raise TwiceError(
                    f"{person} has already filled in {form}: the first answers are kept."
                )
            counted = kept.execute("SELECT count(*) FROM answer WHERE form = ?", row[:1])
            if counted.fetchone()[0] >= MOST:
                raise TwiceError(f"{form} already has its {MOST} answers; no more are accepted.")
            kept.execute("INSERT INTO answer VALUES (?, ?, ?, ?)", row)
            kept.commit()
    except sqlite3.Error as error:
        raise UserStudyError(f"Cannot write {path.name} because {error}.") from error
    return True


def is_one(path: Path) -> bool:
    """Whether a file holds a database, whatever it is called.

    Raises:
        UserStudyError: it cannot be read.
    """
    with open_regular(path, most=_MAX_FILE, error=UserStudyError) as file:
        return file.read(len(_HEAD)) == _HEAD


def rows(path: Path, *, most: int) -> list[tuple[str, str | None]]:
    """All answers of a file, each under the name that its download would have.

    Args:
        path: The file.
        most: Characters that one may have; ``None`` stands for longer ones.

    Raises:
        UserStudyError: the file is damaged, or of another kind.
    """
    try:
        with _opened(path, "?mode=ro") as kept:
            found = kept.execute(
                "SELECT form, respondent, CASE WHEN length(content) <= ? THEN content END "
                "FROM answer ORDER BY rowid", (most,),
            ).fetchall()  # fmt: skip
    except sqlite3.Error as error:
        raise UserStudyError(
            f"answers must be a file written by `oneword web`, got {path} ({error})."
        ) from error
    return [
        (f"{form}-{respondent}.json", content if isinstance(content, str) else None)
        for form, respondent, content in found
    ]


@contextlib.contextmanager
def _opened(path: Path, how: str = "") -> Iterator[sqlite3.Connection]:
    address = path.absolute().as_uri() + how
    with contextlib.closing(sqlite3.connect(address, timeout=_WAIT_S, uri=True)) as kept:
        yield kept
