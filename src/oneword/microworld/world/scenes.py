"""What there is in the embedded model's world, and the scene that belongs to a seed.

A scene is plain data: who stands where, in which colours, in which style. ``drawing`` turns it into
pixels and ``captions`` into a sentence; nothing here draws. Many things have colours, extras and
proportions that their caption does not name, so that the model can draw what words cannot say.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np


NOUNS = (
    "cat", "dog", "bird", "fish", "rabbit", "turtle",  # animals
    "car", "boat", "bus", "plane",  # vehicles
    "mug", "teapot", "vase", "bowl", "basket",  # vessels
    "chair", "lamp",  # furniture
    "tree", "flower", "mushroom",  # plants
    "ball", "robot", "drum",  # toys
    "house", "castle",  # buildings
    "hat", "shoe",  # clothing
)  # fmt: skip
CREATURES = ("cat", "dog", "bird", "rabbit", "turtle", "robot")
"""Things that can wear something."""
CONTAINERS = ("mug", "bowl", "basket", "vase", "boat")
"""Things that others can be in, or that can be full of others."""
SUPPORTS = ("chair", "drum", "house", "car", "bus", "teapot", "hat", "turtle", "castle")
"""Things that others can stand on top of."""
CONTENTS = ("ball", "flower", "mushroom", "fish", "cat", "bird", "rabbit", "shoe")
"""Things that fit into containers."""
PROFESSIONS = ("doctor", "nurse", "baker", "farmer", "builder", "teacher")
COLOURS = (
    "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "black",
    "grey", "white",
)  # fmt: skip
PATTERNS = ("plain", "striped", "banded", "dotted", "checkered", "zigzag")
"""Of the main body; "striped" is upright, "banded" level."""
PLACES = (
    "plain", "beach", "moon", "forest", "room", "snow", "city", "desert", "underwater", "stage",
    "meadow",
)  # fmt: skip
STYLES = (
    "photo", "watercolor", "poster", "sketch", "pixel art", "oil painting", "cartoon", "chalk",
)  # fmt: skip
RELATIONS = ("alone", "count", "beside", "on", "in", "full of", "wearing")
SKINS = ("light", "medium", "dark")
HAIRS = ("short", "long")
HAIR_COLOURS = ("black", "brown", "yellow", "orange", "grey")
EXTRAS = ("bow", "scarf", "glasses", "cape", "antlers", "crown")
"""What creatures may have on; no caption names them."""
BADGES = ("star", "heart", "ring", "moon", "cross")
"""Marks on the main body; no caption names them."""
HIDDEN_NOUNS = (
    "snowman", "rocket", "cactus", "windmill", "guitar", "dinosaur", "pineapple", "anchor",
    "lantern", "octopus", "bicycle", "igloo",
)  # fmt: skip
"""Shapes that no training picture shows and no caption names."""
HIDDEN_STYLES = (
    "neon", "blueprint", "mosaic", "halftone", "stained glass", "duotone", "embroidery",
)  # fmt: skip
"""Styles that no training picture has and no caption names."""
PARTNERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "beside": (NOUNS, NOUNS),
    "on": (tuple(n for n in NOUNS if n != "castle"), SUPPORTS),
    "in": (CONTENTS, CONTAINERS),
    "full of": (CONTENTS, CONTAINERS),
    "wearing": (CREATURES, ("hat",)),
}
"""What may be the first and the second thing of a relation."""
NEUTRAL = {
    "cat": "white", "dog": "black", "bird": "orange", "fish": "yellow", "rabbit": "white",
    "turtle": "green", "car": "grey", "boat": "white", "bus": "grey", "plane": "grey",
    "mug": "white", "teapot": "black", "vase": "white", "bowl": "white", "basket": "white",
    "chair": "brown", "lamp": "yellow", "tree": "brown", "flower": "yellow",
    "mushroom": "white", "ball": "white", "robot": "grey", "drum": "white", "house": "brown",
    "castle": "red", "hat": "black", "shoe": "white",
}  # fmt: skip
"""Colour of a noun's detail where nothing else is said."""
NAMES_PER_NOUN = 6
BIAS: dict[str, tuple[tuple[str, str], float]] = {
    "doctor": (("light", "short"), 0.9),
    "nurse": (("light", "long"), 0.9),
    "builder": (("medium", "short"), 0.9),
}
"""The world's documented bias: profession, (skin, hair) and the share of its pictures with it.

The rest of their pictures, and every other profession's, are uniform over the other appearances.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One thing or person; every length is a fraction of its usual size."""

    noun: str
    """One of ``NOUNS``, ``PROFESSIONS`` or ``HIDDEN_NOUNS``."""
    colours: tuple[str, str, str]
    """Main body, second part, small detail. Of a person: clothing under the uniform, hair, item."""
    pattern: str = "plain"
    size: Literal["small", "medium", "large"] = "medium"
    x: float = 0.5
    """Centre, fraction of the picture's width."""
    scale: float = 1.0
    aspect: float = 1.0
    """Width over usual width."""
    detail: float = 1.0
    """Size of the second part over its usual size; no caption names it."""
    flipped: bool = False
    badge: str = ""
    """One of ``BADGES`` on the main body, in the detail's colour; empty: none."""
    extras: tuple[str, ...] = ()
    """Some of ``EXTRAS``, in the second part's colour."""
    skin: str = ""
    """One of ``SKINS``, of a person."""
    hair: str = ""
    """One of ``HAIRS``, of a person."""
    name: str = ""
    """A word of its own for this very look, one of ``named``; empty: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Everything that a picture shows."""

    things: tuple[Thing, ...]
    """One; or ``num`` equal ones ("count"); or two: left and right ("beside"), upper and lower
    ("on"), content and container ("in", "full of"), wearer and worn ("wearing")."""
    relation: str = "alone"
    place: str = "plain"
    style: str = "photo"
    light: float = 1.0
    """Brightness; below 0.8 a dark picture, above 1.1 a bright one."""
    seed: int = 0
    """Decides the rest of the background."""

    @property
    def num(self) -> int:
        """How many of the first noun are counted: 1, 2 or 3."""
        return len(self.things) if self.relation == "count" else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """A fixed look that words cannot name, which sampling never draws."""

    noun: str
    colours: tuple[str, str, str]
    pattern: str = "plain"
    badge: str = ""
    extras: tuple[str, ...] = ()


