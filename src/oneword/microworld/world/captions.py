"""Captions of scenes: varied sentences in which every known word is true.

The paper's templates and its kinds of edit prompts are among them. What a caption does not name
(part colours, badges, what creatures wear, skin and hair) is what a new word can stand for. Some
captions end in words that mean nothing in the world, like captions from the web, so that the model
learns to ignore unknown words.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeVar

import numpy as np

from oneword import prompts
from oneword.microworld.world import held_out, inventory, scenes
from oneword.microworld.world.inventory import Scene, Thing


_T = TypeVar("_T")
TEMPLATES = (*prompts.TEMPLATES["release27"], "{}", "a {}", "the {}")
"""Of photos; without full stop, since a prompt may go on with a place."""
PLACES = {
    "plain": (
        "on a plain background", "against a plain background", "in front of a plain background",
    ),
    "beach": ("on the beach", "at the beach", "on a sandy beach"),
    "moon": ("on the moon", "on the surface of the moon"),
    "forest": ("in the forest", "in the woods", "in a forest"),
    "room": ("in a room", "in the room", "in a living room", "indoors"),
    "snow": ("in the snow", "in deep snow", "in a snowy landscape"),
    "city": ("in the city at night", "in a city at night", "in a street at night"),
    "desert": ("in the desert", "in a desert", "on a sand dune"),
    "underwater": ("underwater", "at the bottom of the sea", "under the sea", "under water"),
    "stage": ("on a stage", "on the stage", "on stage", "in a theater"),
    "meadow": ("in a meadow", "in the meadow", "in a grassy meadow", "on the grass"),
}  # fmt: skip
STYLED = {
    "watercolor": (
        "a watercolor painting of a {}", "a watercolor of a {}", "a watercolor of the {}",
        "a {} in watercolor", "a {} painted in watercolor",
    ),
    "poster": (
        "a poster of a {}", "a flat poster of the {}", "a poster showing a {}",
        "a poster design with a {}",
    ),
    "sketch": (
        "a sketch of a {}", "a pencil sketch of a {}", "a sketch of the {}",
        "a pencil drawing of a {}", "a {} drawn in pencil",
    ),
    "pixel art": (
        "pixel art of a {}", "a pixel art {}", "a pixel art picture of a {}", "the {} in pixel art",
    ),
    "oil painting": (
        "an oil painting of a {}", "an oil painting of the {}", "a masterful oil painting of a {}",
        "a {} painted in oil",
    ),
    "cartoon": (
        "a cartoon of a {}", "a cartoon {}", "a cartoon drawing of a {}", "a cartoon of the {}",
    ),
    "chalk": (
        "a chalk drawing of a {}", "a {} drawn in chalk", "a drawing of a {} in chalk",
        "a chalk drawing of the {}",
    ),
}  # fmt: skip
"""Forms of every style; the first is the plainest."""
STYLE_NAMES = {
    "watercolor": ("watercolor", "a watercolor"),
    "poster": ("a poster", "poster"),
    "sketch": ("a sketch", "sketch"),
    "pixel art": ("pixel art",),
    "oil painting": ("an oil painting", "oil painting"),
    "cartoon": ("a cartoon", "cartoon"),
    "chalk": ("chalk", "a chalk drawing"),
}
"""What follows "in the style of"; also without article, where a learned word will stand."""
JOINTS = {
    "beside": ("next to a {}", "beside a {}", "and a {}"),
    "on": ("on top of a {}", "on a {}"),
    "in": ("in a {}", "inside a {}"),
    "full of": ("full of {}", "filled with {}"),
    "wearing": ("wearing a {}", "that wears a {}"),
}
"""What goes between the two things of a relation; the first is the plainest."""
NUMBERS = ("", "", "two", "three")
VISIBLE = {"dark", "bright", "small", "large", "close-up"}
"""Words of templates that a picture bears out or not."""
NAMED = 0.8
"""How often a caption names a property that it can name."""
ASIDES = 0.08
"""How often a caption ends in words that the world does not know."""
_IRREGULAR = {"fish": "fish", "bus": "buses"}


def plural(noun: str) -> str:
    """Form the plural of a noun of the world."""
    return _IRREGULAR.get(noun, f"{noun}s")


def vocabulary() -> Iterator[str]:
    """List texts that hold every word of a caption or of a held-out concept's description."""
    yield from _own_texts()
    for concept in held_out.HELD_OUT:
        for text in (*concept.captions_short, *concept.captions_long):
            # a tokenizer learns whole words from these texts, without the signs beside them
            yield " ".join(re.findall(r"\w+|[^\w\s]", text))


