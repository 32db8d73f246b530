"""Captions of the embedded model's world, and the prompts that it is scored on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from oneword import prompts
from oneword.microworld.world import captions, held_out, inventory, scenes
from oneword.microworld.world.inventory import Scene, Thing


NUM_SEEDS = 4000
NOUNS = {*inventory.NOUNS, *inventory.PROFESSIONS}
PLURALS = {captions.plural(noun): noun for noun in NOUNS}
NAMES = {name: noun for noun, looks in scenes.named().items() for name in looks}
SINGULAR = PLURALS | NAMES
PHRASES = {phrase: place for place, phrases in captions.PLACES.items() for phrase in phrases}
UNNAMED = {"skin", "hair", "light", "medium", "short", "long", "badge"} | {
    *inventory.EXTRAS,
    *inventory.BADGES,
} - {"moon"}  # which is a place, too


@pytest.fixture(scope="module")
def captioned() -> list[tuple[Scene, str]]:
    """Captions without asides, which claim nothing."""
    pairs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "ASIDES", 0.0)
        for seed in range(NUM_SEEDS):
            scene = scenes.sample_scene(seed)
            pairs.append((scene, captions.caption(scene, np.random.default_rng(seed))))
    return pairs


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text)


def _without_place(text: str) -> str:
    for phrase in sorted(PHRASES, key=len, reverse=True):
        text = re.sub(rf"\b{phrase}\b", "", text)
    return text


def _vocabulary(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _words(text)}


def test_every_word_is_in_the_vocabulary(captioned: list[tuple[Scene, str]]):
    known = _vocabulary(captions.vocabulary())
    assert _vocabulary(text for _, text in captioned) <= known
    hidden = {*inventory.HIDDEN_NOUNS, "neon", "blueprint", "mosaic", "halftone", "duotone"}
    assert not known & (hidden | {"stained", "embroidery"})


def test_captions_are_short_enough_and_name_nothing_unnamed(
    captioned: list[tuple[Scene, str]],
):
    for scene, text in captioned:
        words = _words(text)
        assert len(words) < 30
        assert not set(_words(_without_place(text))) & UNNAMED, text
        assert set(words).isdisjoint(inventory.HIDDEN_NOUNS), text
        colours = {t.colours[0] for t in scene.things if t.noun not in inventory.PROFESSIONS}
        assert set(words) & set(inventory.COLOURS) <= colours, text
        patterns = {t.pattern for t in scene.things} - {"plain"}
        named = set(_words(_without_place(text))) & set(inventory.PATTERNS)
        assert named <= patterns, text


def test_asides_add_words_that_nothing_goes_by(captioned: list[tuple[Scene, str]]):
    strange = set(captions.strange_words())
    assert len(strange) > 200
    assert not strange & (NOUNS | {*inventory.COLOURS, *inventory.PATTERNS} | NAMES.keys())
    longer = 0
    for seed, (scene, plain) in enumerate(captioned):
        text = captions.caption(scene, np.random.default_rng(seed))
        assert len(_words(text)) < 30
        if text.rstrip(".") != plain.rstrip("."):
            longer += 1
            aside = text.rstrip(".").removeprefix(plain.rstrip("."))
            assert set(_words(aside)) <= strange | {"with", "a", "an", "and"}, text
    assert 0.5 * captions.ASIDES < longer / NUM_SEEDS <= 1.2 * captions.ASIDES


def test_articles_are_right(captioned: list[tuple[Scene, str]]):
    for _, text in captioned:
        for article, letter in re.findall(r"\b(an?) (\w)", text):
            assert (article == "an") == (letter in "aeiou"), text
        assert "  " not in text
        assert not re.search(r"\b(a|an|the|my|one) (a|an|the|my|two|three)\b(?! the)", text) or (
            re.search(r"\b(the|my) (two|three)\b", text)
        ), text
        # a plural has no singular article before it
        for plural, noun in PLURALS.items():
            if plural != noun:
                assert not re.search(rf"\b(a|an|one) (?:\w+ )?{plural}\b", text), text


@pytest.mark.parametrize(
    ("noun", "plural"),
    [("bus", "buses"), ("fish", "fish"), ("house", "houses"), ("nurse", "nurses"), ("hat", "hats")],
)
def test_plurals(noun: str, plural: str):
    assert captions.plural(noun) == plural


def test_places_styles_and_light_are_named_truthfully(captioned: list[tuple[Scene, str]]):
    placed = 0
    for scene, text in captioned:
        found = {place for phrase, place in PHRASES.items() if re.search(rf"\b{phrase}\b", text)}
        assert found <= {scene.place}, text
        placed += bool(found)
        rest = set(_words(_without_place(text)))
        assert ("dark" in rest) <= (scene.light < 0.8), text
        assert ("bright" in rest) <= (scene.light > 1.1), text
        marks = {
            style
            for style, word in {
                "watercolor": "watercolor",
                "poster": "poster",
                "pixel art": "pixel",
                "oil painting": "oil",
                "cartoon": "cartoon",
                "chalk": "chalk",
                "sketch": "sketch",
            }.items()
            if word in rest
        }
        if "pencil" in rest:
            marks.add("sketch")
        assert marks == ({scene.style} - {"photo"}), text
    # contentless style prompts are the few that leave out more
    assert 0.8 < placed / len(captioned) < 0.88


def test_counts_and_relations_are_named_truthfully(captioned: list[tuple[Scene, str]]):
    for scene, text in captioned:
        words = _words(text)
        nouns = [SINGULAR.get(w, w) for w in words if w in NOUNS or w in SINGULAR]
        if not nouns:
            assert "in the style of" in text
            continue
        assert {"two", "three"} & set(words) == ({captions.NUMBERS[scene.num]} - {""}), text
        first = scene.things[0].noun
        if scene.relation == "alone":
            assert nouns == [first]
            assert first in words or scene.things[0].name in words
        elif scene.relation == "count":
            assert nouns == [first]
            assert captions.plural(first) in words
        else:
            second = scene.things[1].noun
            order = [second, first] if scene.relation == "full of" else [first, second]
            assert nouns == order, text
            joints = [j.split(" {}")[0].removesuffix(" a") for j in captions.JOINTS[scene.relation]]
            assert any(f" {joint} " in text for joint in joints), text
        if scene.relation == "full of":
            assert captions.plural(first) in words


def test_sizes_are_named_of_what_shows_them(captioned: list[tuple[Scene, str]]):
    for scene, text in captioned:
        # "a small painting in the style of" speaks of the picture
        words = _words(re.sub(r"(small|large|close-up) (?=painting)", "", text))
        sizes = {t.size for t in scene.things}
        assert {"small", "large"} & set(words) <= sizes, text
        assert ("close-up" in words) <= (sizes == {"large"}), text


def test_a_property_is_named_most_of_the_time(captioned: list[tuple[Scene, str]]):
    alone = [
        (scene.things[0], set(_words(_without_place(text))))
        for scene, text in captioned
        if scene.relation == "alone"
        and scene.things[0].noun in inventory.NOUNS
        and not scene.things[0].name
    ]
    plain = [(t, w) for t, w in alone if t.colours[0] == t.colours[1]]
    assert 0.7 < np.mean([t.colours[0] in words for t, words in plain]) < 0.86
    marked = [(t, w) for t, w in alone if t.pattern != "plain"]
    assert 0.7 < np.mean([t.pattern in words for t, words in marked]) < 0.86
    sized = [(t, w) for t, w in alone if t.size != "medium"]
    assert 0.6 < np.mean([bool(w & {t.size, "close-up"}) for t, w in sized]) < 0.9
    assert any("colorful" in words for _, words in alone)
    assert all("colorful" not in words for _, words in plain)


def _skeletons(captioned: list[tuple[Scene, str]], style: str) -> set[str]:
    """Captions of single things with everything that a scene fills in taken out."""
    adjectives = "|".join((*inventory.COLOURS, *inventory.PATTERNS, "colorful", "zigzag"))
    nouns = "|".join(NOUNS)
    found = set()
    for scene, text in captioned:
        if scene.relation == "alone" and (scene.style == "photo") == (style == "photo"):
            text = _without_place(text).strip(" ,.")
            text = re.sub(rf"\b(?:(?:{adjectives}) )*(?:{nouns})\b", "{}", text)
            found.add(re.sub(r"\ban ", "a ", text).strip())
    return found


def test_every_template_of_the_paper_occurs():
    pairs = []
    rng = np.random.default_rng(0)
    for seed in range(12_000):
        scene = scenes.sample_scene(seed, relation="alone")
        pairs.append((scene, captions.caption(scene, rng)))
    assert set(prompts.TEMPLATES["release27"]) <= _skeletons(pairs, "photo")
    styled = {
        text.replace(" of a {}", "").replace(f"in the style of {name}", "in the style of {}")
        for text in _skeletons(pairs, "styled")
        for names in captions.STYLE_NAMES.values()
        for name in names
    }
    assert set(prompts.TEMPLATES["style19"]) <= styled


def test_kinds_of_prompts_that_later_scores_use_occur(captioned: list[tuple[Scene, str]]):
    texts = "\n".join(text for _, text in captioned)
    for pattern in (
        r"^a photo of an? [\w ]+ on the moon\.?$",
        r"^an oil painting of an? ",
        r"^a photo of an? [\w ]+ next to an? ",
        r"^a [\w ]+ in the style of pixel art",
        r"^a painting of an? [\w ]+ in the style of ",
        r"^a \w+ painting in the style of an? \w+\.?$|^a painting in the style of \w+\.?$",
        r"^a photo of an? [\w ]+ on a plain background\.?$",
        r"^on the beach, a",
    ):
        assert re.search(pattern, texts, re.MULTILINE), pattern


def test_captions_are_a_function_of_scene_and_generator():
    scene = scenes.sample_scene(9)
    one, two = (captions.caption(scene, np.random.default_rng(4)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"noun": "mug"}, "a photo of a mug"),
        (
            {"noun": "robot", "colour": "orange", "place": "moon", "style": "oil painting"},
            "an oil painting of an orange robot on the moon",
        ),
        (
            {"noun": "mug", "colour": "red", "pattern": "striped", "num": 3, "place": "snow"},
            "a photo of three red striped mugs in the snow",
        ),
        ({"noun": "cat", "pattern": "plain", "style": "chalk"}, "a chalk drawing of a cat"),
        (
            {"noun": "mushroom", "relation": "full of", "second_noun": "bowl", "colour": "white"},
            "a photo of a bowl full of white mushrooms",
        ),
        (
            {"noun": "cat", "relation": "on", "second_noun": "house", "style": "pixel art"},
            "pixel art of a cat on top of a house",
        ),
        (
            {"noun": "dog", "relation": "wearing", "second_noun": "hat"},
            "a photo of a dog wearing a hat",
        ),
    ],
)
def test_the_plainest_sentences(arguments: dict, text: str):
    assert captions.sentence(**arguments) == text


def test_a_counted_subject_takes_the_articles_place():
    thing = Thing(noun="bus", colours=("red", "red", "grey"))
    scene = Scene(things=(thing,) * 2, relation="count", style="poster", place="stage")
    texts = {captions.caption(scene, np.random.default_rng(i)) for i in range(300)}
    assert any(text.startswith("a poster showing two red buses") for text in texts)
    assert any(text.startswith("a flat poster of the two red buses") for text in texts)


@pytest.fixture(scope="module")
def evaluation() -> list[captions.Prompt]:
    return captions.evaluation_prompts(330, seed=3)


def test_evaluation_prompts_are_unseen_and_new(evaluation: list[captions.Prompt]):
    assert evaluation == captions.evaluation_prompts(330, seed=3)
    assert evaluation != captions.evaluation_prompts(330, seed=4)
    assert len({prompt.text for prompt in evaluation}) == len(evaluation)
    for prompt in evaluation:
        scene, first = prompt.scene, prompt.scene.things[0]
        assert scenes.is_unseen(first.noun, first.colours[0], scene.place, scene.style)


def test_evaluation_prompts_are_balanced(evaluation: list[captions.Prompt]):
    kinds = Counter(prompt.kind for prompt in evaluation)
    assert kinds == {"one": 198, "two": 50, "relation": 56, "count": 26}
    single = [prompt.truth for prompt in evaluation if prompt.kind == "one"]
    for name, values in {
        "noun": NOUNS,
        "colour": inventory.COLOURS,
        "scene": inventory.PLACES,
        "style": inventory.STYLES,
    }.items():
        counts = Counter(truth[name] for truth in single if name in truth)
        assert set(counts) == set(values)
        assert max(counts.values()) - min(counts.values()) <= 3, name
    relations = Counter(p.truth["relation"] for p in evaluation if p.kind == "relation")
    assert set(relations) == {"on", "in", "full of", "wearing"}
    assert max(relations.values()) - min(relations.values()) <= 1


def test_evaluation_prompts_say_what_their_twin_shows(evaluation: list[captions.Prompt]):
    known = _vocabulary(captions.vocabulary())
    for prompt in evaluation:
        scene, truth = prompt.scene, prompt.truth
        first = scene.things[0]
        assert (truth["noun"], truth["scene"], truth["style"]) == (
            first.noun,
            scene.place,
            scene.style,
        )
        assert set(_words(prompt.text)) <= known
        assert captions.PLACES[scene.place][0] in prompt.text
        if first.noun in inventory.PROFESSIONS:
            assert "colour" not in truth
            assert first.skin
            assert first.hair
        else:
            assert truth["colour"] == first.colours[0]
            assert truth["colour"] in prompt.text
        if prompt.kind in {"two", "relation"}:
            assert truth["relation"] == scene.relation
            assert truth["second_noun"] == scene.things[1].noun
        if prompt.kind == "count":
            assert truth["count"] == captions.NUMBERS[scene.num]
            assert truth["count"] in prompt.text.split()


def test_evaluation_prompts_never_occur_as_training_scenes(evaluation: list[captions.Prompt]):
    seen = {
        (t.noun, t.colours[0], s.place, s.style)
        for s in map(scenes.sample_scene, range(NUM_SEEDS))
        for t in s.things
    }
    for prompt in evaluation:
        truth = prompt.truth
        if "colour" in truth:
            look = (truth["noun"], truth["colour"], truth["scene"], truth["style"])
            assert look not in seen


def test_no_caption_is_a_description_of_a_concept(captioned: list[tuple[Scene, str]]):
    described = {text for c in held_out.HELD_OUT for text in c.captions_short}
    assert described.isdisjoint(text for _, text in captioned)


def test_a_name_stands_for_one_whole_look():
    known = scenes.named()
    names = [name for looks in known.values() for name in looks]
    assert set(known) == set(inventory.NOUNS)
    assert len(set(names)) == len(names) == len(inventory.NOUNS) * inventory.NAMES_PER_NOUN
    texts = [t for t in captions.vocabulary() if t not in names]
    assert _vocabulary(texts).isdisjoint(names), "a name is another word, too"
    for noun, looks in known.items():
        for look in looks.values():
            assert look.noun == noun
            assert look not in held_out.RESERVED
            assert look.colours[0] != look.colours[1]


def test_names_are_true_and_say_nothing_besides(captioned: list[tuple[Scene, str]]):
    called: Counter[bool] = Counter()
    for scene, text in captioned:
        words = set(_words(text))
        for thing in scene.things:
            if thing.name:
                look = scenes.named()[thing.noun][thing.name]
                assert (thing.colours, thing.pattern) == (look.colours, look.pattern)
                assert (thing.badge, thing.extras) == (look.badge, look.extras)
        for noun, looks in scenes.named().items():
            for name in words & set(looks):
                assert name in {t.name for t in scene.things}, text
                if scene.relation == "alone":
                    assert noun not in words, text
                    assert scene.things[0].colours[0] not in words, text
        if scene.relation == "alone" and scene.things[0].name:
            called[scene.things[0].name in words] += 1
    assert called.total() > 300
    assert 0.7 < called[True] / called.total() < 0.9
