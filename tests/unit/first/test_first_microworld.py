"""The drawn world: pure functions of seeds, true captions, and concepts that no caption names."""

from __future__ import annotations

import numpy as np
import pytest

from oneword.config import UserError
from oneword.microworld.first import captions, concepts, models, scenes


def test_a_picture_is_a_function_of_its_seed():
    first, drawn = scenes.render_batch([5, 6], size=64)
    again, _ = scenes.render_batch([6, 5], size=64)
    assert first.shape == (2, 64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again[::-1])
    assert not np.array_equal(first[0], first[1])
    assert drawn[0] == scenes.sample_scene(5)


def test_pictures_are_anti_aliased_and_scale():
    scene = scenes.sample_scene(11, styles=("photo",))
    small, large = scenes.render(scene, 64), scenes.render(scene, 128)
    assert large.shape == (128, 128, 3)
    shrunk = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 12


def test_the_world_is_as_large_as_it_says():
    drawn = [scenes.sample_scene(i) for i in range(4000)]
    things = [t for s in drawn for t in s.things]
    assert {t.noun for t in things} == set(scenes.NOUNS)
    assert {t.colours[0] for t in things} == set(scenes.COLOURS)
    assert {t.pattern for t in things} == set(scenes.PATTERNS)
    assert {s.place for s in drawn} == set(scenes.SCENES)
    assert {s.style for s in drawn} == set(scenes.STYLES)
    assert len(scenes.NOUNS) >= 12
    assert 0.15 < np.mean([len(s.things) == 2 for s in drawn]) < 0.3
    unnamed = np.mean([t.colours[1] != t.colours[0] for t in things])
    assert unnamed > 0.3


def test_held_out_things_are_never_drawn_in_training():
    hidden = {c.thing.noun for c in concepts.HELD_OUT if c.kind == "shape"}
    combinations = {(t.noun, t.colours, t.pattern)
                    for c in concepts.HELD_OUT if (t := c.thing)}  # fmt: skip
    for seed in range(4000):
        for thing in scenes.sample_scene(seed).things:
            assert thing.noun not in hidden
            assert (thing.noun, thing.colours, thing.pattern) not in combinations
    assert len(hidden) >= 2
    assert not hidden & set(" ".join(captions.vocabulary()).split())


def test_captions_name_what_is_there_and_no_part_colour():
    rng = np.random.default_rng(0)
    for seed in range(600):
        scene = scenes.sample_scene(seed)
        text = captions.caption(scene, rng)
        words = text.replace(",", "").split()
        assert len(words) < 30
        assert all(thing.noun in words for thing in scene.things)
        named = {word for word in words if word in scenes.COLOURS}
        assert named <= {thing.colours[0] for thing in scene.things}
        places = {phrase for phrases in captions.PLACES.values() for phrase in phrases}
        others = places - set(captions.PLACES[scene.place])
        assert not any(phrase in text for phrase in others)


def test_articles():
    text = captions.sentence(noun="robot", colour="orange", place="moon", style="oil painting")
    assert text == "an oil painting of an orange robot on the moon"


def test_evaluation_prompts_are_balanced_and_true():
    pairs = captions.evaluation_prompts(140, seed=3)
    nouns = [truth["noun"] for _, truth in pairs]
    assert {nouns.count(noun) for noun in scenes.NOUNS} == {10}
    assert all(truth["noun"] in prompt and truth["colour"] in prompt for prompt, truth in pairs)
    assert pairs == captions.evaluation_prompts(140, seed=3)


def test_every_word_of_a_caption_is_one_token():
    tokens = models.tokenizer()
    for word in ("mug", "striped", "watercolor", "teapot", "moon"):
        assert len(tokens(word, add_special_tokens=False).input_ids) == 1
    rng = np.random.default_rng(1)
    for seed in range(50):
        text = captions.caption(scenes.sample_scene(seed), rng)
        count = len(tokens(text, add_special_tokens=False).input_ids)
        pieces = text.replace(",", " ,").replace("-", " - ").split()
        assert count == len(pieces)


def test_held_out_concepts():
    kinds = [c.kind for c in concepts.HELD_OUT]
    assert kinds.count("shape") >= 2
    gold = concepts.get("gold-mug")
    pictures = concepts.concept_pictures(gold, num=4)
    assert pictures.shape == (4, 64, 64, 3)
    assert np.array_equal(pictures, concepts.concept_pictures(gold, num=4))
    assert not np.array_equal(pictures, concepts.concept_pictures(gold, num=4, seed=1))
    plain = concepts.concept_plain(gold, num=3)
    assert (
        np.abs(plain[0].astype(int) - plain[1]).mean()
        < np.abs(pictures[0].astype(int) - pictures[1]).mean()
    )
    style = concepts.get("neon")
    assert concepts.concept_pictures(style, num=2).shape == (2, 64, 64, 3)
    with pytest.raises(UserError, match="must be one of gold-mug"):
        concepts.get("gold")
