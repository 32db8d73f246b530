"""Sets of pictures of one thing each, for an encoder to learn from: all of what training knows.

A set's pictures show one look in varied places: a look with a name, a look that no word says
(recombinations of colours, pattern, mark and what creatures have on), an artist's drawing, or many
things in one style. No held-out thing, style or look is ever among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from oneword.microworld.world import artwork, scenes, unseen, wide_scenes
from oneword.microworld.world.held_out import RESERVED
from oneword.microworld.world.inventory import (
    BADGES,
    COLOURS,
    CREATURES,
    EXTRAS,
    HIDDEN_NOUNS,
    HIDDEN_STYLES,
    NOUNS,
    PATTERNS,
    PLACES,
    STYLES,
    Combination,
    Scene,
    Thing,
)
from oneword.microworld.world.wide_scenes import Figure, WideScene


FIRST_WORLD = 1
"""Version of the world with the drawn nouns alone; the next is ``wide_scenes.VERSION``."""
_NAMES, _STYLES = 0.3, 0.1  # shares of sets of looks with a name, and of styles
_MARKED = 0.4  # how often a recombination has a mark, or a creature something on
_PLAIN = 0.15  # how often a picture is on plain ground


@dataclass(frozen=True, slots=True)
class ThingSet:
    """Pictures that have one thing or one style in common."""

    kind: Literal["object", "style"]
    scenes: tuple[Scene | WideScene, ...]


def sample_set(seed: int, num: int, world: int = FIRST_WORLD) -> ThingSet:
    """The set of a seed.

    Args:
        seed: Decides everything.
        num: Pictures of it.
        world: Version of the world that the model knows.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 36)))
    dice = rng.random()
    if world == wide_scenes.VERSION and rng.random() >= wide_scenes.DRAWN_SHARE:
        found = _style(rng, num, wide=True) if dice < _STYLES else _drawing(rng, num)
    elif dice < _STYLES:
        found = _style(rng, num, wide=False)
    else:
        found = _look(rng, num, named=dice < _STYLES + _NAMES)
    check_known(found.scenes)
    return found


def check_known(some: Sequence[Scene | WideScene]) -> None:
    """Make sure that nothing held out is shown.

    Raises:
        AssertionError: something is.
    """
    for scene in some:
        assert scene.style not in HIDDEN_STYLES, f"the style {scene.style} is held out"
        for thing in scene.things:
            if isinstance(thing, Figure):
                assert thing.slug in _known(), f"{thing.slug} is held out"
                assert thing.look in artwork.LOOKS, f"the look {thing.look} is held out"
                continue
            assert thing.noun not in HIDDEN_NOUNS, f"the shape {thing.noun} is held out"
            assert _look_of(thing) not in RESERVED, f"a look of {thing.noun} is held out"


@cache
def _known() -> frozenset[str]:
    return frozenset(unseen.known())


def _look_of(thing: Thing) -> Combination:
    return Combination(
        noun=thing.noun,
        colours=thing.colours,
        pattern=thing.pattern,
        badge=thing.badge,
        extras=thing.extras,
    )


def _pick(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _place(rng: np.random.Generator) -> str:
    return "plain" if rng.random() < _PLAIN else _pick(rng, PLACES)


def _look(rng: np.random.Generator, num: int, *, named: bool) -> ThingSet:
    """A thing of the first world in one look, with or without a name."""
    noun = _pick(rng, NOUNS)
    looks = tuple(scenes.named()[noun].values())
    look = looks[int(rng.integers(len(looks)))] if named else _recombined(rng, noun)
    thing = replace(
        scenes.sample_thing(rng, noun, alone=True),
        colours=look.colours,
        pattern=look.pattern,
        badge=look.badge,
        extras=look.extras,
        name="",
    )
    found = []
    while len(found) < num:
        scene = Scene(
            things=(_moved(thing, rng),), place=_place(rng), seed=int(rng.integers(2**31))
        )
        if not scenes.is_unseen(noun, look.colours[0], scene.place, scene.style):
            found.append(scene)
    return ThingSet("object", tuple(found))


def _recombined(rng: np.random.Generator, noun: str) -> Combination:
    """A look that no caption says, and that is not held out."""
    while True:
        extras: tuple[str, ...] = ()
        if noun in CREATURES and rng.random() < _MARKED:
            count = 1 + int(rng.random() < 0.4)
            extras = tuple(sorted(str(e) for e in rng.choice(EXTRAS, count, replace=False)))
        look = Combination(
            noun=noun,
            colours=(_pick(rng, COLOURS), _pick(rng, COLOURS), _pick(rng, COLOURS)),
            pattern=_pick(rng, PATTERNS),
            badge=_pick(rng, BADGES) if rng.random() < _MARKED else "",
            extras=extras,
        )
        if look not in RESERVED:
            return look


def _moved(thing: Thing, rng: np.random.Generator) -> Thing:
    """The same thing as another picture shows it."""
    return replace(
        thing,
        x=0.5 + float(rng.uniform(-0.05, 0.05)),
        scale=float(rng.uniform(0.93, 1.07)),
        flipped=bool(rng.random() < 0.5),
    )


def _style(rng: np.random.Generator, num: int, *, wide: bool) -> ThingSet:
    """Many things in one style."""
    style = _pick(rng, STYLES[1:])
    seeds = rng.integers(0, 2**40, num).tolist()
    sample = wide_scenes.sample_wide if wide else scenes.sample_scene
    return ThingSet("style", tuple(sample(n, styles=(style,), relation="alone") for n in seeds))


def _drawing(rng: np.random.Generator, num: int) -> ThingSet:
    """An artist's drawing of a thing, now and then in another colour."""
    slug, look = _pick(rng, unseen.known()), _pick(rng, artwork.LOOKS)
    colour = ""
    if slug in wide_scenes.coloured() and rng.random() < _MARKED:
        colour = _pick(rng, wide_scenes.COLOURS)
    found: list[WideScene] = []
    while len(found) < num:
        figure = Figure(
            slug=slug,
            look=look,
            colour=colour,
            x=0.5 + float(rng.uniform(-0.05, 0.05)),
            scale=float(rng.uniform(0.93, 1.07)),
            flipped=bool(rng.random() < 0.5),
        )
        place, background = _place(rng), int(rng.integers(2**31))
        scene = WideScene(things=(figure,), place=place, seed=background)
        if not wide_scenes.is_unseen(scene):
            found.append(scene)
    return ThingSet("object", tuple(found))