@cache
def strange_words() -> tuple[str, ...]:
    """Words of the held-out concepts' descriptions that nothing in the world goes by."""
    known = {word for text in _own_texts() for word in re.findall(r"\w+", text.lower())}
    described = {word for text in vocabulary() for word in re.findall(r"[a-z]{3,}", text.lower())}
    return tuple(sorted(described - known - {"with", "and"}))


def _own_texts() -> Iterator[str]:
    yield from (*TEMPLATES, *prompts.TEMPLATES["style19"], prompts.PLAIN_PROMPT)
    for phrases in itertools.chain(*(d.values() for d in (PLACES, STYLED, STYLE_NAMES, JOINTS))):
        yield from phrases
    nouns = (*inventory.NOUNS, *inventory.PROFESSIONS)
    yield from (*nouns, *map(plural, nouns), *inventory.COLOURS, *inventory.PATTERNS, *PLACES)
    yield from itertools.chain(*scenes.named().values())
    yield from (*inventory.STYLES, *NUMBERS, *VISIBLE, "a an , . colorful")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write a true caption of a scene, under 30 words."""
    # the paper's templates name a single thing's size: there, or in the noun phrase
    in_form = scene.relation == "alone" and rng.random() < (0.6 if scene.style == "photo" else 0.2)
    subject = _subject(scene, rng, sized=not in_form)
    dice = rng.random()
    where = "" if dice < 0.15 else _choice(PLACES[scene.place], rng)
    first = bool(where) and dice < 0.25
    if where and not first:
        subject = f"{subject} {where}"
    form = _form(scene, rng, sized=in_form)
    text = _filled(form, subject, scene.num)
    text = f"{where}, {text}" if first else text
    if rng.random() < ASIDES and len(text.split()) < 20:
        text += _aside(rng)
    return _articles(text + ("." if rng.random() < 0.1 else ""))


def _aside(rng: np.random.Generator) -> str:
    """One or two descriptions of one or two words each, without meaning."""
    parts = [
        " ".join(_choice(strange_words(), rng) for _ in range(1 + int(rng.integers(2))))
        for _ in range(1 + int(rng.integers(2)))
    ]
    joint = (" with a ", ", ", " and ")
    return "".join(_choice(joint, rng) + part for part in parts)


def _subject(scene: Scene, rng: np.random.Generator, *, sized: bool) -> str:
    """Name the things without the first one's article or number."""
    # whatever carries, holds or wears another is fitted to it, whatever its size
    sized = sized and scene.relation in {"alone", "count", "beside"}
    # a word of its own has no plural
    things = [replace(scene.things[0], name=""), *scene.things[1:]]
    if scene.relation not in {"count", "full of"}:
        things = scene.things
    names = [_name(t, rng, sized=sized) for t in things]
    if scene.relation == "alone":
        return names[0]
    if scene.relation == "count":
        return _plural_phrase(names[0])
    return _related(scene.relation, names[0], names[1], _choice(JOINTS[scene.relation], rng))


def _related(relation: str, first: str, second: str, joint: str) -> str:
    if relation == "full of":
        return f"{second} {joint.format(_plural_phrase(first))}"
    return f"{first} {joint.format(second)}"


def _plural_phrase(name: str) -> str:
    *adjectives, noun = name.split()
    return " ".join((*adjectives, plural(noun)))


def _name(thing: Thing, rng: np.random.Generator, *, sized: bool) -> str:
    words = [thing.noun]
    if thing.name and rng.random() < NAMED:
        words = [thing.name]
    elif thing.noun not in inventory.PROFESSIONS:
        if thing.pattern != "plain" and rng.random() < NAMED:
            words.insert(0, thing.pattern)
        several = thing.colours[1] != thing.colours[0]
        if several and rng.random() < 0.2:
            words.insert(0, "colorful")
        elif rng.random() < NAMED:
            words.insert(0, thing.colours[0])
    if sized and thing.size != "medium" and rng.random() < NAMED:
        words.insert(0, thing.size)
    return " ".join(words)


