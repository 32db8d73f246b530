"""Held-out concepts: things that no training picture shows and no caption can name."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

import numpy as np

from oneword.config.inversion import UserError
from oneword.microworld.world import scenes
from oneword.microworld.world.scenes import Combination, Scene, Thing


if TYPE_CHECKING:
    from collections.abc import Sequence

Family = Literal["recombination", "shape", "style", "character"]
Half = Literal["development", "test"]
DEMO = ("gold-mug", "parrot", "snowman", "neon", "captain-whiskers")
"""Concepts that documentation shows, so that they can be in the development half only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """A thing, creature or style that the model has never seen."""

    name: str
    noun: str
    """The coarse word that a person would start from."""
    family: Family
    """"recombination" (known noun, fixed look that words cannot say), "shape" (unknown noun),
    "style" or "character" (a creature with a fixed look and something on)."""
    thing: Thing | None = None
    """What is drawn; unset for a style."""
    style: str = "photo"

    @property
    def captions_short(self) -> tuple[str, ...]:
        """Five descriptions of at most 12 words, as an artist would be told."""
        return tuple(_described()[self.name]["short"])

    @property
    def captions_long(self) -> tuple[str, ...]:
        """Five descriptions of at most 30 words."""
        return tuple(_described()[self.name]["long"])


@cache
def _described() -> dict[str, dict[str, list[str]]]:
    text = (
        resources.files("oneword.microworld").joinpath("concepts.json").read_text(encoding="utf-8")
    )
    return json.loads(text)


def _known(
    name: str,
    noun: str,
    colours: tuple[str, str, str],
    *,
    pattern: str = "plain",
    badge: str = "",
    extras: tuple[str, ...] = (),
) -> HeldOut:
    return HeldOut(
        name=name,
        noun=noun,
        family="character" if extras else "recombination",
        thing=Thing(
            noun=noun,
            colours=colours,
            pattern=pattern,
            badge=badge,
            # scenes compares extras in this order
            extras=tuple(sorted(extras)),
            detail=1.1,
        ),
    )


def _shape(shape: str, noun: str, colours: tuple[str, str, str]) -> HeldOut:
    return HeldOut(name=shape, noun=noun, family="shape", thing=Thing(noun=shape, colours=colours))


def _style(style: str, noun: str) -> HeldOut:
    return HeldOut(name=style.replace(" ", "-"), noun=noun, family="style", style=style)


