"""The embedded model's world: the scene of a seed.

A scene is plain data: what is where, in which colours, in which style. ``drawing`` turns it into
pixels and ``captions`` into a sentence; nothing here draws. Many things have colours, extras and
proportions that their caption does not name, so that the model can draw what words cannot say.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from oneword.microworld.world.held_out import RESERVED
from oneword.microworld.world.inventory import (
    BADGES,
    BIAS,
    COLOURS,
    CREATURES,
    EXTRAS,
    HAIR_COLOURS,
    HAIRS,
    NAMES_PER_NOUN,
    NEUTRAL,
    NOUNS,
    PARTNERS,
    PATTERNS,
    PLACES,
    PROFESSIONS,
    RELATIONS,
    SKINS,
    STYLES,
    Combination,
    Scene,
    Thing,
)


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
