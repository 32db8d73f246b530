"""Captions of the second world: varied sentences in which every known word is true.

As in the first world's ``captions``, with more ways to name a thing: by its noun, by a keyword, or
by the invented name of one drawing. No training sentence contains a word of a held-out thing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from oneword.microworld.world import artwork, captions, unseen, wide_scenes
from oneword.microworld.world.captions import JOINTS, NAMED, PLACES, STYLED, VISIBLE
from oneword.microworld.world.inventory import Scene
from oneword.microworld.world.wide_scenes import Figure, WideScene


LOOKS: dict[str, tuple[str, ...]] = {
    "flat sticker": (
        "a flat sticker of a {}", "a sticker of a {}", "a flat {} sticker", "a {} sticker",
    ),
    "line icon": (
        "a line icon of a {}", "an icon of a {}", "a {} icon", "a simple line icon of a {}",
    ),
    "classic emoji": (
        "a classic emoji of a {}", "an emoji of a {}", "a classic {} emoji", "a {} emoji",
    ),
    "glossy sticker": (
        "a glossy sticker of a {}", "a shiny sticker of a {}", "a glossy {} sticker",
        "a glossy picture of a {}",
    ),
}  # fmt: skip
"""Forms that name a look; the first is the plainest."""
LOOK_NAMED = 0.55
"""How often a caption names the look that a thing is in."""
BY_KEYWORD = 0.25
"""How often a keyword stands in place of the noun."""
_MOST_THINGS = 3
"""Things that a keyword may stand for; "animal" would say too little."""
_ODD = {"nothing", "lmao", "yolo", "smh", "fml", "set", "rule"}
"""Keywords that would name a thing to nobody."""
_IRREGULAR = {
    "mouse": "mice", "goose": "geese", "tooth": "teeth", "foot": "feet", "wolf": "wolves",
    "leaf": "leaves", "knife": "knives", "man": "men", "woman": "women", "person": "people",
    "ox": "oxen", "fish": "fish", "sheep": "sheep", "bus": "buses", "dice": "dice",
    "half": "halves", "child": "children", "loaf": "loaves", "calf": "calves", "shelf": "shelves",
}  # fmt: skip


def plural(noun: str) -> str:
    """Form the plural of a thing's noun; of "ear of corn" its first word changes."""
    first, joint, rest = re.fullmatch(r"(.*?)( of | with | in | on |$)(.*)", noun).groups()  # pyright: ignore[reportOptionalMemberAccess]
    *adjectives, last = first.split()
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("ss", "sh", "ch", "x", "z")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = f"{last[:-1]}ies"
    elif not last.endswith("s"):
        last += "s"
    return f"{' '.join((*adjectives, last))}{joint}{rest}"


@cache
def keywords() -> dict[str, tuple[str, ...]]:
    """Words by which captions may call a known thing, by slug.

    Left out are words that stand for many things, that mean something else in captions, or that a
    noun or the held-out half has.
    """
    things = artwork.things()
    known = unseen.known()
    counts = Counter(word for slug in known for word in things[slug].keywords)
    nouns = {word for thing in things.values() for word in thing.noun.split()}
    barred = nouns | unseen.forbidden_words() | unseen.said_anyway() | _ODD
    barred |= {word for forms in LOOKS.values() for form in forms for word in form.split()}
    held = {word for slug in unseen.held_out() for word in things[slug].keywords}
    return {
        slug: tuple(
            word
            for word in things[slug].keywords
            if re.fullmatch(r"[a-z]{3,}", word)
            and counts[word] <= _MOST_THINGS
            and word not in barred | held
        )
        for slug in known
    }


@cache
def strange_words() -> tuple[str, ...]:
    """Words of the first world's asides that nothing goes by in this one either."""
    known = set(unseen.forbidden_words())
    for thing in artwork.things().values():
        known |= {*thing.noun.split(), *plural(thing.noun).split()}
    for some in keywords().values():
        known |= {*some, *map(plural, some)}
    return tuple(word for word in captions.strange_words() if word not in known)


def vocabulary() -> Iterator[str]:
    """List texts that hold every word of a caption of either world, or of a held-out description.

    The words of the held-out things are among them, since people will write them; no caption does.
    """
    yield from captions.vocabulary()
    for forms in LOOKS.values():
        yield from forms
    for thing in artwork.things().values():
        yield from (thing.noun, plural(thing.noun))
    for words in keywords().values():
        yield from (*words, *map(plural, words))
    yield from (word for _, word in wide_scenes.names().values())


