"""What a word can be learned for on a model of either world: everything that its training left out.

In the first world the held-out concepts; in the second the artists' held-out things, and of the
first one's concepts all but the shapes, which the artists' take the place of.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from oneword.errors import UserError
from oneword.microworld.world import artwork, concepts, drawn, unseen, wide_concepts
from oneword.microworld.world.held_out import HELD_OUT, Family, Half, HeldOut
from oneword.microworld.world.sets import FIRST_WORLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnable:
    """One held-out thing or style."""

    name: str
    family: Family
    half: Half
    """Whether settings may be chosen on it, or it is only tested on."""
    noun: str | None
    """The word that a person would start from; ``None``: the loss finds one."""
    of: HeldOut | artwork.Drawn

    @property
    def is_style(self) -> bool:
        """Whether it is a style rather than a thing."""
        return self.family == "style"

    @property
    def read_as(self) -> tuple[str, str]:
        """What the oracle reads where a picture shows it: an attribute and its value."""
        if isinstance(self.of, artwork.Drawn):
            return "noun", self.of.noun
        return ("style", self.of.style) if self.is_style else ("concept", self.of.name)

    def pictures(self, num: int = 5, seed: int = 0, size: int = 128) -> np.ndarray:
        """Draw pictures to learn it from, in varied places: uint8 (num, size, size, 3)."""
        if isinstance(self.of, artwork.Drawn):
            return wide_concepts.concept_pictures(self.of, num, seed, size)
        return drawn.concept_pictures(self.of, num, seed, size)

    def places(self, num: int = 5, seed: int = 0, *, plain: bool = False) -> list[str]:
        """Where it is in ``pictures``, or in ``plain``."""
        of = wide_concepts if isinstance(self.of, artwork.Drawn) else concepts
        return [scene.place for scene in of.concept_scenes(self.of, num, seed, plain=plain)]  # pyright: ignore[reportArgumentType]

    def plain(self, num: int = 8, seed: int = 0, size: int = 128) -> np.ndarray:
        """Draw it on plain ground, the truth for scores: uint8 (num, size, size, 3)."""
        if isinstance(self.of, artwork.Drawn):
            return wide_concepts.concept_pictures(self.of, num, seed, size, plain=True)
        return drawn.concept_plain(self.of, num, seed, size)

    def plain_masks(self, num: int = 8, seed: int = 0, size: int = 128) -> list[np.ndarray]:
        """Draw the silhouettes of what ``plain`` shows: bool (size, size) each."""
        if isinstance(self.of, artwork.Drawn):
            return wide_concepts.concept_masks(self.of, num, seed, size, plain=True)
        found = drawn.concept_masks(self.of, num, seed, size, plain=True)
        return [masks["silhouette"] for masks in found]


@cache
def learnable(world: int) -> dict[str, Learnable]:
    """All of a world by name, such as "gold-mug" or "rocket"."""
    found = [
        Learnable(name=c.name, family=c.family, half=concepts.half(c), noun=c.noun, of=c)
        for c in HELD_OUT
        if world == FIRST_WORLD or c.family != "shape"
    ]
    if world != FIRST_WORLD:
        found = [
            Learnable(name=slug, family="shape", half=half, noun=None, of=artwork.things()[slug])
            for slug, half in unseen.counted().items()
        ] + found
    return {one.name: one for one in found}


def find(name: str, world: int, *, things_alone: bool = False) -> Learnable:
    """The held-out thing or style of a name.

    Args:
        name: As ``learnable`` has it; spaces stand for hyphens.
        world: Version of the model's world.
        things_alone: Leave styles out.

    Raises:
        UserError: there is none; the nearest names are offered.
    """
    known = {n: one for n, one in learnable(world).items() if not (things_alone and one.is_style)}
    wanted = name.strip().lower().replace(" ", "-")
    if wanted in known:
        return known[wanted]
    near = _nearest(wanted, list(known))
    advice = f"did you mean {', '.join(near)}?" if near else f"they are {', '.join(known)}."
    raise UserError(
        f"The held-out thing must be one of the model's world, version {world}, got {name!r}; "
        f"{advice}"
    )


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Names that are spelt like one, or hold a word that is."""
    words = {word: whole for whole in known for word in (*whole.split("-"), whole)}
    spelt = difflib.get_close_matches(name, words, 5, 0.6)
    return list(dict.fromkeys(words[word] for word in spelt))
