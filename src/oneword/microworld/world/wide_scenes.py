"""The second world's scenes: what artists drew joins what the first world draws.

As in ``scenes``, a scene is plain data that belongs to a seed. Roughly a third of the pictures are
the first world's, whose parts have exact truths; the others show the artists' things in four looks.
Version 1 of the embedded model knows nothing of this module.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from oneword.microworld.world import artwork, scenes, unseen
from oneword.microworld.world.inventory import PLACES, STYLES, Scene


VERSION = 2
"""Of the world; the recipe of a model says which it is made from."""
DRAWN_SHARE = 0.3
"""Pictures that are scenes of the first world."""
RELATIONS = ("alone", "count", "beside", "on")
SHARES = (0.66, 0.08, 0.17, 0.09)
"""How often each of ``RELATIONS`` is."""
PLAIN_SHARE = 0.6
"""Of what is alone, how much is on plain ground in its own look: 40 % of all."""
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown")
"""Colours that a thing's own can be replaced by; greys and near-blacks in it stay."""
NAMED_SHARE = 0.25
"""How often a thing on its own is the one drawing that has an invented name."""

Look = Literal["flat sticker", "line icon", "classic emoji", "glossy sticker"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """An artist's drawing in a scene."""

    slug: str
    """One of ``unseen.known`` in training; any of ``artwork.things`` otherwise."""
    look: str = "flat sticker"
    """One of ``artwork.LOOKS``, or ``artwork.FIRST_EDITION``."""
    colour: str = ""
    """One of ``COLOURS`` in place of its own; empty: its own."""
    size: Literal["small", "medium", "large"] = "medium"
    x: float = 0.5
    """Centre, fraction of the picture's width."""
    scale: float = 1.0
    flipped: bool = False
    name: str = ""
    """The invented name of this very drawing, where the caption may use it."""

    @property
    def noun(self) -> str:
        """What it is called."""
        return artwork.things()[self.slug].noun


@dataclass(frozen=True, kw_only=True, slots=True)
class WideScene:
    """Everything that a picture of the artists' things shows."""

    things: tuple[Figure, ...]
    """One; ``num`` equal ones ("count"); left and right ("beside"); upper and lower ("on")."""
    relation: str = "alone"
    place: str = "plain"
    style: str = "photo"
    """"photo" leaves things in their own look; other styles redraw those of vector looks."""
    light: float = 1.0
    """Brightness; below 0.8 a dark picture, above 1.1 a bright one."""
    seed: int = 0
    """Decides the rest of the background."""

    @property
    def num(self) -> int:
        """How many of the first thing are counted: 1, 2 or 3."""
        return len(self.things) if self.relation == "count" else 1


def is_unseen(scene: WideScene) -> bool:
    """Whether a scene holds a combination that is kept out of training: one in eight.

    A thing in its own look and colours on plain ground is always seen.
    """
    if (
        scene.place == "plain"
        and scene.style == "photo"
        and not any(t.colour for t in scene.things)
    ):
        return False
    looks = (f"{t.slug}/{t.colour}/{scene.place}/{scene.style}" for t in scene.things)
    return any(zlib.crc32(look.encode()) % 8 == 0 for look in looks)


def sample(seed: int) -> Scene | WideScene:
    """The scene of a seed in the second world."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 62)))
    if rng.random() < DRAWN_SHARE:
        return scenes.sample_scene(seed)
    return sample_wide(seed)


def sample_wide(
    seed: int,
    *,
    slugs: Sequence[str] | None = None,
    styles: Sequence[str] = STYLES,
    relation: str | None = None,
) -> WideScene:
    """The scene of a seed with artists' things, never an unseen combination.

    Args:
        seed: Decides everything.
        slugs: Things to choose from; unset: all that training knows.
        styles: Styles to choose from; the first is that of things in their own look.
        relation: One of ``RELATIONS``; unset: as often as training has them.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 63)))
    some = unseen.known() if slugs is None else slugs
    while True:
        scene = _sample(rng, some, styles, relation)
        if not is_unseen(scene):
            return scene


