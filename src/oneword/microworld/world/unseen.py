"""Which of the artists' things are held out: their drawings and words are in no training picture.

Eighty are counted, half to choose settings on and half to be tested on, spread over Unicode's
groups. Whatever shares a word with one of them, or looks like its twin, moves along uncounted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal

import numpy as np

from oneword.microworld.world import artwork, captions, concepts
from oneword.microworld.world.held_out import HELD_OUT


Half = Literal["development", "test"]
NUM = 80
"""Counted things."""
TWINS: tuple[tuple[str, ...], ...] = (
    ("hedgehog", "mammoth", "elephant"), ("octopus", "squid"), ("bicycle", "motor-scooter"),
    ("lobster", "shrimp"), ("duck", "swan", "dodo"), ("ox", "water-buffalo", "bison"),
    ("wolf", "fox", "raccoon"), ("goat", "ram", "ewe"), ("rat", "mouse-face", "hamster"),
    ("koala", "bear", "panda", "polar-bear"), ("seal", "dolphin", "whale"), ("tulip", "rose"),
    ("violin", "banjo", "guitar"), ("trumpet", "postal-horn", "saxophone"),
    ("cookie", "pancakes"), ("pear", "mango", "lemon", "lime"), ("burrito", "taco", "tamale"),
    ("laptop", "desktop-computer"), ("hammer", "axe", "pick", "hammer-and-pick"),
    ("dagger", "crossed-swords", "kitchen-knife"), ("screwdriver", "wrench"),
    ("helicopter", "small-airplane"), ("canoe", "speedboat"), ("tram", "trolleybus", "minibus"),
    ("pizza", "pie"), ("donkey", "horse-face"), ("llama", "camel"), ("deer", "moose"),
    ("envelope", "love-letter"), ("sled", "skis"), ("violin", "guitar"), ("bell", "bellhop-bell"),
    ("lizard", "crocodile"), ("sauropod", "t-rex"), ("spoon", "fork-and-knife"),
    ("baseball", "softball"), ("scroll", "page-with-curl"), ("mosque", "hindu-temple"),
    ("trophy", "sports-medal"), ("crutch", "white-cane"), ("jeans", "shorts"),
    ("briefcase", "luggage"), ("goblin", "ogre"), ("eagle", "dove"), ("socks", "gloves"),
    ("cow-face", "ox"), ("bus", "trolleybus"), ("house", "derelict-house"),
)  # fmt: skip
"""Slugs of things that a look at the drawings finds hard to tell apart, or that mean nearly the
same."""
_SYNONYMS = {"automobile", "airplane", "sailboat", "seat", "mate"}
"""Things that the drawn world has under another name, or whose name is an everyday word."""
_KEPT = {
    "person", "person-role", "person-fantasy", "body-parts", "religion", "place-religious",
    "other-symbol", "heart", "emotion",
}  # fmt: skip
"""Unicode's subgroups of which nothing is counted: people and signs rather than things."""
_MINOR = {"of", "on", "in", "the", "and", "with", "a", "left", "up", "red", "paper", "o"}
_FIRST_WORLD = {"lantern": "red-paper-lantern"}
"""Shapes of the first world's held-out half that the artists' list has under a longer name."""


def slug_of(shape: str) -> str:
    """The name in the artists' list, if any, of a shape that the first world holds out."""
    return _FIRST_WORLD.get(shape, shape)


def words(noun: str) -> set[str]:
    """The words of a noun that name something."""
    return set(noun.split()) - _MINOR


def _both_numbers(some: Iterable[str]) -> set[str]:
    forms = set(some)
    for word in some:
        forms.add(f"{word}s")
        if len(word) > 3 and word.endswith("s") and word[-2] not in "sui":
            forms.add(word[:-1])
    return forms


@cache
def _by_word() -> dict[str, set[str]]:
    """Slugs of the things whose noun holds a word."""
    found: dict[str, set[str]] = {}
    for slug, thing in artwork.things().items():
        for word in words(thing.noun):
            found.setdefault(word, set()).add(slug)
    return found


@cache
def kin(slug: str) -> frozenset[str]:
    """Things that share a word with a thing or are its twins, without itself."""
    forms = _both_numbers(words(artwork.things()[slug].noun))
    shared = {other for form in forms for other in _by_word().get(form, ())}
    twins = {other for group in TWINS if slug in group for other in group}
    return frozenset(shared | twins) - {slug}


@cache
def counted() -> dict[str, Half]:
    """The held-out things that are counted, by slug, with their halves.

    The shapes that the first world holds out are among them, in the halves that they have there.
    """
    found: dict[str, Half] = {}
    for concept in HELD_OUT:
        slug = slug_of(concept.name)
        if concept.family == "shape" and slug in artwork.things():
            found[slug] = concepts.half(concept)
    groups: dict[str, list[str]] = {}
    for slug, thing in artwork.things().items():
        if _may_be_held_out(thing):
            groups.setdefault(thing.subgroup, []).append(slug)
    rng = np.random.default_rng(np.random.SeedSequence((2022, 61)))
    # every subgroup gives of its own in turn, the larger ones more often
    turns = [
        (float((place + rng.random()) / len(slugs)), slugs[int(i)])
        for slugs in groups.values()
        for place, i in enumerate(rng.permutation(len(slugs)))
    ]
    taken = set(found).union(*map(kin, found))
    for _, slug in sorted(turns):
        if len(found) < NUM and slug not in taken and not kin(slug) & taken:
            test = sum(half == "test" for half in found.values())
            found[slug] = "test" if test < NUM // 2 and 2 * test <= len(found) else "development"
            taken |= {slug, *kin(slug)}
    return found


def _may_be_held_out(thing: artwork.Drawn) -> bool:
    own = words(thing.noun)
    return (
        len(thing.noun.split()) == 1
        and len(own) == 1
        and thing.subgroup not in _KEPT
        and not own & _SYNONYMS
        and not _both_numbers(own) & said_anyway()
        and len(kin(thing.slug)) <= 2
    )


@cache
def said_anyway() -> frozenset[str]:
    """Words of captions that have nothing to do with the artists' things, such as "woods"."""
    return frozenset(w for text in captions._own_texts() for w in re.findall(r"\w+", text))


@cache
def held_out() -> frozenset[str]:
    """Slugs of everything held out: what is counted, and what moves along."""
    return frozenset(set(counted()).union(*map(kin, counted())))


@cache
def known() -> tuple[str, ...]:
    """Slugs that training draws, in the list's order."""
    return tuple(slug for slug in artwork.things() if slug not in held_out())


@cache
def forbidden_words() -> frozenset[str]:
    """Words that no caption, keyword or invented name of training may hold.

    The nouns of all that is counted, in both numbers, and what the nouns of those that moved along
    do not share with a known thing or with other captions.
    """
    things = artwork.things()
    needed = _both_numbers(set().union(*(words(things[slug].noun) for slug in known())))
    beside = set().union(*(words(things[slug].noun) for slug in held_out())) - needed
    sole = set().union(*(words(things[slug].noun) for slug in counted()))
    return frozenset(_both_numbers(sole | (beside - said_anyway())))
