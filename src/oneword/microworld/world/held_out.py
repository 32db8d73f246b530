"""Things and styles that no training picture shows, so that words can be learned for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from oneword.microworld.world.inventory import Combination, Thing


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
        """Five descriptions of at most 12 words, as an artist would be told; ours, not people's."""
        return tuple(_described()[self.name]["short"])

    @property
    def captions_long(self) -> tuple[str, ...]:
        """Five descriptions of at most 30 words; ours, not people's."""
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
