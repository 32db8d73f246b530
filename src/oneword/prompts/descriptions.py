"""A thing in people's words: short and long captions that replace a learned word."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from oneword._files import read_json, write_json_atomic
from oneword.errors import UserError


FILE = "descriptions.json"
"""Name of the file next to the pictures: {"short": [five texts], "long": [five texts]}."""
COUNT = 5
LIMITS = {"short": 12, "long": 30}
"""Most words of a caption, by kind."""


class DescriptionError(UserError):
    """The descriptions of a thing cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptions:
    """Captions of one thing "that could allow an artist to recreate it".

    Raises:
        DescriptionError: there are not five of each kind, or one is too long.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.1.
    """

    short: tuple[str, ...]
    """Five, of at most 12 words."""
    long: tuple[str, ...]
    """Five, of at most 30 words."""

    def __post_init__(self) -> None:
        for kind in LIMITS:
            texts = getattr(self, kind)
            if len(texts) != COUNT:
                raise DescriptionError(
                    f"There must be {COUNT} {kind} captions of a thing, got {len(texts)}."
                )
            for text in texts:
                check(kind, text)


def check(kind: str, text: str) -> None:
    """Refuse a caption that has too many words, or none.

    Args:
        kind: "short" or "long".
        text: The caption.

    Raises:
        DescriptionError: the caption has too many words, or none.
    """
    words, limit = len(text.split()), LIMITS[kind]
    if not 1 <= words <= limit:
        raise DescriptionError(
            f"A {kind} caption must have 1 to {limit} words, got {words} in {text!r}."
        )


def read(folder: Path) -> Descriptions | None:
    """Read the descriptions next to the pictures of a folder; ``None`` if there are none.

    Raises:
        DescriptionError: the file has another form, or its captions cannot be used.
    """
    path = folder / FILE
    if not path.exists():
        return None
    must = (
        'The descriptions must be JSON such as {"short": ["...", ...], "long": ["...", ...]} with '
        f"{COUNT} texts each"
    )
    found = read_json(path, {kind: [str] for kind in LIMITS}, must=must, error=DescriptionError)
    texts = {kind: tuple(found[kind]) for kind in LIMITS}
    return Descriptions(**texts)


def write(descriptions: Descriptions, folder: Path) -> Path:
    """Write descriptions next to pictures."""
    path = folder / FILE
    write_json_atomic(path, asdict(descriptions))
    return path