def caption(scene: Scene | WideScene, rng: np.random.Generator) -> str:
    """Write a true caption of a scene of either world, under 30 words."""
    if isinstance(scene, WideScene):
        return _caption(scene, rng)
    known = set(captions.strange_words()) - set(strange_words())
    while True:
        # what means nothing in the first world may be a thing of this one
        text = captions.caption(scene, rng)
        if not known & set(re.findall(r"\w+", text)):
            return text


def _caption(scene: WideScene, rng: np.random.Generator) -> str:
    looks = {thing.look for thing in scene.things}
    look = looks.pop() if len(looks) == 1 and scene.style == "photo" else ""
    in_form = scene.relation == "alone" and not look and rng.random() < 0.4
    subject = _subject(scene, rng, sized=not in_form)
    dice = rng.random()
    where = "" if dice < 0.15 else _choice(PLACES[scene.place], rng)
    first = bool(where) and dice < 0.25
    if look and rng.random() < LOOK_NAMED:
        form = _choice(LOOKS[look], rng)
    else:
        form = _form(scene, rng, sized=in_form)
    if scene.num > 1 and not form.endswith("{}"):
        form = "a {}"  # "two foxes sticker" is no English
    text = captions._filled(form, subject, scene.num)
    text = f"{where}, {text}" if first else f"{text} {where}" if where else text
    if rng.random() < captions.ASIDES and len(text.split()) < 18:
        text += _choice((" with a ", ", ", " and "), rng) + _choice(strange_words(), rng)
    return captions._articles(text + ("." if rng.random() < 0.1 else ""))


def _subject(scene: WideScene, rng: np.random.Generator, *, sized: bool) -> str:
    names = [_name(thing, rng, scene, sized=sized) for thing in scene.things]
    if scene.relation in ("beside", "on"):
        return f"{names[0]} {_choice(JOINTS[scene.relation], rng).format(names[1])}"
    return plural(names[0]) if scene.relation == "count" else names[0]


def _name(thing: Figure, rng: np.random.Generator, scene: WideScene, *, sized: bool) -> str:
    if thing.name and rng.random() < NAMED:
        return thing.name
    word, others = thing.noun, keywords().get(thing.slug, ())
    if others and rng.random() < BY_KEYWORD:
        word = _choice(others, rng)
    parts = [word]
    if thing.colour and rng.random() < NAMED:
        parts.insert(0, thing.colour)
    if sized and scene.relation == "alone" and thing.size != "medium" and rng.random() < NAMED:
        parts.insert(0, thing.size)
    return " ".join(parts)


def _form(scene: WideScene, rng: np.random.Generator, *, sized: bool) -> str:
    if scene.style != "photo":
        named = _choice(captions.STYLE_NAMES[scene.style], rng)
        if rng.random() < 0.25:
            return f"a {{}} in the style of {named}"
        return _choice(STYLED[scene.style], rng)
    true = {"dark"} if scene.light < 0.8 else {"bright"} if scene.light > 1.1 else set()
    size = scene.things[0].size
    if sized and size != "medium":
        true |= {"large", "close-up"} if size == "large" else {"small"}
    excluded = VISIBLE - true
    if scene.num > 1:
        excluded.add("one")
    kept = [form for form in captions.TEMPLATES if not excluded & set(form.split())]
    marked = [form for form in kept if VISIBLE & set(form.split())]
    return _choice(marked if marked and rng.random() < NAMED else kept, rng)


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def sentence(
    noun: str,
    *,
    look: str | None = None,
    colour: str | None = None,
    place: str | None = None,
    style: str = "photo",
    relation: str = "alone",
    second_noun: str | None = None,
    num: int = 1,
) -> str:
    """Write the plainest prompt, such as "a flat sticker of a red fox on the beach".

    Args:
        noun: what is shown; of two things the left or upper one.
        look: one of ``artwork.LOOKS``; None: not named.
        colour: one of ``wide_scenes.COLOURS``.
        place: one of ``inventory.PLACES``.
        style: one of ``inventory.STYLES``; it goes before a look.
        relation: one of ``wide_scenes.RELATIONS``.
        second_noun: the second thing, if there is one.
        num: how many are counted.
    """
    subject = f"{colour} {noun}" if colour else noun
    if second_noun:
        subject = f"{subject} {JOINTS[relation][0].format(second_noun)}"
    elif num > 1:
        subject = plural(subject)
    form = captions.TEMPLATES[0]
    if style != "photo":
        form = STYLED[style][0]
    elif look:
        form = LOOKS[look][0]
    text = captions._filled(form, subject, num)
    return captions._articles(f"{text} {PLACES[place][0]}" if place else text)
