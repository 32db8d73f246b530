"""Prompts by which a model of the second world is measured, with what is true of their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from oneword.microworld.world import artwork, unseen, wide_captions, wide_scenes
from oneword.microworld.world.inventory import PLACES, STYLES
from oneword.microworld.world.wide_scenes import Figure, WideScene, is_unseen, truth


Kind = Literal["plain", "place", "two", "on", "count"]
SHARES: dict[Kind, float] = {"plain": 0.3, "place": 0.32, "two": 0.15, "on": 0.15, "count": 0.08}
"""Of the prompts, by kind."""
_RELATIONS = {"two": "beside", "on": "on", "count": "count"}


@dataclass(frozen=True, kw_only=True, slots=True)
class WidePrompt:
    """A prompt and what is true of a picture that answers it."""

    text: str
    kind: Kind
    truth: dict[str, str]
    """As ``wide_scenes.truth`` has it; "look" only where the prompt names one."""
    scene: WideScene
    """Draws a picture that answers the prompt."""


def evaluation_prompts(num: int, seed: int) -> list[WidePrompt]:
    """Write prompts of known things, every thing before one repeats, as far as they reach.

    Those in a place are combinations of thing, colour, place and style that training leaves out;
    those on plain ground ask for what training shows.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 70)))
    ends = np.round(np.cumsum(list(SHARES.values())) * num).astype(int)
    slugs = unseen.known()
    order = [
        slugs[int(i)] for _ in range(2 * num // len(slugs) + 2) for i in rng.permutation(len(slugs))
    ]
    found: list[WidePrompt] = []
    for kind, size in zip(SHARES, np.diff(ends, prepend=0), strict=True):
        for _ in range(int(size)):
            first, second = order.pop(), order.pop() if kind in ("two", "on") else ""
            while second == first:
                second = order.pop()
            found.append(_prompt(kind, first, second, rng))
    return [found[int(i)] for i in rng.permutation(len(found))]


def _prompt(kind: Kind, first: str, second: str, rng: np.random.Generator) -> WidePrompt:
    num = 2 + int(rng.integers(2)) if kind == "count" else 1
    while True:
        style = "photo" if kind == "plain" or rng.random() < 0.5 else _pick(rng, STYLES)
        place = "plain" if kind == "plain" else _pick(rng, PLACES[1:])
        look = _pick(rng, artwork.LOOKS) if style == "photo" else "flat sticker"
        coloured = kind != "plain" and first in wide_scenes.coloured() and rng.random() < 0.5
        colour = _pick(rng, wide_scenes.COLOURS) if coloured else ""
        things = (Figure(slug=first, look=look, colour=colour),) * num
        if second:
            things = (*things, Figure(slug=second, look=look))
        scene = WideScene(
            things=things,
            relation=_RELATIONS.get(kind, "alone"),
            place=place,
            style=style,
            seed=int(rng.integers(2**31)),
        )
        if kind == "plain" or is_unseen(scene):
            return asked(scene, kind)


def asked(scene: WideScene, kind: Kind) -> WidePrompt:
    """The plainest prompt that a scene answers; it names a look or a style, never both."""
    first = scene.things[0]
    facts = truth(scene)
    if scene.style != "photo":
        facts.pop("look")
        facts.pop("second_look", None)
    text = wide_captions.sentence(
        first.noun,
        look=first.look,
        colour=facts.get("colour"),
        place=scene.place,
        style=scene.style,
        relation=scene.relation,
        second_noun=facts.get("second_noun"),
        num=scene.num,
    )
    return WidePrompt(text=text, kind=kind, truth=facts, scene=scene)


def _pick(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]
