"""The second world: scenes, their pictures, masks, truths and captions."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest


pytest.importorskip("skia")

from oneword.microworld.making import models
from oneword.microworld.world import (
    artwork,
    scenes,
    vectors,
    wide_captions,
    wide_drawing,
    wide_scenes,
)
from oneword.microworld.world.inventory import PLACES, STYLES, Scene
from oneword.microworld.world.sprites import sprite
from oneword.microworld.world.tints import tinted
from oneword.microworld.world.wide_drawing import masks, render
from oneword.microworld.world.wide_scenes import Figure, WideScene, sample, sample_wide, truth


MANY = [sample_wide(seed) for seed in range(600)]


def alone(slug: str = "elephant", *, place: str = "plain", style: str = "photo", **changes):
    return WideScene(things=(Figure(slug=slug, **changes),), place=place, style=style, seed=3)


def pair(relation: str) -> WideScene:
    things = (Figure(slug="teapot"), Figure(slug="lion", look="classic emoji"))
    return WideScene(things=things, relation=relation, place="meadow", seed=4)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize("look", [*artwork.LOOKS, artwork.FIRST_EDITION])
def test_no_sprite_is_blank_and_all_stand_on_the_ground(look):
    for slug in list(artwork.artworks(look))[::9]:
        pixels = sprite(slug, look, 48)
        solid = pixels[..., 3] > 100
        assert solid.mean() > 0.04, slug
        assert solid[-2:].any(), slug
        assert (pixels[..., :3] <= pixels[..., 3:]).all(), slug  # premultiplied


def test_sprites_are_kept_and_cannot_be_written_into():
    pixels = sprite("lion", "flat sticker", 48)
    assert sprite("lion", "flat sticker", 48) is pixels
    with pytest.raises(ValueError, match="read-only"):
        pixels[:] = 0


def test_nearly_all_flat_stickers_and_line_icons_are_vectors():
    lost = dict.fromkeys(artwork.VECTOR_LOOKS, 0)
    slugs = list(artwork.things())[::5]
    for look in lost:
        for slug in slugs:
            areas = vectors.areas(slug, look)
            lost[look] += not areas
            for area in areas:
                box = area.path.computeTightBounds()
                assert -0.51 < box.left() <= box.right() < 0.51, slug
                assert -1.01 < box.top() <= box.bottom() < 0.01, slug
    assert max(lost.values()) < 0.03 * len(slugs)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("M1 2L5 2 5 6z", (1, 2, 5, 6)),
        ("m1 2h4v4h-4z", (1, 2, 5, 6)),
        ("M0 0H4V3", (0, 0, 4, 3)),
        ("M0 0c0 4 4 4 4 0s4-4 4 0", (0, -3, 8, 3)),
        ("M0 0q2 4 4 0t4 0", (0, -2, 8, 2)),
        ("M0 2a2 2 0 014 0a2 2 0 01-4 0", (0, 0, 4, 4)),
        ("M.5.5l1e0-.5.5.5", (0.5, 0, 2, 0.5)),
    ],
)
def test_path_data_is_read(text, box):
    found = vectors.parse(text).computeTightBounds()
    assert (found.left(), found.top(), found.right(), found.bottom()) == pytest.approx(
        box, abs=0.01
    )


def test_broken_path_data_is_refused():
    with pytest.raises(ValueError, match="must hold all numbers of l, got 'M0 0l3'"):
        vectors.parse("M0 0l3")


def test_vectors_look_as_skia_draws_them():
    """The flat sticker from its areas, in a style that only paints, is nearly the sprite."""
    for slug in ("lion", "teapot", "volcano"):
        scene = alone(slug)
        styled = render(replace(scene, style="poster"), 64)
        own = render(scene, 64)
        shown = masks(scene, 64)["silhouette"]
        assert difference(own[shown], styled[shown]) < 40
        assert vectors.areas(slug, "flat sticker")


def test_a_picture_belongs_to_its_scene():
    for scene in MANY[:12]:
        first = render(scene, 64)
        assert first.shape == (64, 64, 3)
        assert first.dtype == np.uint8
        assert np.array_equal(first, render(scene, 64))


def test_first_world_scenes_are_drawn_as_before():
    from oneword.microworld.world import drawing

    scene = scenes.sample_scene(5)
    assert np.array_equal(render(scene, 64), drawing.render(scene, 64))


@pytest.mark.parametrize("style", STYLES[1:])
@pytest.mark.parametrize("look", artwork.VECTOR_LOOKS)
def test_every_style_redraws_vector_looks(style, look):
    plain = render(alone(look=look), 64)
    styled = render(alone(look=look, style=style), 64)
    shown = masks(alone(look=look), 64)["silhouette"]
    assert difference(plain[shown], styled[shown]) > 6


def test_things_are_seen_in_every_place():
    for place in PLACES:
        for look in artwork.LOOKS:
            scene = alone(look=look, place=place)
            without = render(
                replace(scene, things=(Figure(slug="elephant", look=look, scale=0.01),)), 64
            )
            shown = masks(scene, 64)["silhouette"]
            assert difference(render(scene, 64)[shown], without[shown]) > 15, (place, look)


def test_masks_say_where_things_are():
    one = masks(alone(), 64)
    assert 0.08 < one["silhouette"].mean() < 0.6
    assert not one["other"].any()
    beside = masks(pair("beside"), 64)
    left, right = (np.argwhere(beside[name])[:, 1].mean() for name in ("silhouette", "other"))
    assert left < 30 < 34 < right
    on = masks(pair("on"), 64)
    upper, lower = (np.argwhere(on[name])[:, 0].mean() for name in ("silhouette", "other"))
    assert upper < lower - 8
    three = WideScene(things=(Figure(slug="lion"),) * 3, relation="count")
    columns = masks(three, 64)["silhouette"].any(0)
    assert (np.diff(columns.astype(int)) == 1).sum() == 3


def test_nothing_is_cut_off():
    for scene in MANY[:60]:
        shown = np.any(list(masks(scene, 64).values()), axis=0)
        assert not shown[0].any()
        assert not shown[:, 0].any()
        assert not shown[:, -1].any()


def test_colours_replace_hues_and_leave_greys():
    rgb = np.array([[0.9, 0.2, 0.1], [0.5, 0.5, 0.5], [0.05, 0.03, 0.03], [1.0, 1.0, 1.0]])
    blue = tinted(rgb, "blue")
    assert blue[0].argmax() == 2
    np.testing.assert_allclose(blue[1:], rgb[1:], atol=0.02)
    for colour in wide_scenes.COLOURS:
        assert difference(255 * tinted(rgb, colour)[0], 255 * rgb[0]) > 5 or colour == "red"


def test_a_colour_word_is_seen():
    for look in artwork.LOOKS:
        scene = alone("teapot", look=look, colour="blue")
        shown = render(scene, 64)[masks(scene, 64)["silhouette"]].astype(float)
        red, _, blue = shown.mean(0)
        assert blue > red + 20, look


def test_coloured_things_are_those_that_have_colours():
    for slug in list(artwork.things())[::25]:
        assert (slug in wide_scenes.coloured()) == wide_drawing.has_colours(slug), slug


def test_shares_of_what_is_shown():
    relations = Counter(scene.relation for scene in MANY)
    assert set(relations) == set(wide_scenes.RELATIONS)
    easy = sum(s.relation == "alone" and s.place == "plain" and s.style == "photo" for s in MANY)
    assert 0.34 < easy / len(MANY) < 0.48
    assert {scene.place for scene in MANY} == set(PLACES)
    assert {scene.style for scene in MANY} == set(STYLES)
    drawn = sum(isinstance(sample(seed), Scene) for seed in range(300))
    assert 0.22 < drawn / 300 < 0.38


def test_training_leaves_out_one_combination_in_eight():
    assert not any(wide_scenes.is_unseen(scene) for scene in MANY)
    looks = [
        alone(slug, place=place, style=style)
        for slug in ("lion", "teapot", "volcano")
        for place in PLACES[1:]
        for style in STYLES
    ]
    share = sum(map(wide_scenes.is_unseen, looks)) / len(looks)
    assert 0.06 < share < 0.2


def test_a_style_is_never_that_of_a_sprite():
    for scene in MANY:
        if scene.style != "photo":
            assert all(thing.look in artwork.VECTOR_LOOKS for thing in scene.things)


def test_invented_names_are_one_drawings():
    names = wide_scenes.names()
    words = [word for _, word in names.values()]
    assert len(set(words)) == len(words) == len(names)
    others = {word for looks in scenes.named().values() for word in looks}
    assert not others & set(words)
    shown = [thing for scene in MANY for thing in scene.things if thing.name]
    assert shown
    for thing in shown:
        assert (thing.look, thing.name) == names[thing.slug]
        assert not thing.colour


def test_truth_is_the_scenes():
    scene = alone("teapot", look="glossy sticker", colour="green", place="moon")
    assert truth(scene) == {
        "noun": "teapot", "look": "glossy sticker", "scene": "moon", "style": "photo",
        "relation": "alone", "count": "one", "colour": "green",
    }  # fmt: skip
    found = truth(pair("on"))
    assert (found["second_noun"], found["second_look"]) == ("lion", "classic emoji")
    assert "colour" not in found
    assert truth(WideScene(things=(Figure(slug="lion"),) * 3, relation="count"))["count"] == "three"


def test_captions_say_what_is_true():
    rng = np.random.default_rng(1)
    numbers = {"two": 2, "three": 3}
    by_keyword = by_name = on_their_own = 0
    for scene in MANY:
        text = wide_captions.caption(scene, rng)
        words = re.findall(r"[\w]+", text)
        assert len(words) < 30, text
        for word, num in numbers.items():
            assert word not in words or scene.num == num, text
        first = scene.things[0]
        options = {first.noun, first.name, *wide_captions.keywords()[first.slug]} - {""}
        options |= set(map(wide_captions.plural, options))
        assert any(f" {option}" in f" {text}" for option in options), (text, scene)
        if scene.relation == "alone":
            on_their_own += 1
            by_name += first.name != "" and first.name in text
            by_keyword += first.noun not in text and (not first.name or first.name not in text)
        colours = set(wide_scenes.COLOURS) & set(words)
        named = {thing.noun for thing in scene.things} | {thing.colour for thing in scene.things}
        assert colours <= {word for name in named for word in name.split()}, text
    assert 0.12 < by_name / on_their_own < 0.3
    assert 0.06 < by_keyword / on_their_own < 0.3


def test_looks_are_named_where_things_keep_them():
    rng = np.random.default_rng(2)
    texts = [wide_captions.caption(alone(look="glossy sticker"), rng) for _ in range(60)]
    assert 0.3 < sum("glossy" in t or "shiny" in t for t in texts) / 60 < 0.8
    assert not any("icon" in t or "emoji" in t or "flat" in t for t in texts)


def test_the_vocabulary_has_every_word_of_every_caption():
    known = {w for text in wide_captions.vocabulary() for w in re.findall(r"\w+|[^\w\s]", text)}
    rng = np.random.default_rng(3)
    for seed in range(500):
        text = wide_captions.caption(sample(seed), rng)
        assert set(re.findall(r"\w+|[^\w\s]", text)) <= known, text


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("fox", "foxes"), ("ear of corn", "ears of corn"), ("baby", "babies"), ("key", "keys"),
        ("mouse", "mice"), ("glasses", "glasses"), ("heart with ribbon", "hearts with ribbon"),
        ("high heeled shoe", "high heeled shoes"),
    ],
)  # fmt: skip
def test_plurals(noun, several):
    assert wide_captions.plural(noun) == several


def test_plain_sentences():
    assert (
        wide_captions.sentence("fox", look="flat sticker", colour="orange", place="beach")
        == "a flat sticker of an orange fox on the beach"
    )
    assert wide_captions.sentence("fox", num=3, style="chalk") == "a chalk drawing of three foxes"
    text = wide_captions.sentence("fox", relation="on", second_noun="teapot", place="moon")
    assert text == "a photo of a fox on top of a teapot on the moon"


def test_the_first_worlds_tokenizer_is_unchanged():
    """The landed weights were trained with it: a word more would move every row."""
    from transformers import CLIPTokenizer

    from oneword.microworld import weights

    landed = CLIPTokenizer.from_pretrained(weights.WEIGHTS / "microworld/pipeline/tokenizer")
    assert models.tokenizer().get_vocab() == landed.get_vocab()
