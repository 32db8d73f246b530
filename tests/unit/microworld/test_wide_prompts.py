"""Pictures of single things, and the prompts that measure a model of the second world."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from oneword.microworld.world import artwork, unseen, wide_captions, wide_concepts, wide_scenes
from oneword.microworld.world.inventory import PLACES
from oneword.microworld.world.wide_prompts import SHARES, evaluation_prompts


ROCKET = artwork.find("rocket")
PROMPTS = evaluation_prompts(500, 0)


def test_a_things_pictures_are_in_every_place_before_one_repeats():
    found = wide_concepts.concept_scenes(ROCKET, 10, seed=1)
    assert {scene.place for scene in found} == set(PLACES) - {"plain"}
    assert found == wide_concepts.concept_scenes(ROCKET, 10, seed=1)
    assert found != wide_concepts.concept_scenes(ROCKET, 10, seed=2)
    plain = wide_concepts.concept_scenes(ROCKET, 3, plain=True)
    assert {scene.place for scene in plain} == {"plain"}


def test_a_things_pictures_have_masks():
    pytest.importorskip("skia")
    drawn = wide_concepts.concept_pictures(ROCKET, 2, size=64, look=artwork.FIRST_EDITION)
    assert drawn.shape == (2, 64, 64, 3)
    masks = wide_concepts.concept_masks(ROCKET, 2, size=64, look=artwork.FIRST_EDITION)
    for mask in masks:
        assert mask.shape == (64, 64)
        assert 0.03 < mask.mean() < 0.6


def test_a_look_that_lacks_the_thing_is_refused():
    lacking = next(s for s in artwork.things() if s not in artwork.artworks(artwork.FIRST_EDITION))
    thing = artwork.things()[lacking]
    with pytest.raises(artwork.ArtworkError, match=r"nobody drew .*; take one of flat sticker"):
        wide_concepts.concept_scenes(thing, 1, look=artwork.FIRST_EDITION)


def test_prompts_are_of_all_kinds_and_of_known_things():
    assert len(PROMPTS) == 500
    kinds = Counter(prompt.kind for prompt in PROMPTS)
    assert kinds == {kind: round(500 * share) for kind, share in SHARES.items()}
    firsts = [prompt.scene.things[0].slug for prompt in PROMPTS]
    assert set(firsts) <= set(unseen.known())
    assert len(set(firsts)) > 300
    assert evaluation_prompts(40, 3) == evaluation_prompts(40, 3)


def test_prompts_in_places_are_new():
    for prompt in PROMPTS:
        assert (prompt.kind == "plain") != wide_scenes.is_unseen(prompt.scene)


def test_prompts_say_what_is_true():
    known = {w for text in wide_captions.vocabulary() for w in re.findall(r"\w+|[^\w\s]", text)}
    for prompt in PROMPTS:
        assert set(re.findall(r"\w+|[^\w\s]", prompt.text)) <= known
        noun = prompt.truth["noun"]
        assert noun in prompt.text or wide_captions.plural(noun) in prompt.text
        if "second_noun" in prompt.truth:
            assert prompt.truth["second_noun"] in prompt.text
        if "colour" in prompt.truth:
            assert f"{prompt.truth['colour']} {noun.split()[0][:3]}" in prompt.text
        if prompt.truth["style"] == "photo":
            assert prompt.truth["look"].split()[-1] in prompt.text
        else:
            assert "look" not in prompt.truth
    assert np.mean(["colour" in prompt.truth for prompt in PROMPTS]) > 0.1
