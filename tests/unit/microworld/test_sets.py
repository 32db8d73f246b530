"""Sets for an encoder: one look in many places, and never anything that is held out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from oneword.microworld.world import artwork, concepts, scenes, sets, unseen, wide_scenes
from oneword.microworld.world.held_out import HELD_OUT, RESERVED
from oneword.microworld.world.inventory import HIDDEN_NOUNS, HIDDEN_STYLES, STYLES
from oneword.microworld.world.wide_scenes import Figure, WideScene


WORLDS = (sets.FIRST_WORLD, wide_scenes.VERSION)


def looks(own):
    return {sets._look_of(t) for scene in own.scenes for t in scene.things}


@pytest.mark.parametrize("world", WORLDS)
def test_nothing_held_out_is_ever_drawn(world):
    shown = [sets.sample_set(seed, 4, world) for seed in range(400)]
    for own in shown:
        for scene in own.scenes:
            assert scene.style not in HIDDEN_STYLES
            for thing in scene.things:
                if isinstance(thing, Figure):
                    assert thing.slug not in unseen.held_out()
                    assert thing.look != artwork.FIRST_EDITION
                else:
                    assert thing.noun not in HIDDEN_NOUNS
                    assert sets._look_of(thing) not in RESERVED
    assert any(isinstance(own.scenes[0], WideScene) for own in shown) == (world > 1)


@pytest.mark.parametrize("concept", HELD_OUT, ids=lambda concept: concept.name)
def test_a_held_out_concept_is_caught(concept):
    scene = concepts.concept_scene(concept, "beach", np.random.default_rng(0))
    with pytest.raises(AssertionError, match="held out"):
        sets.check_known([scene])


def test_a_held_out_drawing_and_artist_are_caught():
    slug = next(iter(unseen.counted()))
    with pytest.raises(AssertionError, match=f"{slug} is held out"):
        sets.check_known([WideScene(things=(Figure(slug=slug),))])
    known = Figure(slug=unseen.known()[0], look=artwork.FIRST_EDITION)
    with pytest.raises(AssertionError, match="the look classic first edition is held out"):
        sets.check_known([WideScene(things=(known,))])


def test_a_generator_that_slips_is_stopped(monkeypatch):
    slipped = concepts.concept_scene(concepts.get("gold-mug"), "moon", np.random.default_rng(0))
    found = sets.ThingSet("object", (slipped,))
    monkeypatch.setattr(sets, "_look", lambda *_, **__: found)
    monkeypatch.setattr(sets, "_style", lambda *_, **__: found)
    with pytest.raises(AssertionError, match="a look of mug is held out"):
        sets.sample_set(0, 1)


@pytest.mark.parametrize("world", WORLDS)
def test_a_set_is_one_thing_in_many_pictures_or_one_style_of_many_things(world):
    kinds = {"object": 0, "style": 0}
    for seed in range(200):
        own = sets.sample_set(seed, 5, world)
        kinds[own.kind] += 1
        assert len(own.scenes) == 5
        assert len({scene.seed for scene in own.scenes}) == 5
        if own.kind == "style":
            (style,) = {scene.style for scene in own.scenes}
            assert style in STYLES[1:]
        elif isinstance(own.scenes[0], WideScene):
            fixed = [dataclasses.replace(s.things[0], x=0, scale=1, flipped=False)
                     for s in own.scenes]  # fmt: skip
            assert len({*fixed}) == 1
        else:
            assert len(looks(own)) == 1
            assert {scene.style for scene in own.scenes} == {"photo"}
        assert own == sets.sample_set(seed, 5, world)
    assert 5 <= kinds["style"] <= 40


def test_named_looks_and_recombinations_are_both_there():
    named = {look for some in scenes.named().values() for look in some.values()}
    found = [looks(own) for own in (sets.sample_set(s, 2) for s in range(200))
             if own.kind == "object"]  # fmt: skip
    share = sum(bool(own & named) for own in found) / len(found)
    assert 0.2 < share < 0.5