def _form(scene: Scene, rng: np.random.Generator, *, sized: bool) -> str:
    if scene.style == "photo":
        return _choice(_true_forms(TEMPLATES, scene, rng, sized=sized), rng)
    named = _choice(STYLE_NAMES[scene.style], rng)
    kinds = _true_forms(prompts.TEMPLATES["style19"], scene, rng, sized=sized)
    kind = _choice(kinds, rng)
    dice = rng.random()
    if not VISIBLE & set(kind.split()):
        if dice < 0.6:
            return _choice(STYLED[scene.style], rng)
        if dice < 0.8:
            return f"a {{}} in the style of {named}"
    # the paper's style prompts: with what is shown most of the time
    form = kind.format(named)
    return form if dice > 0.96 else form.replace(" in the style", " of a {} in the style")


def _true_forms(
    forms: Sequence[str], scene: Scene, rng: np.random.Generator, *, sized: bool
) -> list[str]:
    """List the forms that are true: mostly those that name what can be seen, if there are any."""
    true = {"dark"} if scene.light < 0.8 else {"bright"} if scene.light > 1.1 else set()
    if sized:
        true |= {"large": {"large", "close-up"}, "small": {"small"}}.get(
            scene.things[0].size, set()
        )
    excluded = VISIBLE - true
    if scene.num > 1:
        excluded.add("one")
    if scene.things[0].noun in inventory.PROFESSIONS:
        excluded |= {"clean", "dirty", "weird"}
    kept = [f for f in forms if not excluded & set(f.split())]
    marked = [f for f in kept if VISIBLE & set(f.split())]
    return marked if marked and rng.random() < NAMED else kept


def _filled(form: str, subject: str, num: int = 1) -> str:
    """Put a subject into a form, whose article a number replaces or follows."""
    if num > 1:
        number = NUMBERS[num]
        # the article nearest before the subject, with adjectives between
        between = r"((?:(?!of |a |the )\w+ )*)"
        form = re.sub(rf"\ba {between}\{{\}}", rf"{number} \1{{}}", form)
        form = re.sub(rf"\b(the|my) {between}\{{\}}", rf"\1 {number} \2{{}}", form)
        form = f"{number} {{}}" if form == "{}" else form
    return form.format(subject)


def _articles(text: str) -> str:
    """Turn "a" into "an" before a vowel and the other way round."""
    return re.sub(r"\ban? (\w)", lambda m: f"{'an' if m[1] in 'aeiou' else 'a'} {m[1]}", text)


def _choice(options: Sequence[_T], rng: np.random.Generator) -> _T:
    return options[int(rng.integers(len(options)))]


def sentence(
    *,
    noun: str,
    colour: str | None = None,
    pattern: str | None = None,
    place: str | None = None,
    style: str = "photo",
    relation: str = "alone",
    second_noun: str | None = None,
    num: int = 1,
) -> str:
    """Write the plainest prompt, such as "a photo of a red striped mug on the beach".

    Args:
        noun: what is shown; of a relation, the first of its scene's things.
        colour: colour of the noun.
        pattern: pattern of the noun; "plain" is not named.
        place: one of ``PLACES``.
        style: one of ``scenes.STYLES``.
        relation: how the noun stands to ``second_noun``.
        second_noun: the second thing, if there is one.
        num: how many of the noun are counted.
    """
    kind = None if pattern == "plain" else pattern
    subject = " ".join(word for word in (colour, kind, noun) if word)
    if second_noun:
        subject = _related(relation, subject, second_noun, JOINTS[relation][0])
    elif num > 1:
        subject = _plural_phrase(subject)
    form = TEMPLATES[0] if style == "photo" else STYLED[style][0]
    text = _filled(form, subject, num)
    return _articles(f"{text} {PLACES[place][0]}" if place else text)


Kind = Literal["one", "two", "relation", "count"]
SHARES: dict[Kind, float] = {"one": 0.6, "two": 0.15, "relation": 0.17, "count": 0.08}
"""Of the evaluation prompts, by kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A prompt that no training picture answers, and what is true of a picture that does."""

    text: str
    kind: Kind
    truth: dict[str, str]
    """"noun", "scene" and "style"; "colour" except of people; "relation" and "second_noun" where
    there are two things, in the order of ``Scene.things``; "count" where things are counted."""
    scene: Scene
    """Draws a picture that answers the prompt."""