def _sample(
    rng: np.random.Generator, slugs: Sequence[str], styles: Sequence[str], relation: str | None
) -> WideScene:
    if relation is None:
        relation = RELATIONS[int(rng.choice(len(RELATIONS), p=SHARES))]
    plain = relation == "alone" and rng.random() < PLAIN_SHARE
    own = plain or rng.random() < 0.5
    style = styles[0] if own else _pick(rng, styles)
    place = "plain" if plain or rng.random() < 0.06 else _pick(rng, PLACES)
    lamp = rng.random()
    light = 1.0 if plain else 0.6 if lamp < 0.05 else 1.25 if lamp < 0.1 else 1.0
    styled = style != "photo"
    first = _sample_figure(rng, _pick(rng, slugs), styled=styled, alone=relation == "alone")
    things: tuple[Figure, ...] = (first,)
    if relation == "count":
        things = (first,) * (2 + int(rng.random() < 0.5))
    elif relation != "alone":
        second = first
        while second.slug == first.slug:
            second = _sample_figure(rng, _pick(rng, slugs), styled=styled)
        things = (first, second)
    return WideScene(
        things=things,
        relation=relation,
        place=place,
        style=style,
        light=light,
        seed=int(rng.integers(2**31)),
    )


def _pick(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _sample_figure(
    rng: np.random.Generator, slug: str, *, styled: bool, alone: bool = False
) -> Figure:
    """A thing as training shows it: a quarter with the look that has a name of its own."""
    look, name = _pick(rng, artwork.LOOKS), ""
    if styled:
        # black ink fills thin lines, so that most styled things are flat ones
        look = "line icon" if rng.random() < 0.2 else "flat sticker"
    dice, colour = rng.random(), ""
    known = names().get(slug)
    if alone and known is not None and rng.random() < NAMED_SHARE:
        named_look, word = known
        if not styled or named_look in artwork.VECTOR_LOOKS:
            look, name = named_look, word
    if not name and dice < 0.3 and slug in coloured():
        colour = _pick(rng, COLOURS)
    dice = rng.random()
    size = "small" if dice < 0.1 else "large" if dice < 0.2 and alone else "medium"
    return Figure(
        slug=slug,
        look=look,
        colour=colour,
        size=size,
        x=0.5 + (float(rng.uniform(-0.06, 0.06)) if alone else 0.0),
        scale=float(rng.uniform(0.94, 1.06)),
        flipped=bool(rng.random() < 0.5),
        name=name,
    )


@cache
def names() -> dict[str, tuple[str, str]]:
    """An invented name for one drawing of every known thing: its look and the word, by slug.

    As the first world's named looks do, they teach the text encoder that one word can stand for one
    drawing and no other.
    """
    rng = np.random.default_rng(np.random.SeedSequence((2022, 64)))
    letters = ("jkvzw", "aeiou", "bdfglmnprst", "aeiou", "bdgklmnprt")
    taken = {word for looks in scenes.named().values() for word in looks}
    taken |= unseen.forbidden_words()
    taken |= {word for t in artwork.things().values() for word in (*t.noun.split(), *t.keywords)}
    found = {}
    for slug in unseen.known():
        word = ""
        while not word or word in taken:
            word = "".join(_pick(rng, some) for some in letters)
        taken.add(word)
        found[slug] = (_pick(rng, artwork.LOOKS), word)
    return found


@cache
def coloured() -> frozenset[str]:
    """Things that have colours to replace: not nearly white, grey or black ones.

    Kept as a list, so that nothing needs to be drawn to know it: the build of the data finds them.
    """
    return frozenset(artwork.listed(artwork.COLOURED).split())


def truth(scene: WideScene) -> dict[str, str]:
    """What is true of a picture, value by value; what it does not show is left out.

    Returns:
        "noun", "look", "scene", "style", "relation" and "count"; "colour" where the thing's own was
        replaced and the style keeps colours; "second_noun" and "second_look" of two things.
    """
    first = scene.things[0]
    found = {
        "noun": first.noun,
        "look": first.look,
        "scene": scene.place,
        "style": scene.style,
        "relation": scene.relation,
        "count": ("one", "two", "three")[scene.num - 1],
    }
    if first.colour and scene.style not in ("blueprint", "duotone"):
        found["colour"] = first.colour
    if scene.relation in ("beside", "on"):
        found |= {"second_noun": scene.things[1].noun, "second_look": scene.things[1].look}
    return found
