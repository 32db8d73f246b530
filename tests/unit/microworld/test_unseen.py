"""The held-out half: spread, balanced, and in no word of training."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from oneword.microworld.world import (
    artwork,
    captions,
    concepts,
    inventory,
    unseen,
    wide_captions,
    wide_scenes,
)


def test_eighty_things_in_two_equal_halves():
    assert Counter(unseen.counted().values()) == {"development": 40, "test": 40}
    groups = {artwork.things()[slug].group for slug in unseen.counted()}
    assert groups >= {"animals-nature", "food-drink", "travel-places", "activities", "objects"}


def test_the_first_worlds_hidden_shapes_keep_their_halves():
    for name in ("rocket", "cactus", "guitar", "pineapple", "anchor", "octopus", "bicycle"):
        assert unseen.counted()[name] == concepts.half(name)
    assert unseen.counted()["snowman"] == concepts.half("snowman")
    assert unseen.counted()["red-paper-lantern"] == concepts.half("lantern")


def test_training_has_neither_them_nor_their_twins():
    known = set(unseen.known())
    assert known.isdisjoint(unseen.held_out())
    assert len(known) + len(unseen.held_out()) == len(artwork.things())
    for slug in unseen.counted():
        assert known.isdisjoint(unseen.kin(slug))


def test_twins_are_things():
    for group in unseen.TWINS:
        assert set(group) <= set(artwork.things()), group


def test_forbidden_words_name_nothing_that_is_known():
    needed = {w for s in unseen.known() for w in unseen.words(artwork.things()[s].noun)}
    assert not needed & unseen.forbidden_words()
    assert (
        not {*inventory.NOUNS, *inventory.PROFESSIONS, *inventory.COLOURS}
        & unseen.forbidden_words()
    )


def test_no_word_of_training_names_what_is_held_out():
    """Captions, keywords, invented names; every caption form by many draws."""
    forbidden = unseen.forbidden_words()
    assert {"rocket", "rockets", "fox", "snowman", "penguins"} <= forbidden
    said: set[str] = {word for _, word in wide_scenes.names().values()}
    for words in wide_captions.keywords().values():
        said |= {form for word in words for form in (word, wide_captions.plural(word))}
    for slug in unseen.known():
        noun = artwork.things()[slug].noun
        said |= {*noun.split(), *wide_captions.plural(noun).split()}
    for forms in (*wide_captions.LOOKS.values(), *captions.PLACES.values()):
        said |= {word for form in forms for word in form.split()}
    said |= set(wide_captions.strange_words())
    rng = np.random.default_rng(0)
    for seed in range(1500):
        said |= set(re.findall(r"\w+", wide_captions.caption(wide_scenes.sample(seed), rng)))
    assert not said & forbidden


def test_training_draws_known_things_alone():
    for seed in range(400):
        scene = wide_scenes.sample(seed)
        if isinstance(scene, wide_scenes.WideScene):
            assert {thing.slug for thing in scene.things} <= set(unseen.known())
            assert all(thing.look in artwork.LOOKS for thing in scene.things)
