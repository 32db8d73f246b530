"""Held-out concepts: things that no training picture shows and no caption can name."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from oneword.errors import UserError
from oneword.microworld.world import inventory, scenes
from oneword.microworld.world.held_out import DEMO, HELD_OUT, Half, HeldOut
from oneword.microworld.world.inventory import Scene


if TYPE_CHECKING:
    pass


def get(name: str) -> HeldOut:
    """Find the held-out concept of a name.

    Raises:
        UserError: there is no such concept.
    """
    for concept in HELD_OUT:
        if concept.name == name:
            return concept
    names = ", ".join(concept.name for concept in HELD_OUT)
    raise UserError(f"The held-out concept must be one of {names}; got {name!r}.")


def half(concept: str | HeldOut) -> Half:
    """Say whether settings may be chosen on a concept, or only be tested on it."""
    name = concept if isinstance(concept, str) else concept.name
    return "development" if get(name).name in _development() else "test"


@cache
def _development() -> frozenset[str]:
    """Draw half of every family, the shown ones always among them."""
    rng = np.random.default_rng(np.random.SeedSequence((2022, 33)))
    chosen: set[str] = set()
    for family in dict.fromkeys(c.family for c in HELD_OUT):
        names = [c.name for c in HELD_OUT if c.family == family]
        shuffled = [names[int(i)] for i in rng.permutation(len(names))]
        # a stable sort: those that are shown come first
        chosen.update(sorted(shuffled, key=lambda n: n not in DEMO)[: (len(names) + 1) // 2])
    return frozenset(chosen)


def concept_scene(concept: HeldOut, place: str, rng: np.random.Generator) -> Scene:
    """Place a concept somewhere; a style shows a thing that training knows."""
    thing = concept.thing
    if thing is None:
        noun = inventory.NOUNS[int(rng.integers(len(inventory.NOUNS)))]
        thing = scenes.sample_thing(rng, noun, alone=True)
    drawn = replace(
        thing,
        x=0.5 + float(rng.uniform(-0.05, 0.05)),
        scale=float(rng.uniform(0.93, 1.07)),
        flipped=bool(rng.random() < 0.5),
    )
    return Scene(things=(drawn,), place=place, style=concept.style, seed=int(rng.integers(2**31)))


def concept_scenes(
    concept: HeldOut, num: int, seed: int = 0, *, plain: bool = False
) -> list[Scene]:
    """List the scenes of a concept's pictures, in every place before one repeats."""
    key = (seed, 32 if plain else 31, zlib.crc32(concept.name.encode()))
    rng = np.random.default_rng(np.random.SeedSequence(key))
    places = ("plain",) if plain else tuple(p for p in inventory.PLACES if p != "plain")
    found: list[Scene] = []
    while len(found) < num:
        round_ = rng.permutation(len(places))[: num - len(found)]
        found += [concept_scene(concept, places[int(i)], rng) for i in round_]
    return found