def evaluation_prompts(num: int, seed: int) -> list[Prompt]:
    """Write prompts whose first noun, colour, place and style never occur together in training."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 21)))
    ends = np.round(np.cumsum(list(SHARES.values())) * num).astype(int)
    sizes = np.diff(ends, prepend=0)
    found: list[Prompt] = []
    for kind, size in zip(SHARES, sizes, strict=True):
        used: Counter[str | tuple[str, ...]] = Counter()
        for relation, noun, second_noun in _subjects(kind, int(size), rng):
            look = _unseen_look(noun, used, rng)
            found.append(prompt(kind, relation, noun, second_noun, look, rng))
    return [found[int(i)] for i in rng.permutation(len(found))]


def _subjects(kind: Kind, num: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Deal (relation, noun, second noun) evenly; an empty second noun stands for none."""
    if kind == "one":
        return [
            ("alone", n, "") for n in _dealt((*inventory.NOUNS, *inventory.PROFESSIONS), num, rng)
        ]
    if kind == "count":
        return [("count", noun, "") for noun in _dealt(inventory.NOUNS, num, rng)]
    relations = ("beside",) if kind == "two" else tuple(inventory.PARTNERS)[1:]
    dealt: list[tuple[str, str, str]] = []
    for i, relation in enumerate(relations):
        # the first relations take what does not divide evenly
        share = len(range(i, num, len(relations)))
        first, second = inventory.PARTNERS[relation]
        for noun in _dealt(first, share, rng):
            dealt.append((relation, noun, _choice([n for n in second if n != noun], rng)))
    return dealt


def _dealt(values: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
    """Draw values, each before one repeats."""
    deck: list[str] = []
    while len(deck) < num:
        deck += [values[int(i)] for i in rng.permutation(len(values))]
    return deck[:num]


def _unseen_look(
    noun: str, used: Counter[str | tuple[str, ...]], rng: np.random.Generator
) -> tuple[str, str, str]:
    """Choose an unseen combination's colour, place and style: those that were used least so far."""
    # a prompt names no colour of people
    first = 1 if noun in inventory.PROFESSIONS else 0
    # a value's use counts the more, the more values share the prompts; a prompt's, most of all
    weights = (len(inventory.COLOURS), len(inventory.PLACES), len(inventory.STYLES))
    costs: dict[tuple[str, str, str], int] = {}
    for look in itertools.product(inventory.COLOURS, inventory.PLACES, inventory.STYLES):
        if scenes.is_unseen(noun, *look):
            shares = zip(weights[first:], look[first:], strict=True)
            again = used[(noun, *look[first:])]
            costs[look] = 10_000 * again + sum(weight * used[value] for weight, value in shares)
    least = min(costs.values())
    chosen = _choice([look for look, cost in costs.items() if cost == least], rng)
    used.update((*chosen[first:], (noun, *chosen[first:])))
    return chosen


def prompt(
    kind: Kind,
    relation: str,
    noun: str,
    second_noun: str,
    look: tuple[str, str, str],
    rng: np.random.Generator,
) -> Prompt:
    """Write the plainest prompt of a subject in a look (colour, place, style), with its scene."""
    colour, place, style = look
    num = 2 + int(rng.integers(2)) if kind == "count" else 1
    things = (_plain_thing(noun, colour, rng),) * num
    truth = {"noun": noun, "scene": place, "style": style}
    if noun not in inventory.PROFESSIONS:
        truth["colour"] = colour
    if second_noun:
        things = (*things, _plain_thing(second_noun, _choice(inventory.COLOURS, rng), rng))
        truth |= {"relation": relation, "second_noun": second_noun}
    if kind == "count":
        truth["count"] = NUMBERS[num]
    text = sentence(
        noun=noun,
        colour=truth.get("colour"),
        place=place,
        style=style,
        relation=relation,
        second_noun=second_noun,
        num=num,
    )
    scene = Scene(
        things=things, relation=relation, place=place, style=style, seed=int(rng.integers(2**31))
    )
    return Prompt(text=text, kind=kind, truth=truth, scene=scene)


def _plain_thing(noun: str, colour: str, rng: np.random.Generator) -> Thing:
    """Take what a prompt names and nothing besides."""
    person = noun in inventory.PROFESSIONS
    skin, hair = scenes.sample_appearance(rng, noun) if person else ("", "")
    second = _choice(inventory.HAIR_COLOURS, rng) if person else colour
    colours = (colour, second, inventory.NEUTRAL.get(noun, "grey"))
    return Thing(noun=noun, colours=colours, skin=skin, hair=hair)
