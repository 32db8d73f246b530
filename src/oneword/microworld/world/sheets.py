"""Sheets to look at of the embedded model's world: prompts in rows, each with its scene."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from oneword.microworld.world import (
    artwork,
    captions,
    concepts,
    inventory,
    unseen,
    wide_concepts,
    wide_prompts,
    wide_scenes,
)
from oneword.microworld.world.held_out import HELD_OUT
from oneword.microworld.world.inventory import COLOURS, NOUNS, PARTNERS, PLACES, PROFESSIONS, STYLES
from oneword.microworld.world.wide_prompts import WidePrompt
from oneword.microworld.world.wide_scenes import Figure, WideScene


Rows = Mapping[str, Sequence[captions.Prompt | WidePrompt]]
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


# --- the second world


_KINDS: dict[str, wide_prompts.Kind] = {"count": "count", "beside": "two", "on": "on"}
_WIDTH = 8


def wide(seed: int = 0) -> dict[str, Rows]:
    """The sheets of the artists' things: by group, in looks, styles, colours, places, relations."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 42)))
    deck: list[str] = []

    def dealt(among: Sequence[str]) -> str:
        """The next thing of a shuffled list, which is shuffled anew at its end."""
        while True:
            if not deck:
                deck.extend(unseen.known()[int(i)] for i in rng.permutation(len(unseen.known())))
            slug = deck.pop()
            if slug in among:
                return slug

    def shown(
        relation: str = "alone",
        among: Sequence[str] = unseen.known(),
        look: str = "flat sticker",
        **more: Any,
    ) -> WidePrompt:
        figure = Figure(slug=dealt(among), look=look, colour=more.pop("colour", ""))
        things = (figure,)
        if relation == "count":
            things = (figure,) * (2 + int(rng.integers(2)))
        elif relation != "alone":
            things = (figure, Figure(slug=dealt(unseen.known()), look=look))
        background = int(rng.integers(2**31))
        scene = WideScene(things=things, relation=relation, seed=background, **more)
        return wide_prompts.asked(
            scene, _KINDS.get(relation, "plain" if scene.place == "plain" else "place")
        )

    groups: dict[str, list[str]] = {}
    for slug in unseen.known():
        groups.setdefault(artwork.things()[slug].group, []).append(slug)
    coloured = sorted(wide_scenes.coloured() & set(unseen.known()))
    looks = artwork.LOOKS
    places = [place for place in PLACES if place != "plain"]
    row = range(_WIDTH)
    return {
        "things": {
            group: [shown(among=some, look=looks[i % len(looks)]) for i in row]
            for group, some in groups.items()
        },
        "looks": {look: [shown(look=look) for _ in row] for look in looks},
        "styles": {
            style: [shown(style=style, place=places[i % len(places)]) for i in row]
            for style in STYLES[1:]
        },
        "colours": {
            colour: [shown(among=coloured, colour=colour) for _ in row]
            for colour in wide_scenes.COLOURS
        },
        "places": {
            place: [shown(place=place, look=looks[i % len(looks)]) for i in row] for place in PLACES
        },
        "relations": {
            relation: [shown(relation, place=places[i % len(places)]) for i in row]
            for relation in wide_scenes.RELATIONS[1:]
        },
    }


def wide_held_out(seed: int = 0) -> dict[str, list[WideScene]]:
    """The scenes of each held-out thing's pictures: its four looks, twice."""
    looks = artwork.LOOKS
    return {
        f"{artwork.things()[slug].noun} ({half})": [
            wide_concepts.concept_scenes(artwork.things()[slug], _WIDTH, seed, look=look)[i]
            for i, look in enumerate(looks * (_WIDTH // len(looks)))
        ]
        for slug, half in unseen.counted().items()
    }
