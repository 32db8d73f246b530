"""People's answers: checked as untrusted input, and translated to rankings of models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneword._files import FormError, check, parsed, read_json
from oneword.errors import UserError
from oneword.study.userstudy import kept
from oneword.study.userstudy.forms import Key, Page
from oneword.study.userstudy.items import UserStudyError
from oneword.study.userstudy.pages import KIT, completion_code


REASONS = (
    "unreadable", "of another questionnaire", "without consent", "incomplete",
    "not a ranking", "changed afterwards", "duplicate", "failed attention check",
)  # fmt: skip
"""Why answers do not count."""
MAX_BYTES = 2**20
"""Bytes of a file of answers."""
_PERSON = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._@-]{0,63})?")
_RESPONDENT = re.compile(r"[0-9a-f]{16}")
_CODE = re.compile(r"[0-9A-F]{8}")
HEAD = {
    "kit": int,
    "questionnaire": str,
    "form": str,
    "participant": str,
    "respondent": str,
    "consent": bool,
    "seconds": float,
    "code": str,
}
"""Form of the answers of every page."""
_FORM = HEAD | {"pages": [{"page": int, "ranks": [int]}]}


class AnswerError(UserError):
    """Answers that do not count.

    Args:
        reason: One of ``REASONS``.
        text: What must hold, and what was given.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ranking:
    """One page as one person filled it in."""

    number: int
    """Of the page in its form, from 1."""
    page: Page
    ranks: dict[str, int]
    """Of each model, 1 the best."""
    places: dict[str, int]
    """Position of each model's picture, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One form as one person filled it in."""

    name: str
    """Of the file."""
    questionnaire: str
    """"likeness" or "match"."""
    form: str
    participant: str
    """As the person gave it, or empty."""
    respondent: str
    """Random number of the page."""
    code: str
    seconds: float
    rankings: tuple[Ranking, ...]
    """Without checks."""
    failed_checks: int

    @property
    def person(self) -> str:
        """Who answered: by the participant id, or the page's random number."""
        return self.participant or self.respondent


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Answers that do not count, and why."""

    name: str
    reason: str
    text: str
    participant: str = ""
    form: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """All answers that were given."""

    responses: list[Response]
    left_out: list[LeftOut]

    @property
    def counts(self) -> dict[str, int]:
        """How many were left out, by reason."""
        found = Counter(one.reason for one in self.left_out)
        return {reason: found[reason] for reason in REASONS if found[reason]}


def headed(found: Any, form: Any) -> dict[str, Any]:
    """Answers of any page of the kit, their head checked.

    Raises:
        AnswerError: they are of another form, or without consent.
    """
    try:
        check(found, form)
    except FormError as problem:
        raise AnswerError(
            "unreadable", f"Answers must have the form of this kit: {problem}."
        ) from None
    for name, must in (("participant", _PERSON), ("respondent", _RESPONDENT), ("code", _CODE)):
        if not must.fullmatch(found[name]):
            given = found[name][:80]
            raise AnswerError("unreadable", f"{name} must be as the page writes it, got {given!r}.")
    if found["kit"] != KIT:
        raise AnswerError("unreadable", f"kit must be {KIT}, got {found['kit']}.")
    if not 0 <= found["seconds"] < 10**8:
        raise AnswerError("unreadable", f"seconds must be 0 or more, got {found['seconds']}.")
    if not found["consent"]:
        raise AnswerError("without consent", "The person must have agreed, got no consent.")
    return found


def check_code(found: dict[str, Any], parts: Sequence[str]) -> None:
    """Refuse answers that do not match their completion code.

    Raises:
        AnswerError: they do not match.
    """
    names = ("questionnaire", "form", "participant", "respondent")
    try:
        own = completion_code([*(found[name] for name in names), *parts])
    except UnicodeEncodeError:  # half of a surrogate pair
        raise AnswerError("unreadable", "Answers must be text in UTF-8.") from None
    if own != found["code"]:
        raise AnswerError(
            "changed afterwards",
            f"The completion code must be that of the answers, {own}, got {found['code']}.",
        )


def examine(key: Key, found: Any, name: str = "answers") -> Response:
    """Check one person's answers.

    Args:
        key: Of the forms.
        found: The JSON value, which is not trusted.
        name: Its name in messages.

    Raises:
        AnswerError: the answers do not count. Failed attention checks are not an error here.
    """
    found = headed(found, _FORM)
    if found["questionnaire"] != key.questionnaire or found["form"] not in key.forms:
        raise AnswerError(
            "of another questionnaire",
            f"The questionnaire must be {key.questionnaire} and the form one of its own, got "
            f"{found['questionnaire'][:40]!r} and {found['form'][:40]!r}.",
        )
    pages, given = key.forms[found["form"]], found["pages"]
    if [one["page"] for one in given] != list(range(1, len(pages) + 1)):
        raise AnswerError(
            "incomplete",
            f"The answers must be of pages 1 to {len(pages)} once each, got {len(given)} others.",
        )
    rankings, failed = [], 0
    for number, (page, one) in enumerate(zip(pages, given, strict=True), start=1):
        ranks = one["ranks"]
        if sorted(ranks) != list(range(1, len(page.shown) + 1)):
            raise AnswerError(
                "not a ranking",
                f"Page {number} must give the ranks 1 to {len(page.shown)} once each, got "
                f"{str(ranks)[:80]}.",
            )
        if page.check is not None:
            place, rank = page.check
            failed += ranks[place - 1] != rank
        else:
            own = {m: place for place, m in enumerate(page.shown, start=1) if m is not None}
            by_model = {model: ranks[place - 1] for model, place in own.items()}
            rankings.append(Ranking(number, page, by_model, own))
    check_code(found, [",".join(map(str, one["ranks"])) for one in given])
    return Response(
        name=name,
        questionnaire=found["form"].partition("-")[0],
        form=found["form"],
        participant=found["participant"],
        respondent=found["respondent"],
        code=found["code"],
        seconds=found["seconds"],
        rankings=tuple(rankings),
        failed_checks=failed,
    )


def collect(key: Key, given: Iterable[tuple[str, Any]]) -> Collected:
    """Check everybody's answers; those that do not count are left out and listed.

    A person can fill in a form once: the first counts, whether or not it passes the checks.

    Args:
        key: Of the forms.
        given: Name and content of each, or an ``AnswerError`` instead of the content.
    """
    responses: list[Response] = []
    left_out: list[LeftOut] = []
    known: set[tuple[str, str]] = set()
    for name, content in given:
        try:
            if isinstance(content, AnswerError):
                raise content
            one = examine(key, content, name)
        except AnswerError as error:
            left_out.append(LeftOut(name, error.reason, str(error)))
            continue
        reason = text = ""
        own = {(one.form, one.person), (one.form, one.respondent)}
        if own & known:
            reason, text = "duplicate", f"{one.person} has already filled in {one.form}."
        elif one.failed_checks:
            reason = "failed attention check"
            text = f"{one.failed_checks} of the attention checks of {one.form} failed."
        known |= own
        if reason:
            left_out.append(LeftOut(name, reason, text, one.participant, one.form, one.code))
        else:
            responses.append(one)
    return Collected(responses, left_out)


def read_files(paths: Sequence[Path]) -> list[tuple[str, Any]]:
    """Contents of files, and of the JSON files of folders, in the order of their names.

    An SQLite file that ``oneword web`` wrote gives all the answers in it, in the order in which
    they came.

    Raises:
        UserStudyError: there is no file.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        files += [file for file in inside if file not in files]
    if not files:
        raise UserStudyError(
            f"answers must be JSON files, folders of them, or {kept.FILE} of `oneword web`, got "
            "none."
        )
    found: list[tuple[str, Any]] = []
    for file in files:
        try:
            if file.is_file() and kept.is_one(file):
                rows = kept.rows(file, most=MAX_BYTES)
                found += [(name, _of_row(name, text)) for name, text in rows]
                continue
            must = "answers must be a JSON file written by a page"
            content: Any = read_json(file, most=MAX_BYTES, must=must, error=UserStudyError)
        except UserStudyError as problem:
            content = AnswerError("unreadable", str(problem))
        found.append((file.name, content))
    return found


def _of_row(name: str, text: str | None) -> Any:
    """What a row of the server's answers holds."""
    try:
        return parsed(text or "")
    except FormError as problem:
        return AnswerError("unreadable", f"{name} must be JSON sent by a page ({problem}).")
