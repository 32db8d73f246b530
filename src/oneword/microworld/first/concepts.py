"""Held-out concepts: things that no training picture shows and no caption can name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oneword.config import UserError
from oneword.microworld.first import scenes
from oneword.microworld.first.scenes import Scene, Thing


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """A thing (or style) that the model has never seen."""

    name: str
    noun: str
    """The coarse word that a person would start from."""
    kind: str
    """"recombination" (known noun, fixed unnameable colours), "shape" (unknown noun) or "style"."""
    thing: Thing | None = None
    """What is drawn; unset for a style."""
    style: str = "photo"


def _shape(shape: str, noun: str, colours: tuple[str, str, str]) -> HeldOut:
    return HeldOut(name=shape, noun=noun, kind="shape", thing=Thing(noun=shape, colours=colours))


HELD_OUT: tuple[HeldOut, ...] = (
    *(
        HeldOut(
            name=name,
            noun=noun,
            kind="recombination",
            thing=Thing(noun=noun, colours=colours, pattern=pattern, detail=1.1),
        )
        for name, (noun, colours, pattern) in scenes.RESERVED.items()
    ),
    _shape("snowman", "robot", ("white", "red", "orange")),
    _shape("rocket", "boat", ("red", "blue", "yellow")),
    _shape("cactus", "tree", ("green", "orange", "pink")),
    HeldOut(name="neon", noun="sketch", kind="style", style="neon"),
)


def get(name: str) -> HeldOut:
    """The held-out concept of a name.

    Raises:
        UserError: there is none.
    """
    for concept in HELD_OUT:
        if concept.name == name:
            return concept
    names = ", ".join(concept.name for concept in HELD_OUT)
    raise UserError(f"The held-out concept must be one of {names}; got {name!r}.")


def _scene(concept: HeldOut, place: str, rng: np.random.Generator) -> Scene:
    thing = concept.thing
    if thing is None:
        noun = scenes.NOUNS[int(rng.integers(len(scenes.NOUNS)))]
        colour = scenes.COLOURS[int(rng.integers(len(scenes.COLOURS)))]
        thing = Thing(noun=noun, colours=(colour, colour, scenes.NEUTRAL[noun]))
    drawn = Thing(
        noun=thing.noun,
        colours=thing.colours,
        pattern=thing.pattern,
        detail=thing.detail,
        aspect=thing.aspect,
        x=0.5 + float(rng.uniform(-0.05, 0.05)),
        scale=float(rng.uniform(0.93, 1.07)),
    )
    return Scene(things=(drawn,), place=place, style=concept.style, seed=int(rng.integers(2**31)))


def concept_pictures(concept: HeldOut, num: int = 4, seed: int = 0, size: int = 64) -> np.ndarray:
    """Pictures to learn a concept from, each in another place: uint8 (num, size, size, 3)."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 31, HELD_OUT.index(concept))))
    places = [scenes.SCENES[1:][int(i)] for i in rng.permutation(len(scenes.SCENES) - 1)]
    drawn = [_scene(concept, places[i % len(places)], rng) for i in range(num)]
    return np.stack([scenes.render(scene, size) for scene in drawn])


def concept_plain(concept: HeldOut, num: int = 8, seed: int = 0, size: int = 64) -> np.ndarray:
    """A concept alone on plain backgrounds, the truth for scoring: uint8 (num, size, size, 3)."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 32, HELD_OUT.index(concept))))
    drawn = [_scene(concept, "plain", rng) for _ in range(num)]
    return np.stack([scenes.render(scene, size) for scene in drawn])
