"""The contents of the embedded model's world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


NOUNS = (
    "cat", "dog", "bird", "fish", "rabbit", "turtle",  # animals
    "car", "boat", "bus", "plane",  # vehicles
    "mug", "teapot", "vase", "bowl", "basket",  # vessels
    "chair", "lamp",  # furniture
    "tree", "flower", "mushroom",  # plants
    "ball", "robot", "drum",  # toys
    "house", "castle",  # buildings
    "hat", "shoe",  # clothing
)  # fmt: skip


CREATURES = ("cat", "dog", "bird", "rabbit", "turtle", "robot")
"""Things that can wear something."""


CONTAINERS = ("mug", "bowl", "basket", "vase", "boat")
"""Things that others can be in, or that can be full of others."""


SUPPORTS = ("chair", "drum", "house", "car", "bus", "teapot", "hat", "turtle", "castle")
"""Things that others can stand on top of."""


CONTENTS = ("ball", "flower", "mushroom", "fish", "cat", "bird", "rabbit", "shoe")
"""Things that fit into containers."""


PROFESSIONS = ("doctor", "nurse", "baker", "farmer", "builder", "teacher")


COLOURS = (
    "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "black",
    "grey", "white",
)  # fmt: skip


PATTERNS = ("plain", "striped", "banded", "dotted", "checkered", "zigzag")
"""Of the main body; "striped" is upright, "banded" level."""


PLACES = (
    "plain", "beach", "moon", "forest", "room", "snow", "city", "desert", "underwater", "stage",
    "meadow",
)  # fmt: skip


STYLES = (
    "photo", "watercolor", "poster", "sketch", "pixel art", "oil painting", "cartoon", "chalk",
)  # fmt: skip


RELATIONS = ("alone", "count", "beside", "on", "in", "full of", "wearing")


SKINS = ("light", "medium", "dark")


HAIRS = ("short", "long")


HAIR_COLOURS = ("black", "brown", "yellow", "orange", "grey")


EXTRAS = ("bow", "scarf", "glasses", "cape", "antlers", "crown")
"""What creatures may wear; no caption names it."""


BADGES = ("star", "heart", "ring", "moon", "cross")
"""Marks on the main body; no caption names them."""


HIDDEN_NOUNS = (
    "snowman", "rocket", "cactus", "windmill", "guitar", "dinosaur", "pineapple", "anchor",
    "lantern", "octopus", "bicycle", "igloo",
)  # fmt: skip
"""Shapes that no training picture shows and no caption names."""


HIDDEN_STYLES = (
    "neon", "blueprint", "mosaic", "halftone", "stained glass", "duotone", "embroidery",
)  # fmt: skip
"""Styles that no training picture has and no caption names."""


PARTNERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "beside": (NOUNS, NOUNS),
    "on": (tuple(n for n in NOUNS if n != "castle"), SUPPORTS),
    "in": (CONTENTS, CONTAINERS),
    "full of": (CONTENTS, CONTAINERS),
    "wearing": (CREATURES, ("hat",)),
}
"""What may be the first and the second thing of a relation."""


NEUTRAL = {
    "cat": "white", "dog": "black", "bird": "orange", "fish": "yellow", "rabbit": "white",
    "turtle": "green", "car": "grey", "boat": "white", "bus": "grey", "plane": "grey",
    "mug": "white", "teapot": "black", "vase": "white", "bowl": "white", "basket": "white",
    "chair": "brown", "lamp": "yellow", "tree": "brown", "flower": "yellow",
    "mushroom": "white", "ball": "white", "robot": "grey", "drum": "white", "house": "brown",
    "castle": "red", "hat": "black", "shoe": "white",
}  # fmt: skip
"""Default colour of a noun's detail."""


NAMES_PER_NOUN = 6


BIAS: dict[str, tuple[tuple[str, str], float]] = {
    "doctor": (("light", "short"), 0.9),
    "nurse": (("light", "long"), 0.9),
    "builder": (("medium", "short"), 0.9),
}
"""The world's documented bias: profession, (skin, hair) and the share of its pictures with it.

The rest of their pictures, and every other profession's, are uniform over the other appearances.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One thing or person; every length is a fraction of its usual size."""

    noun: str
    """One of ``NOUNS``, ``PROFESSIONS`` or ``HIDDEN_NOUNS``."""
    colours: tuple[str, str, str]
    """Main body, second part, small detail. Of a person: clothing under the uniform, hair, item."""
    pattern: str = "plain"
    size: Literal["small", "medium", "large"] = "medium"
    x: float = 0.5
    """Centre, fraction of the picture's width."""
    scale: float = 1.0
    aspect: float = 1.0
    """Width over usual width."""
    detail: float = 1.0
    """Size of the second part over its usual size; no caption names it."""
    flipped: bool = False
    badge: str = ""
    """One of ``BADGES`` on the main body, in the detail's colour; empty: none."""
    extras: tuple[str, ...] = ()
    """Some of ``EXTRAS``, in the second part's colour."""
    skin: str = ""
    """One of ``SKINS``, of a person."""
    hair: str = ""
    """One of ``HAIRS``, of a person."""
    name: str = ""
    """A word of its own for this very look, one of ``named``; empty: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Everything that a picture shows."""

    things: tuple[Thing, ...]
    """One; or ``num`` equal ones ("count"); or two: left and right ("beside"), upper and lower
    ("on"), content and container ("in", "full of"), wearer and worn ("wearing")."""
    relation: str = "alone"
    place: str = "plain"
    style: str = "photo"
    light: float = 1.0
    """Brightness; below 0.8 a dark picture, above 1.1 a bright one."""
    seed: int = 0
    """Decides the rest of the background."""

    @property
    def num(self) -> int:
        """How many of the first noun are counted: 1, 2 or 3."""
        return len(self.things) if self.relation == "count" else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """A fixed look that words cannot name, which sampling never draws."""

    noun: str
    colours: tuple[str, str, str]
    pattern: str = "plain"
    badge: str = ""
    extras: tuple[str, ...] = ()
