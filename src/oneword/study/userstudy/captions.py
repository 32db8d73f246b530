"""People's descriptions of a thing: the page that asks for them, and the file that they make."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oneword._files import write_atomic
from oneword.images import jpeg_bytes, jpeg_uri, read_folder, to_images
from oneword.prompts import descriptions
from oneword.prompts.descriptions import Descriptions
from oneword.study.userstudy import answers, pages
from oneword.study.userstudy.items import NUM_TRAINING, QUALITY, UserStudyError


QUESTIONNAIRE = "captions"
_SIDE_PX = 256
_QUESTION = (
    "Describe it so that an artist who has not seen it could recreate it: what it is, its shape, "
    "colours and parts. Leave out what stands around it."
)
_FORM = answers.HEAD | {kind: [str] for kind in descriptions.LIMITS}


def make(
    folder: Path, output_dir: Path, *, each: int = 5, seed: int = 0, consent: Path | None = None
) -> Path:
    """Write the page that asks for descriptions of a thing.

    Args:
        folder: The thing's pictures; its name is the concept's.
        output_dir: Where the page goes.
        each: Short and as many long descriptions that one person writes.
        seed: Which four pictures are shown.
        consent: Text file with what people agree to.

    Returns:
        The page.

    Raises:
        UserStudyError: there are fewer than four pictures, or the consent cannot be read.
        ImageError: a picture cannot be read.
        OutputError: the page cannot be written.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.1.
    """
    agreed = pages.consent_text(consent)
    images = to_images(read_folder(folder, resolution=_SIDE_PX, masks=False).pixels)
    if len(images) < NUM_TRAINING:
        raise UserStudyError(
            f"The folder must contain {NUM_TRAINING} or more pictures, got {len(images)} in "
            f"{folder}."
        )
    chosen = random.Random(seed).sample(images, NUM_TRAINING)
    html = pages.rendered(
        "describe.html",
        data={"questionnaire": QUESTIONNAIRE, "form": _name(folder)},
        consent=agreed,
        title="Describe what pictures show",
        task=[
            f"You see {NUM_TRAINING} pictures of one thing or style, and write {each} short and "
            f"{each} long description{'s' if each > 1 else ''} of it."
        ],
        pictures=[jpeg_uri(jpeg_bytes(image, QUALITY)) for image in chosen],
        question=_QUESTION,
        limits=list(descriptions.LIMITS.items()),
        each=each,
    )
    path = output_dir / f"captions-{_name(folder)}.html"
    write_atomic(path, html.encode())
    return path


def _name(folder: Path) -> str:
    return folder.resolve().name


def examine(folder: Path, found: Any) -> dict[str, list[str]]:
    """Check one person's descriptions.

    Args:
        folder: The thing's pictures.
        found: What the JSON holds; nothing of it is trusted.

    Returns:
        The texts by kind, short and long.

    Raises:
        AnswerError: they are of another form or thing, or were changed.
        DescriptionError: one is too long, or empty.
    """
    found = answers.headed(found, _FORM)
    if (found["questionnaire"], found["form"]) != (QUESTIONNAIRE, _name(folder)):
        raise answers.AnswerError(
            "of another questionnaire",
            f"The descriptions must be of {_name(folder)}, got those of {found['form'][:80]!r}.",
        )
    texts = {kind: found[kind] for kind in descriptions.LIMITS}
    for kind, own in texts.items():
        for text in own:
            descriptions.check(kind, text)
    answers.check_code(found, [text for own in texts.values() for text in own])
    return texts


def take(folder: Path, given: Sequence[tuple[str, Any]]) -> Path:
    """Write the ``descriptions.json`` of a thing from people's answers.

    Args:
        folder: The thing's pictures; the file is written next to them.
        given: Name and content of each person's answers, as ``answers.read_files`` gives them.

    Raises:
        UserStudyError: answers cannot be used, or other descriptions lie there.
        DescriptionError: together they are not five of each kind.
        OutputError: the file cannot be written.
    """
    texts: dict[str, list[str]] = {kind: [] for kind in descriptions.LIMITS}
    respondents: set[str] = set()
    for name, content in given:
        try:
            if isinstance(content, answers.AnswerError):
                raise content
            for kind, own in examine(folder, content).items():
                texts[kind] += own
        except (answers.AnswerError, descriptions.DescriptionError) as error:
            raise UserStudyError(f"Cannot use {name}: {error}") from error
        if content["respondent"] in respondents:
            raise UserStudyError(f"Cannot use {name} because the same person has already answered.")
        respondents.add(content["respondent"])
    whole = Descriptions(**{kind: tuple(own) for kind, own in texts.items()})
    if descriptions.read(folder) not in (None, whole):
        raise UserStudyError(
            f"Cannot overwrite {folder / descriptions.FILE} because it has other descriptions; "
            "delete it first."
        )
    return descriptions.write(whole, folder)
