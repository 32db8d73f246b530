"""Sheets to look at of the embedded model's world: prompts in rows, each with its scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from oneword.microworld.world import captions, concepts, inventory
from oneword.microworld.world.held_out import HELD_OUT
from oneword.microworld.world.inventory import COLOURS, NOUNS, PARTNERS, PLACES, PROFESSIONS, STYLES


Rows = dict[str, list[captions.Prompt]]
"""Prompts by the label of their row."""


def world(seed: int = 0) -> dict[str, Rows]:
    """The sheets of all that training knows: nouns and places by style, counts and relations."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 41)))

    def row(subjects: Iterator[tuple[str, str, str]], looks: Sequence[tuple[str, str]]):
        kinds: dict[str, captions.Kind] = {"alone": "one", "count": "count", "beside": "two"}
        return [
            captions.prompt(
                kinds.get(relation, "relation"), relation, noun, second,
                (str(rng.choice(COLOURS)), place, style), rng,
            )
            for (relation, noun, second), (place, style) in zip(subjects, looks, strict=False)
        ]  # fmt: skip

    def alone(nouns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        yield from (("alone", noun, "") for noun in nouns)

    def related(relation: str) -> Iterator[tuple[str, str, str]]:
        first, second = PARTNERS.get(relation, (NOUNS, ("",)))
        while True:
            noun, partner = str(rng.choice(first)), str(rng.choice(second))
            if noun != partner:
                yield relation, noun, partner

    width = len(STYLES)
    places = [p for p in PLACES if p != "plain"]
    nouns = (*NOUNS, *PROFESSIONS)
    return {
        "nouns": {
            noun: row(
                alone((noun,) * width),
                [(places[(i + j) % len(places)], style) for j, style in enumerate(STYLES)],
            )
            for i, noun in enumerate(nouns)
        },
        "places": {
            place: row(
                alone([nouns[(i * width + j) % len(nouns)] for j in range(width)]),
                [(place, style) for style in STYLES],
            )
            for i, place in enumerate(PLACES)
        },
        "relations": {
            relation: row(
                related(relation), [(str(rng.choice(PLACES)), "photo") for _ in range(width)]
            )
            for relation in inventory.RELATIONS[1:]
        },
    }


def held_out(num: int = 8, seed: int = 0) -> dict[str, list[inventory.Scene]]:
    """The scenes of each held-out concept's pictures."""
    return {
        f"{c.name} ({c.family}, {concepts.half(c)})": concepts.concept_scenes(c, num, seed)
        for c in HELD_OUT
    }
