"""The second world's pictures: pure functions of their scenes, every part in its place."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("skia")

from oneword.cli.main import main
from oneword.microworld.world.drawing import masks, render, render_batch
from oneword.microworld.world.inventory import (
    BADGES,
    CONTAINERS,
    CREATURES,
    EXTRAS,
    HIDDEN_NOUNS,
    HIDDEN_STYLES,
    NOUNS,
    PATTERNS,
    PLACES,
    PROFESSIONS,
    RELATIONS,
    STYLES,
    SUPPORTS,
    Scene,
    Thing,
)
from oneword.microworld.world.scenes import sample_scene
from oneword.microworld.world.shapes import SHAPES


EVERYTHING = (*NOUNS, *PROFESSIONS, *HIDDEN_NOUNS)


def thing(noun: str, **changes) -> Thing:
    if noun in PROFESSIONS:
        changes = {"skin": "medium", "hair": "long", **changes}
    return replace(Thing(noun=noun, colours=("teal", "orange", "purple")), **changes)


def alone(noun: str = "cat", *, place: str = "plain", style: str = "photo", **changes) -> Scene:
    return Scene(things=(thing(noun, **changes),), place=place, style=style, seed=3)


def pair(relation: str) -> tuple[Thing, ...]:
    second = {"on": "chair", "in": "mug", "full of": "basket", "wearing": "hat"}
    return thing("cat"), thing(second.get(relation, "ball"), colours=("red", "blue", "yellow"))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def grown(mask: np.ndarray, margin: int) -> np.ndarray:
    wide = np.pad(mask, margin)
    shifts = range(2 * margin + 1)
    size = mask.shape[0]
    return np.any([wide[i : i + size, j : j + size] for i in shifts for j in shifts], axis=0)


def num_components(mask: np.ndarray) -> int:
    left, count = {tuple(p) for p in np.argwhere(mask)}, 0
    while left:
        count += 1
        todo = [left.pop()]
        while todo:
            y, x = todo.pop()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if (y + dy, x + dx) in left:
                        left.remove((y + dy, x + dx))
                        todo.append((y + dy, x + dx))
    return count


def on_border(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


@pytest.mark.parametrize("style", [*STYLES, *HIDDEN_STYLES])
def test_a_picture_is_a_pure_function_of_its_scene(style: str):
    scene = alone(style=style, place="city", pattern="zigzag")
    first = render(scene)
    render(alone("boat", style="chalk", place="moon"))
    np.testing.assert_array_equal(render(scene), first)
    assert first.shape == (128, 128, 3)
    assert first.dtype == np.uint8


def test_a_batch_has_the_picture_of_each_seeds_scene():
    pictures, scenes = render_batch([4, 9], 64)
    assert pictures.shape == (2, 64, 64, 3)
    assert scenes == [sample_scene(4), sample_scene(9)]
    np.testing.assert_array_equal(pictures[1], render(scenes[1], 64))


@pytest.mark.parametrize("noun", ["cat", "car", "flower", "nurse"])
def test_a_small_photo_is_the_large_one_shrunk(noun: str):
    scene = alone(noun, place="beach")
    shrunk = render(scene, 128).reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert difference(render(scene, 64), shrunk) < 4


def test_every_noun_has_a_shape_and_every_role_its_anchors():
    assert set(SHAPES) == set(EVERYTHING)
    assert all(SHAPES[noun].wears for noun in (*CREATURES, *PROFESSIONS))
    assert all(SHAPES[noun].mouth for noun in CONTAINERS)
    assert all(SHAPES[noun].top < 0 for noun in SUPPORTS)
    assert all(SHAPES[noun].badge[2] > 3 for noun in (*NOUNS, *HIDDEN_NOUNS))


@pytest.mark.parametrize("noun", EVERYTHING)
def test_every_noun_differs_from_the_empty_picture_and_shows_its_parts(noun: str):
    parts = masks(alone(noun))
    for name in ("body", "second", "detail"):
        assert parts[name].sum() > 25, name
        assert not (parts[name] & ~parts["silhouette"]).any()
    for a, b in combinations(("body", "second", "detail", "extras"), 2):
        assert not (parts[a] & parts[b]).any()
    assert 0.06 < parts["silhouette"].mean() < 0.6


@pytest.mark.parametrize("noun", EVERYTHING)
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_nothing_is_cut_off_by_the_border(noun: str, size: str):
    extras = EXTRAS if noun in CREATURES else ()
    for aspect, x, flipped in ((1.12, 0.56, False), (0.88, 0.44, True), (1.12, 0.44, True)):
        scene = alone(
            noun, size=size, scale=1.06, aspect=aspect, x=x, flipped=flipped, detail=1.2,
            extras=extras,
        )  # fmt: skip
        assert not on_border(masks(scene)["silhouette"])


@pytest.mark.parametrize("noun", ["cat", "mug", "house", "plane", "baker"])
def test_large_things_are_larger(noun: str):
    areas = [masks(alone(noun, size=s))["silhouette"].sum() for s in ("small", "medium", "large")]
    assert areas[0] < 0.75 * areas[1]
    assert areas[1] < 0.85 * areas[2]


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_relation_shows_both_things_inside_the_picture(relation: str):
    first, second = pair(relation)
    things = {"alone": (first,), "count": (first,) * 3}.get(relation, (first, second))
    scene = Scene(things=things, relation=relation)
    assert render(scene).std() > 10
    silhouette = masks(scene)["silhouette"]
    assert silhouette.mean() > 0.02
    assert not on_border(silhouette)
    if len(set(things)) == 2:
        other = masks(replace(scene, things=(things[1], things[0]), relation="beside"))
        assert other["silhouette"].any()
        recoloured = replace(things[1], colours=("black", "black", "black"))
        changed = render(replace(scene, things=(things[0], recoloured)))
        assert difference(changed, render(scene)) > 1


@pytest.mark.parametrize("noun", [*NOUNS, *PROFESSIONS])
def test_three_things_are_three_separate_shapes(noun: str):
    for count in (2, 3):
        scene = Scene(things=(thing(noun, aspect=1.12),) * count, relation="count")
        assert num_components(masks(scene)["silhouette"]) == count


def test_the_first_of_two_is_on_the_left_or_above():
    def middle(relation: str) -> np.ndarray:
        scene = Scene(things=pair(relation), relation=relation)
        return np.argwhere(masks(scene)["silhouette"]).mean(0)

    assert middle("beside")[1] < 60
    assert middle("on")[0] < middle("beside")[0] - 5
    assert middle("in")[0] < middle("beside")[0] - 5


def test_a_container_hides_the_lower_part_of_what_is_in_it():
    free = masks(Scene(things=pair("beside"), relation="beside"))
    held = masks(Scene(things=pair("in"), relation="in"))
    feet = ("body", "detail")
    assert sum(held[f].sum() for f in feet) < sum(free[f].sum() for f in feet)


@pytest.mark.parametrize("noun", NOUNS)
def test_the_second_colour_changes_only_the_second_part_and_extras(noun: str):
    extras = ("scarf",) if noun in CREATURES else ()
    before = alone(noun, extras=extras)
    after = alone(noun, extras=extras, colours=("teal", "blue", "purple"))
    changed = np.abs(render(before).astype(int) - render(after).astype(int)).max(-1) > 8
    parts = masks(before)
    assert changed.sum() > 25
    assert not (changed & ~grown(parts["second"] | parts["extras"], 2)).any()


def test_a_second_part_in_the_main_colour_stays_visible():
    scene = alone("mug", style="poster", colours=("red", "red", "white"))
    picture, parts = render(scene).astype(float), masks(scene)
    gap = picture[parts["body"]].mean(0) - picture[parts["second"]].mean(0)
    assert np.abs(gap).max() > 20


@pytest.mark.parametrize("kind", [*EXTRAS, *BADGES, *PATTERNS[1:]])
@pytest.mark.parametrize("noun", CREATURES)
def test_every_addition_is_visible(noun: str, kind: str):
    if kind in EXTRAS:
        changes: dict = {"extras": (kind,)}
        assert masks(alone(noun, **changes))["extras"].sum() > 20
    else:
        changes = {"badge": kind} if kind in BADGES else {"pattern": kind}
    changed = np.abs(render(alone(noun, **changes)).astype(int) - render(alone(noun)))
    assert (changed.max(-1) > 40).sum() > 60


def test_every_place_differs_strongly_from_every_other():
    pictures = {place: render(alone("ball", size="small", place=place)) for place in PLACES}
    for a, b in combinations(PLACES, 2):
        assert difference(pictures[a], pictures[b]) > 22, (a, b)


def test_a_places_seed_varies_it():
    scene = alone(place="city")
    assert difference(render(scene), render(replace(scene, seed=8))) > 2


def test_every_style_differs_from_every_other():
    scene = alone("bird", place="beach", pattern="dotted")
    pictures = {s: render(replace(scene, style=s)) for s in (*STYLES, *HIDDEN_STYLES)}
    for a, b in combinations(pictures, 2):
        assert difference(pictures[a], pictures[b]) > 6, (a, b)
    for hidden in HIDDEN_STYLES:
        nearest = min(difference(pictures[hidden], pictures[known]) for known in STYLES)
        assert nearest > 8, hidden


def test_light_scales_brightness():
    levels = [render(replace(alone(place="beach"), light=v)).mean() for v in (0.6, 1.0, 1.25)]
    assert levels[0] < 0.7 * levels[1]
    assert levels[1] < 0.95 * levels[2]


def test_hair_and_skin_of_people_are_visible():
    for noun in PROFESSIONS:
        short, long = (masks(alone(noun, hair=h))["second"].sum() for h in ("short", "long"))
        assert long > 1.5 * short
        light, dark = (render(alone(noun, skin=s)) for s in ("light", "dark"))
        assert difference(light, dark) > 1.5


def test_explore_draws_a_sheet_of_every_kind(tmp_path, capsys):
    assert main(["microworld", "explore", "--no-generated", "--output-dir", str(tmp_path)]) == 0
    assert "4 sheets" in capsys.readouterr().out
    sizes = {path.stem: Image.open(path).size for path in tmp_path.glob("*.png")}
    assert set(sizes) == {"nouns", "places", "relations", "held-out"}
    rows = len(NOUNS) + len(PROFESSIONS)
    assert sizes["nouns"] == (4 + 8 * 132, 4 + rows * (132 + 22))
