"""What counts as an obeyed prompt, on readings written by hand."""

from __future__ import annotations

import pytest

from oneword.evaluation import world
from oneword.microworld.making.oracle import HEADS, truth
from oneword.microworld.world import concepts, inventory, learnable, scenes
from oneword.microworld.world.captions import Prompt
from oneword.prompts import COMMON_WORDS, EDIT_PROMPTS


SCENE = scenes.sample_scene(0)


def prompt(kind, **asked):
    return Prompt(text="", kind=kind, truth=asked, scene=SCENE)


def reading(**values):
    return {name: values.get(name, options[0]) for name, options in HEADS.items()}


def test_both_nouns_must_be_right_and_a_lone_noun_is_scored_apart():
    prompts = [
        prompt("one", noun="mug", colour="red", scene="moon", style="photo"),
        prompt("one", noun="cat", scene="moon", style="chalk"),
        prompt("two", noun="cat", second_noun="dog", relation="beside", scene="moon"),
        prompt("relation", noun="cat", second_noun="mug", relation="in", scene="moon"),
        prompt("two", noun="cat", second_noun="dog", relation="beside"),
        prompt("count", noun="car", count="two", scene="beach"),
    ]
    read = [
        reading(noun="mug", colour="red", scene="moon", style="photo"),
        reading(noun="dog", scene="moon", style="photo"),
        reading(noun="cat", second_noun="dog", relation="beside", scene="beach"),
        reading(noun="cat", second_noun="bowl", relation="in", scene="moon"),
        reading(noun="bird", second_noun="dog", relation="beside"),
        reading(noun="car", count="three", scene="beach"),
    ]
    assert world.obeyed(read, prompts) == {
        "noun": [True, False, True],
        "colour": [True],
        "scene": [True, True, False, True, True],
        "style": [True, False],
        "both nouns": [True, False, False],
        "relation": [True, True, True],
        "count": [False],
    }


def test_the_usual_appearance_is_skin_and_hair_together():
    read = [
        reading(skin="light", hair="short"),
        reading(skin="light", hair="long"),
        reading(skin="dark", hair="short"),
        reading(skin="light", hair="short"),
    ]
    assert world.usual_share(read, "doctor") == 0.5
    assert world.usual_share(read, "nurse") == 0.25


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a photo of a {} on the moon", {"scene": "moon"}),
        ("an oil painting of a {}", {"style": "oil painting"}),
        ("a photo of a {} next to a cat", {"second_noun": "cat"}),
        ("a boat on the beach in the style of {}", {"noun": "boat"}),
        ("a photo of a {}", {}),
    ],
)
def test_templates_tell_what_they_ask_for(template, expected):
    assert world.asked(template) == expected


def test_a_place_that_nobody_asked_for_has_leaked():
    read = {
        "a photo of a {}": [reading(scene=s) for s in ("beach", "plain", "moon", "forest")],
        "an oil painting of a {}": [reading(scene="plain")],
        "a photo of a {} next to a cat": [reading(scene="moon"), reading(scene="beach")],
        "a photo of a {} on the moon": [reading(scene="moon"), reading(scene="moon")],
    }
    assert world.background_leaked(read, {"beach", "moon"}) == {
        "a photo of a {}": 0.5,
        "an oil painting of a {}": 0.0,
        "a photo of a {} next to a cat": 1.0,
    }
    pictures = [reading(scene="beach"), reading(scene="moon"), reading(scene="beach")]
    assert world.places_of(pictures) == {"beach", "moon"}


def test_every_edit_prompt_of_microworld_asks_for_something():
    for templates in EDIT_PROMPTS["microworld"].values():
        assert all(world.asked(template) for template in templates)


@pytest.mark.parametrize("name", ["gold-mug", "neon"])
def test_a_concept_is_read_by_its_own_head(name):
    concept = concepts.get(name)
    read = [
        reading() | truth(scene, name if concept.thing else "none")
        for scene in concepts.concept_scenes(concept, 3)
    ]
    read[2] = reading(concept="parrot", style="photo")
    found = world.seen_as({"a {}": read, "the {}": read[2:]}, *learnable.find(name, 1).read_as)
    assert found == {"a {}": pytest.approx(2 / 3), "the {}": 0.0}


def test_edits_are_read_by_what_their_template_asks_for():
    read = {
        "a photo of a {} on the moon": [reading(scene="moon"), reading(scene="beach")],
        "an oil painting of a {}": [reading(style="oil painting")],
        "a photo of a {}": [reading(scene="desert")],
    }
    assert world.edits_obeyed(read) == {"scene": 0.5, "style": 1.0}


def test_common_words_of_microworld_are_what_its_training_knows():
    words = COMMON_WORDS["microworld"]
    assert set(words["object"]) == set(inventory.NOUNS)
    assert set(words["style"]) < set(inventory.STYLES)
