"""Things that artists drew, as text: the list, their looks, and their SVG.

The data folder ``things`` holds the curated list and one compressed file a look, which
``making/things_data.py`` builds; its ``NOTICE`` says where each comes from. Nothing here draws:
``sprites`` does.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from oneword._files import read_json
from oneword.errors import UserError


FOLDER = Path(__file__).parents[1] / "things"
LIST = "list.jsonl"
COLOURED = "coloured.txt"
"""Slugs of things with colours to replace."""
SUMS = "sums.json"
"""Of every look: its package, the version, and the SHA-256 of the built file; that of the lists."""
LOOKS = ("flat sticker", "line icon", "classic emoji", "glossy sticker")
"""Looks that training draws."""
FIRST_EDITION = "classic first edition"
"""An artist's hand that no training picture shows; it drew two thirds of the things."""
VECTOR_LOOKS = ("flat sticker", "line icon")
"""Looks that are filled areas, so that every style can redraw them."""


class ArtworkError(UserError):
    """The artists' drawings are missing, damaged or have no thing of a name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """One thing that the artists drew."""

    noun: str
    """What captions call it, such as "high heeled shoe"."""
    slug: str
    """Its name in files: the noun with hyphens, or longer where a noun is short for something."""
    group: str
    subgroup: str
    """Where Unicode files it, such as "animal-marine"."""
    keywords: tuple[str, ...]
    """Other words for it, from Unicode's CLDR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Artwork:
    """A drawing as SVG."""

    box: tuple[float, float, float, float]
    """Left, top, width and height of the view box."""
    body: str
    """What stands between the ``<svg>`` tags."""

    @property
    def svg(self) -> str:
        """The whole document."""
        box = " ".join(f"{n:g}" for n in self.box)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}">{self.body}</svg>'
        )


def file_of(look: str) -> str:
    """Name of a look's file in the data folder."""
    return f"{look.replace(' ', '-')}.json.xz"


def listed(name: str) -> str:
    """The text of a list, ``LIST`` or ``COLOURED``.

    Raises:
        ArtworkError: it is missing or damaged.
    """
    return _whole(name, name).decode()


def _whole(name: str, key: str) -> bytes:
    """What a data file holds; ``key`` is what its checksum is kept under."""
    path, sums = FOLDER / name, FOLDER / SUMS
    known = read_json(sums, {key: {"sha256": str}}, error=ArtworkError)
    data = path.read_bytes() if path.exists() else b""
    digest = hashlib.sha256(data).hexdigest() if data else "no file"
    expected = known[key]["sha256"]
    if digest != expected:
        raise ArtworkError(
            f"The world's data in {name} must have SHA-256 {expected[:12]}..., got {digest[:12]}; "
            "reinstall oneword, or run `python -m oneword.microworld.making.things_data`."
        )
    return data


@cache
def things() -> dict[str, Drawn]:
    """All things by slug, in the list's order."""
    found = {}
    for line in listed(LIST).splitlines():
        noun, slug, group, subgroup, keywords, _ = json.loads(line)
        found[slug] = Drawn(
            noun=noun, slug=slug, group=group, subgroup=subgroup, keywords=tuple(keywords)
        )
    return found


def find(noun: str) -> Drawn:
    """The thing of a noun.

    Raises:
        ArtworkError: there is no such thing; the message suggests the nearest names.
    """
    for thing in things().values():
        if thing.noun == noun:
            return thing
    raise unknown(noun)


def search(word: str) -> list[Drawn]:
    """Things whose noun or keywords hold a word."""
    word = word.lower().strip()
    return [
        thing
        for thing in things().values()
        if word == thing.noun or word in (*thing.noun.split(), *thing.keywords)
    ]


def unknown(name: str) -> ArtworkError:
    """The error of a name that no thing has, with the nearest ones."""
    near = nearest(name)
    advice = (
        f"did you mean {', '.join(near)}?" if near else "`oneword microworld things` lists all."
    )
    return ArtworkError(f"The thing must be one that the world draws, got {name!r}; {advice}")


def nearest(text: str, num: int = 5) -> list[str]:
    """Nouns that are spelt like a text or whose keywords are, the likeliest first."""
    text = text.lower().strip()
    by_word: dict[str, list[str]] = {}
    for thing in things().values():
        for word in (thing.noun, *thing.noun.split(), *thing.keywords):
            by_word.setdefault(word, []).append(thing.noun)
    spelt = difflib.get_close_matches(text, by_word, num, 0.7)
    return list(dict.fromkeys(noun for word in spelt for noun in by_word[word][:2]))[:num]


@cache
def artworks(look: str) -> Mapping[str, Artwork]:
    """Drawings of a look by slug; the first edition lacks a third of the things.

    Args:
        look: One of ``LOOKS``, or ``FIRST_EDITION``.

    Raises:
        ArtworkError: there is no such look, or its file is missing or damaged.
    """
    if look not in (*LOOKS, FIRST_EDITION):
        known = ", ".join((*LOOKS, FIRST_EDITION))
        raise ArtworkError(f"The look must be one of {known}; got {look!r}.")
    bodies = json.loads(lzma.decompress(_whole(file_of(look), look)))
    return {slug: Artwork(box=tuple(box), body=body) for slug, (box, body) in bodies.items()}