HELD_OUT: tuple[HeldOut, ...] = (
    _known("gold-mug", "mug", ("yellow", "blue", "red")),
    _known("parrot", "bird", ("green", "red", "yellow")),
    _known("midnight-teapot", "teapot", ("blue", "yellow", "white"), badge="moon"),
    _known("clown-fish", "fish", ("orange", "white", "black"), pattern="banded"),
    _known("candy-house", "house", ("pink", "teal", "white"), pattern="striped"),
    _known("circus-bus", "bus", ("teal", "pink", "yellow"), pattern="zigzag"),
    _known("racer", "car", ("white", "red", "black"), pattern="checkered", badge="star"),
    _known("pirate-boat", "boat", ("black", "red", "white"), badge="cross"),
    _known("rose-vase", "vase", ("purple", "pink", "yellow"), pattern="zigzag", badge="heart"),
    _known("picnic-basket", "basket", ("red", "white", "brown"), pattern="checkered"),
    _known("royal-chair", "chair", ("purple", "yellow", "red"), badge="star"),
    _known("disco-lamp", "lamp", ("teal", "purple", "orange"), pattern="dotted"),
    _known("fairy-mushroom", "mushroom", ("teal", "pink", "yellow"), badge="ring"),
    _known("sunny-ball", "ball", ("yellow", "teal", "pink"), pattern="striped", badge="star"),
    _known("parade-drum", "drum", ("green", "orange", "white"), pattern="zigzag"),
    _known("wizard-hat", "hat", ("purple", "teal", "yellow"), pattern="dotted", badge="moon"),
    _shape("snowman", "robot", ("white", "red", "orange")),
    _shape("rocket", "plane", ("red", "blue", "yellow")),
    _shape("cactus", "tree", ("green", "orange", "pink")),
    _shape("windmill", "house", ("white", "red", "brown")),
    _shape("guitar", "drum", ("orange", "brown", "white")),
    _shape("dinosaur", "turtle", ("green", "yellow", "purple")),
    _shape("pineapple", "mushroom", ("yellow", "green", "brown")),
    _shape("anchor", "boat", ("blue", "grey", "red")),
    _shape("lantern", "lamp", ("red", "black", "yellow")),
    _shape("octopus", "fish", ("purple", "pink", "white")),
    _shape("bicycle", "car", ("teal", "black", "orange")),
    _shape("igloo", "house", ("white", "blue", "teal")),
    _style("neon", "chalk"),
    _style("blueprint", "sketch"),
    _style("mosaic", "poster"),
    _style("halftone", "cartoon"),
    _style("stained glass", "cartoon"),
    _style("duotone", "poster"),
    _style("embroidery", "watercolor"),
    _known("captain-whiskers", "cat", ("black", "red", "white"), badge="star", extras=("cape",)),
    _known(
        "professor-hop",
        "rabbit",
        ("grey", "purple", "yellow"),
        badge="moon",
        extras=("glasses", "scarf"),
    ),
    _known(
        "sir-shell",
        "turtle",
        ("teal", "yellow", "red"),
        pattern="checkered",
        badge="cross",
        extras=("crown",),
    ),
    _known("rudy", "dog", ("brown", "red", "yellow"), badge="heart", extras=("antlers", "scarf")),
    _known(
        "queen-feather",
        "bird",
        ("purple", "yellow", "white"),
        pattern="dotted",
        badge="ring",
        extras=("crown", "scarf"),
    ),
    _known(
        "bolt",
        "robot",
        ("blue", "orange", "white"),
        pattern="banded",
        badge="star",
        extras=("cape", "glasses"),
    ),
    _known(
        "mister-mittens",
        "cat",
        ("orange", "teal", "white"),
        pattern="striped",
        badge="heart",
        extras=("bow", "glasses"),
    ),
    _known(
        "duke-spot",
        "dog",
        ("white", "black", "red"),
        pattern="dotted",
        badge="ring",
        extras=("bow",),
    ),
)
RESERVED: frozenset[Combination] = frozenset(
    Combination(
        noun=c.thing.noun,
        colours=c.thing.colours,
        pattern=c.thing.pattern,
        badge=c.thing.badge,
        extras=c.thing.extras,
    )
    for c in HELD_OUT
    if c.thing and c.family in {"recombination", "character"}
)
"""Looks that ``scenes`` never draws for training."""


def get(name: str) -> HeldOut:
    """Find the held-out concept of a name.

    Raises:
        UserError: there is none.
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
        noun = scenes.NOUNS[int(rng.integers(len(scenes.NOUNS)))]
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
    places = ("plain",) if plain else tuple(p for p in scenes.PLACES if p != "plain")
    found: list[Scene] = []
    while len(found) < num:
        round_ = rng.permutation(len(places))[: num - len(found)]
        found += [concept_scene(concept, places[int(i)], rng) for i in round_]
    return found


def concept_pictures(concept: HeldOut, num: int = 5, seed: int = 0, size: int = 128) -> np.ndarray:
    """Draw pictures to learn a concept from, in varied places: uint8 (num, size, size, 3)."""
    return _drawn(concept_scenes(concept, num, seed), size)


def concept_plain(concept: HeldOut, num: int = 8, seed: int = 0, size: int = 128) -> np.ndarray:
    """Draw a concept on plain backgrounds, the truth for scores: uint8 (num, size, size, 3)."""
    return _drawn(concept_scenes(concept, num, seed, plain=True), size)


def concept_masks(
    concept: HeldOut, num: int = 5, seed: int = 0, size: int = 128, *, plain: bool = False
) -> list[dict[str, np.ndarray]]:
    """Draw the silhouette and parts of what the pictures show, or of the plain ones."""
    from oneword.microworld.world import drawing  # needs the optional extra

    found = concept_scenes(concept, num, seed, plain=plain)
    return [drawing.masks(scene, size=size) for scene in found]


def _drawn(found: Sequence[Scene], size: int) -> np.ndarray:
    from oneword.microworld.world import drawing  # needs the optional extra

    return np.stack([drawing.render(scene, size=size) for scene in found])
