"""What a scene's picture is called: varied sentences, every word of which is true.

The paper's 27 templates and its kinds of edit prompts are among them. The templates are written
without their full stop, since a prompt may go on with a place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from oneword.microworld.first.scenes import (
    COLOURS,
    NOUNS,
    PATTERNS,
    SCENES,
    STYLES,
    Scene,
    Thing,
)


TEMPLATES = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}",
    "a photo of a clean {}", "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}",
    "a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}",
    "a cropped photo of a {}", "a photo of the {}", "a good photo of the {}", "a photo of one {}",
    "a close-up photo of the {}", "a rendition of the {}", "a photo of the clean {}",
    "a rendition of a {}", "a photo of a nice {}", "a good photo of a {}", "a photo of the nice {}",
    "a photo of the small {}", "a photo of the weird {}", "a photo of the large {}",
    "a photo of a cool {}", "a photo of a small {}", "{}", "a {}", "the {}",
)  # fmt: skip
PLACES = {
    "plain": ("on a plain background",),
    "beach": ("on the beach", "at the beach"),
    "moon": ("on the moon",),
    "forest": ("in the forest", "in the woods"),
    "room": ("in a room", "in the room"),
    "snow": ("in the snow",),
    "city": ("in the city at night", "in a city at night"),
}
STYLED = {
    "watercolor": (
        "a watercolor painting of a {}", "a watercolor of a {}", "a {} in watercolor",
        "a painting of a {} in the style of watercolor",
    ),
    "poster": ("a poster of a {}", "a flat poster of the {}", "a {} in the style of a poster"),
    "sketch": (
        "a sketch of a {}", "a pencil sketch of a {}", "a drawing of a {}", "a sketch of the {}",
        "a {} in the style of a sketch",
    ),
    "pixel art": ("pixel art of a {}", "a pixel art {}", "a {} in the style of pixel art"),
    "oil painting": (
        "an oil painting of a {}", "an oil painting of the {}", "a masterful oil painting of a {}",
        "a {} in the style of an oil painting",
    ),
}  # fmt: skip
_JOINTS = ("next to", "and", "beside")


def vocabulary() -> Iterator[str]:
    """Sentences that hold every word a caption can have."""
    yield from TEMPLATES
    yield from itertools.chain(*PLACES.values(), *STYLED.values(), _JOINTS)
    yield from (*NOUNS, *COLOURS, *PATTERNS, *SCENES, *STYLES)
    yield "a an the colorful dark bright photo painting in the style of holding with"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A true caption of a scene, under 30 words; part colours are never named."""
    names = [_name(thing, rng) for thing in scene.things]
    subject = names[0]
    if len(names) == 2:
        joint = _JOINTS[int(rng.integers(len(_JOINTS)))]
        subject = f"{names[0]} {joint} {_with_article(names[1])}"
    text = _choice(_true_templates(scene), rng).format(subject)
    if rng.random() < 0.85:
        text = f"{text} {_choice(PLACES[scene.place], rng)}"
    if scene.style != "photo" and not any(word in text for word in scene.style.split()):
        text = f"{text}, {scene.style}"
    return _articles(text)


def _true_templates(scene: Scene) -> list[str]:
    if scene.style != "photo":
        return [*STYLED[scene.style], "{}", "a {}"]
    scale = scene.things[0].scale
    single = len(scene.things) == 1
    excluded = set()
    if scene.light >= 0.8:
        excluded.add("dark")
    if scene.light <= 1.1:
        excluded.add("bright")
    if not single or scale > 0.85:
        excluded.add("small")
    if not single or scale < 1.1:
        excluded |= {"large", "close-up"}
    kept = [t for t in TEMPLATES if not excluded & set(t.split())]
    # a visible property is usually named where there is one
    marked = [t for t in kept if {"dark", "bright", "small", "large", "close-up"} & set(t.split())]
    return kept + marked * 8


def _name(thing: Thing, rng: np.random.Generator) -> str:
    main, second, _ = thing.colours
    words = [thing.noun]
    if thing.pattern != "plain" and rng.random() < 0.75:
        words.insert(0, thing.pattern)
    if second == main or rng.random() < 0.5:
        if rng.random() < 0.85:
            words.insert(0, main)
    elif rng.random() < 0.4:
        words.insert(0, "colorful")
    return " ".join(words)


def _choice(options: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _with_article(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def _articles(text: str) -> str:
    words = text.split()
    for i, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            words[i] = "an" if words[i + 1][0] in "aeiou" else "a"
    return " ".join(words)


def sentence(
    *,
    noun: str,
    colour: str | None = None,
    pattern: str | None = None,
    place: str | None = None,
    style: str = "photo",
) -> str:
    """The plainest prompt for something, such as "a photo of a red striped mug on the beach"."""
    kind = None if pattern == "plain" else pattern
    name = " ".join(word for word in (colour, kind, noun) if word)
    template = "a photo of a {}" if style == "photo" else STYLED[style][0]
    text = template.format(name)
    return _articles(f"{text} {PLACES[place][0]}" if place else text)


def evaluation_prompts(num: int, seed: int) -> list[tuple[str, dict[str, str]]]:
    """Prompts of one thing with their truth, uniform over nouns, colours, scenes and styles.

    Returns:
        (prompt, {"noun", "colour", "scene", "style"}) pairs.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 21)))
    columns = {
        "noun": _balanced(NOUNS, num, rng),
        "colour": _balanced(COLOURS, num, rng),
        "scene": _balanced(SCENES, num, rng),
        "style": _balanced(STYLES, num, rng),
    }
    found = []
    for i in range(num):
        truth = {name: column[i] for name, column in columns.items()}
        prompt = sentence(
            noun=truth["noun"],
            colour=truth["colour"],
            place=truth["scene"],
            style=truth["style"],
        )
        found.append((prompt, truth))
    return found


def _balanced(values: tuple[str, ...], num: int, rng: np.random.Generator) -> list[str]:
    deck = [values[i % len(values)] for i in range(num)]
    return [deck[int(i)] for i in rng.permutation(num)]