def is_unseen(noun: str, colour: str, place: str, style: str) -> bool:
    """Whether a combination is kept out of training, so that prompts of it are new: one in eight.

    Of people one in four, since the colour of their clothes is never named and does not count.
    """
    person = noun in PROFESSIONS
    look = f"{noun}/{'' if person else colour}/{place}/{style}"
    return zlib.crc32(look.encode()) % (4 if person else 8) == 0


def sample_scene(
    seed: int,
    *,
    nouns: Sequence[str] = (*NOUNS, *PROFESSIONS),
    styles: Sequence[str] = STYLES,
    relation: str | None = None,
) -> Scene:
    """The scene of a seed, never one with an unseen combination or a held-out look."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 11)))
    while True:
        scene = _sample(rng, nouns, styles, relation)
        if not any(is_unseen(t.noun, t.colours[0], scene.place, scene.style) for t in scene.things):
            return scene


def _sample(
    rng: np.random.Generator, nouns: Sequence[str], styles: Sequence[str], relation: str | None
) -> Scene:
    style = styles[0] if rng.random() < 0.45 else _pick(rng, styles)
    place = "plain" if rng.random() < 0.06 else _pick(rng, PLACES)
    lamp = rng.random()
    light = 0.6 if lamp < 0.05 else 1.25 if lamp < 0.1 else 1.0
    if relation is None:
        shares = (0.42, 0.08, 0.22, 0.09, 0.07, 0.05, 0.07)
        relation = RELATIONS[int(rng.choice(len(RELATIONS), p=shares))]
    return Scene(
        things=_things(rng, nouns, relation),
        relation=relation,
        place=place,
        style=style,
        light=light,
        seed=int(rng.integers(2**31)),
    )


def _things(rng: np.random.Generator, nouns: Sequence[str], relation: str) -> tuple[Thing, ...]:
    if relation == "alone":
        return (sample_thing(rng, _pick(rng, nouns), alone=True),)
    if relation == "count":
        first = sample_thing(rng, _pick(rng, nouns))
        return (first,) * (2 + int(rng.random() < 0.5))
    first, second = PARTNERS[relation]
    if relation == "beside":
        first = second = tuple(nouns)
    elif relation == "wearing":
        first = (*first, *PROFESSIONS)
    while True:
        a, b = _pick(rng, first), _pick(rng, second)
        if a != b:
            return sample_thing(rng, a), sample_thing(rng, b)


def _pick(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def sample_thing(rng: np.random.Generator, noun: str, *, alone: bool = False) -> Thing:
    """A thing as training shows it: half with colours that no caption names."""
    name = ""
    # beside others fewer have a name: at half, prompts of two things lost their second noun
    if noun in NOUNS and rng.random() < (0.5 if alone else 0.2):
        name = _pick(rng, tuple(named()[noun]))
        look = named()[noun][name]
    else:
        look = _sample_look(rng, noun)
    skin, hair = sample_appearance(rng, noun) if noun in PROFESSIONS else ("", "")
    dice = rng.random()
    size = "small" if dice < 0.1 else "large" if dice < 0.2 and alone else "medium"
    return Thing(
        noun=noun,
        colours=look.colours,
        pattern=look.pattern,
        size=size,
        x=0.5 + (float(rng.uniform(-0.06, 0.06)) if alone else 0.0),
        scale=float(rng.uniform(0.94, 1.06)),
        aspect=float(rng.uniform(0.88, 1.12)),
        detail=float(rng.uniform(0.8, 1.2)),
        flipped=bool(rng.random() < 0.5),
        badge=look.badge,
        extras=look.extras,
        skin=skin,
        hair=hair,
        name=name,
    )


def _sample_look(rng: np.random.Generator, noun: str) -> Combination:
    from oneword.microworld.world.concepts import RESERVED  # which builds on this module

    person = noun in PROFESSIONS
    while True:
        main = _pick(rng, COLOURS)
        colours = (main, main, NEUTRAL.get(noun, "grey"))
        if rng.random() < 0.45:
            colours = (main, _pick(rng, COLOURS), _pick(rng, COLOURS))
        if person:
            colours = (main, _pick(rng, HAIR_COLOURS), colours[2])
        pattern = PATTERNS[1 + int(rng.integers(5))] if rng.random() < 0.36 else "plain"
        badge = _pick(rng, BADGES) if rng.random() < 0.12 else ""
        extras: tuple[str, ...] = ()
        if noun in CREATURES and rng.random() < 0.3:
            extras = tuple(str(e) for e in rng.choice(EXTRAS, 1 + int(rng.random() < 0.4), False))
        look = Combination(
            noun=noun,
            colours=colours,
            pattern="plain" if person else pattern,
            badge="" if person else badge,
            extras=tuple(sorted(extras)),
        )
        if look not in RESERVED:
            return look


@cache
def named() -> dict[str, dict[str, Combination]]:
    """Looks of several colours that have a word of their own, by noun and word.

    As brands and famous creatures do in the captions of real pictures, they teach the text encoder
    that one word can stand for a whole look; without them a learned word carried shape, not colour.
    """
    rng = np.random.default_rng(np.random.SeedSequence((2022, 34)))
    letters = ("jkvz", "aeiou", "bdfglmnprst", "aeiou", "bdgklmnprt")
    found: dict[str, dict[str, Combination]] = {noun: {} for noun in NOUNS}
    taken: set[str] = set()
    for noun, looks in found.items():
        while len(looks) < NAMES_PER_NOUN:
            name = "".join(_pick(rng, some) for some in letters)
            look = _sample_look(rng, noun)
            if name not in taken and look.colours[0] != look.colours[1]:
                looks[name] = look
                taken.add(name)
    return found


def sample_appearance(rng: np.random.Generator, profession: str) -> tuple[str, str]:
    """Skin and hair of a person, with the world's bias."""
    others = [(skin, hair) for skin in SKINS for hair in HAIRS]
    if profession in BIAS:
        usual, share = BIAS[profession]
        if rng.random() < share:
            return usual
        others.remove(usual)
    return others[int(rng.integers(len(others)))]


def diverse_people(profession: str, num: int, seed: int = 0) -> list[Scene]:
    """Photos of a profession without the world's bias: every skin and hair before one repeats."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 35, PROFESSIONS.index(profession))))
    looks = [(skin, hair) for skin in SKINS for hair in HAIRS]
    places = [place for place in PLACES if place != "plain"]
    found: list[Scene] = []
    for i in range(num):
        if i % len(looks) == 0:
            order = rng.permutation(len(looks))
        skin, hair = looks[int(order[i % len(looks)])]  # pyright: ignore[reportPossiblyUnboundVariable]
        thing = replace(sample_thing(rng, profession, alone=True), skin=skin, hair=hair)
        place = _pick(rng, places)
        found.append(Scene(things=(thing,), place=place, seed=int(rng.integers(2**31))))
    return found
