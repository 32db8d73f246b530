"""Held-out concepts: what training never shows, how they are described, drawn and halved."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from oneword.errors import UserError
from oneword.microworld.world import captions, concepts, held_out, inventory, scenes
from oneword.microworld.world.drawn import concept_masks, concept_pictures, concept_plain


FAMILIES = ("recombination", "shape", "style", "character")
NUM_SEEDS = 4000


@pytest.fixture(scope="module")
def training() -> list[inventory.Scene]:
    return [scenes.sample_scene(seed) for seed in range(NUM_SEEDS)]


def _look(thing: inventory.Thing) -> inventory.Combination:
    return inventory.Combination(
        noun=thing.noun,
        colours=thing.colours,
        pattern=thing.pattern,
        badge=thing.badge,
        extras=thing.extras,
    )


def _of(family: str) -> list[held_out.HeldOut]:
    return [c for c in held_out.HELD_OUT if c.family == family]


def test_the_world_is_as_large_as_it_says(training: list[inventory.Scene]):
    things = [thing for scene in training for thing in scene.things]
    assert {t.noun for t in things} == {*inventory.NOUNS, *inventory.PROFESSIONS}
    assert {t.colours[0] for t in things} == set(inventory.COLOURS)
    assert {t.pattern for t in things} == set(inventory.PATTERNS)
    assert {s.place for s in training} == set(inventory.PLACES)
    assert {s.style for s in training} == set(inventory.STYLES)
    assert {s.relation for s in training} == set(inventory.RELATIONS)
    assert len(inventory.NOUNS) >= 24
    assert len(inventory.COLOURS) >= 12
    # "plain" is one that no caption names
    assert len(inventory.PATTERNS) - 1 >= 5
    assert len(inventory.PLACES) >= 10
    assert len(inventory.STYLES) >= 8
    assert np.mean([t.colours[1] != t.colours[0] for t in things]) > 0.3


def test_training_shows_nothing_that_is_held_out(training: list[inventory.Scene]):
    for scene in training:
        assert scene.style not in inventory.HIDDEN_STYLES
        for thing in scene.things:
            assert thing.noun not in inventory.HIDDEN_NOUNS
            assert _look(thing) not in held_out.RESERVED
            assert not scenes.is_unseen(thing.noun, thing.colours[0], scene.place, scene.style), (
                scene
            )


def test_a_reserved_look_is_drawn_again(monkeypatch: pytest.MonkeyPatch):
    drawn = scenes.sample_thing(np.random.default_rng(4), "cat")
    assert not drawn.name
    monkeypatch.setattr(scenes, "RESERVED", frozenset({_look(drawn)}))
    assert _look(scenes.sample_thing(np.random.default_rng(4), "cat")) != _look(drawn)


def test_the_documented_bias_holds(training: list[inventory.Scene]):
    people = [t for s in training for t in s.things if t.noun in inventory.PROFESSIONS]
    for profession in inventory.PROFESSIONS:
        seen = Counter((t.skin, t.hair) for t in people if t.noun == profession)
        num = seen.total()
        usual, share = inventory.BIAS.get(profession, (("light", "short"), 1 / 6))
        # five standard deviations of a binomial count
        bound = 5 * (num * share * (1 - share)) ** 0.5
        assert num > 80
        assert abs(seen[usual] - share * num) < bound, profession
        assert set(seen) <= {(s, h) for s in inventory.SKINS for h in inventory.HAIRS}


def test_forty_concepts_in_four_families():
    counts = Counter(c.family for c in held_out.HELD_OUT)
    assert set(counts) == set(FAMILIES)
    assert counts.total() >= 40
    assert counts["recombination"] >= 16
    assert counts["character"] >= 8
    assert {c.thing.noun for c in _of("shape") if c.thing} == set(inventory.HIDDEN_NOUNS)
    assert {c.style for c in _of("style")} == set(inventory.HIDDEN_STYLES)
    assert counts["style"] >= 6
    names = [c.name for c in held_out.HELD_OUT]
    assert len(names) == len(set(names))
    assert len(held_out.RESERVED) == counts["recombination"] + counts["character"]


def test_concepts_are_made_of_what_the_world_has():
    for concept in held_out.HELD_OUT:
        assert concept.noun in {*inventory.NOUNS, *inventory.STYLES}
        thing = concept.thing
        if thing is None:
            assert concept.family == "style"
            continue
        assert concept.style == "photo"
        assert len(set(thing.colours)) == 3
        assert set(thing.colours) <= set(inventory.COLOURS)
        assert thing.pattern in inventory.PATTERNS
        assert thing.badge in {"", *inventory.BADGES}
        assert list(thing.extras) == sorted(thing.extras)
        assert set(thing.extras) <= set(inventory.EXTRAS)
        if concept.family == "character":
            assert thing.noun in inventory.CREATURES
            assert thing.badge
            assert 1 <= len(thing.extras) <= 2


@pytest.mark.parametrize("concept", held_out.HELD_OUT, ids=lambda c: c.name)
def test_descriptions_are_short_enough_and_name_no_hidden_word(concept: held_out.HeldOut):
    short, long = concept.captions_short, concept.captions_long
    assert len(set(short)) == len(set(long)) == 5
    assert all(len(text.split()) <= 12 for text in short)
    assert all(12 < len(text.split()) <= 30 for text in long)
    words = set(re.findall(r"\w+", " ".join((*short, *long))))
    assert not words & {*inventory.HIDDEN_NOUNS, *inventory.HIDDEN_STYLES}
    if concept.family != "style":
        assert all(text.startswith(("a ", "an ")) for text in (*short, *long))
        assert concept.thing is not None
        assert all(colour in words for colour in concept.thing.colours)


def test_an_unknown_concept_is_refused():
    assert concepts.get("gold-mug").noun == "mug"
    with pytest.raises(UserError, match=r"must be one of gold-mug, parrot.*got 'gold'"):
        concepts.get("gold")


def test_halves_are_balanced_within_families():
    for family in FAMILIES:
        halves = Counter(concepts.half(c) for c in _of(family))
        assert set(halves) == {"development", "test"}
        assert 0 <= halves["development"] - halves["test"] <= 1
    assert {concepts.half(name) for name in held_out.DEMO} == {"development"}
    assert concepts.half("gold-mug") == concepts.half(concepts.get("gold-mug"))


def test_pictures_show_the_concept_in_every_place_before_one_repeats():
    gold = concepts.get("gold-mug")
    found = concepts.concept_scenes(gold, 25)
    places = Counter(scene.place for scene in found)
    assert set(places) == set(inventory.PLACES) - {"plain"}
    assert max(places.values()) - min(places.values()) <= 1
    assert len({scene.place for scene in found[:10]}) == 10
    assert {_look(scene.things[0]) for scene in found} == {_look(gold.thing)}
    assert {s.place for s in concepts.concept_scenes(gold, 8, plain=True)} == {"plain"}
    assert found == concepts.concept_scenes(gold, 25)
    assert found != concepts.concept_scenes(gold, 25, seed=1)
    # fewer pictures are the first of more
    assert found[:5] == concepts.concept_scenes(gold, 5)


def test_a_style_shows_known_things():
    found = concepts.concept_scenes(concepts.get("stained-glass"), 10)
    assert {scene.style for scene in found} == {"stained glass"}
    nouns = {scene.things[0].noun for scene in found}
    assert nouns <= set(inventory.NOUNS)
    assert len(nouns) > 4


@pytest.mark.parametrize("name", ["gold-mug", "snowman", "neon", "captain-whiskers"])
def test_concepts_are_drawn(name: str):
    pytest.importorskip("skia")
    concept = concepts.get(name)
    pictures = concept_pictures(concept, num=3, size=64)
    plain = concept_plain(concept, num=2, size=64)
    masks = concept_masks(concept, num=3, size=64)
    assert pictures.shape == (3, 64, 64, 3)
    assert plain.shape == (2, 64, 64, 3)
    assert pictures.dtype == plain.dtype == np.uint8
    assert len(masks) == 3
    for parts in masks:
        assert all(mask.shape == (64, 64) and mask.dtype == bool for mask in parts.values())
    assert np.array_equal(pictures, concept_pictures(concept, num=3, size=64))


def test_descriptions_are_in_the_vocabulary():
    words = {word for text in captions.vocabulary() for word in text.split()}
    for concept in held_out.HELD_OUT:
        texts = " ".join((*concept.captions_short, *concept.captions_long))
        assert set(re.findall(r"\w+", texts)) <= words
