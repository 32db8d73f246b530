"""Pictures put together from packed parts are nearly the drawn ones."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch


pytest.importorskip("skia")

from oneword.microworld.making import collage, packing
from oneword.microworld.making.collage import Collage, PackError, Parts
from oneword.microworld.world import scenes, wide_drawing, wide_scenes
from oneword.microworld.world.inventory import PLACES, STYLES, Scene
from oneword.microworld.world.wide_scenes import Figure, WideScene


SLUGS = ("elephant", "teapot", "lion", "volcano", "strawberry")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Parts:
    path = tmp_path_factory.mktemp("parts") / "world.zip"
    size = packing.pack(path, slugs=SLUGS, num_variants=2, num_drawn=3)
    assert size == path.stat().st_size
    return Parts(path)


@pytest.fixture(scope="module")
def made(parts) -> Collage:
    return Collage(parts, torch.device("cpu"))


def pixels(made: Collage, scene: WideScene) -> np.ndarray:
    picture = made.pictures([made.parts.plan(scene)])[0]
    return ((picture.permute(1, 2, 0) + 1) * 127.5).numpy()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b.astype(float)).mean())


@pytest.mark.parametrize("look", ["flat sticker", "line icon", "classic emoji", "glossy sticker"])
@pytest.mark.parametrize("place", ["plain", "city", "beach"])
def test_things_in_their_own_look(made, look, place):
    figure = Figure(slug="elephant", look=look, flipped=True, x=0.53)
    scene = WideScene(things=(figure,), place=place, seed=1)
    drawn = wide_drawing.render(scene)
    # edges are a little softer, of which a line icon has the most
    assert difference(pixels(made, scene), drawn) < (7 if look == "line icon" else 3.5)
    other = wide_drawing.render(replace(scene, things=(replace(figure, slug="lion"),)))
    assert difference(pixels(made, scene), drawn) < 0.5 * difference(other, drawn)


@pytest.mark.parametrize("style", STYLES[1:])
def test_things_in_every_style(made, style):
    scene = WideScene(things=(Figure(slug="teapot"),), place="meadow", style=style, seed=0)
    drawn = wide_drawing.render(scene)
    # pixel art is sampled, not drawn, at its few pixels
    assert difference(pixels(made, scene), drawn) < (9 if style == "pixel art" else 5)


@pytest.mark.parametrize("relation", ["beside", "on", "count"])
def test_several_things(made, relation):
    things = (Figure(slug="teapot"), Figure(slug="lion", look="classic emoji"))
    if relation == "count":
        things = (things[1],) * 3
    scene = WideScene(things=things, relation=relation, place="snow", seed=1, light=0.6)
    assert difference(pixels(made, scene), wide_drawing.render(scene)) < 4


@pytest.mark.parametrize("look", ["flat sticker", "line icon", "glossy sticker"])
@pytest.mark.parametrize("colour", ["blue", "pink", "brown"])
def test_colours(made, look, colour):
    scene = WideScene(things=(Figure(slug="strawberry", look=look, colour=colour),), seed=0)
    shown = wide_drawing.masks(scene)["silhouette"]
    mine, drawn = pixels(made, scene)[shown].mean(0), wide_drawing.render(scene)[shown].mean(0)
    assert np.abs(mine - drawn).max() < 30
    assert mine.argmax() == drawn.argmax()


def test_first_world_pictures_are_ready_ones(made):
    scene = scenes.sample_scene(2)
    picture = made.pictures([made.parts.plan(scene, seed=2)])[0]
    mine = ((picture.permute(1, 2, 0) + 1) * 127.5).numpy()
    assert difference(mine, wide_drawing.render(scene)) < 5


def test_a_batch_is_its_pictures(made):
    found = [made.parts.sample(seed) for seed in range(40)]
    wide = [scene for scene in found if isinstance(scene, WideScene)]
    assert len(wide) < len(found)
    plans = [made.parts.plan(scene) for scene in wide]
    together = made.pictures(plans)
    assert together.shape == (len(plans), 3, collage.SIZE, collage.SIZE)
    assert together.abs().max() <= 1
    for i in (0, 7, 19):
        torch.testing.assert_close(together[i], made.pictures([plans[i]])[0], atol=0.02, rtol=0)


def test_scenes_are_such_as_the_parts_show(parts):
    for seed in range(300):
        scene = parts.sample(seed)
        if isinstance(scene, Scene):
            assert scene in [scenes.sample_scene(number) for number in parts.drawn]
            continue
        assert {thing.slug for thing in scene.things} <= set(SLUGS)
        for thing in scene.things:
            if scene.style != "photo":
                assert thing.look == "flat sticker"
                assert not thing.colour or scene.style in collage.TINTED
            if thing.name:
                assert (thing.look, thing.name) == wide_scenes.names()[thing.slug]
        assert scene == parts.sample(seed)


def test_all_places_and_styles_are_packed(parts):
    assert {(style, place) for style, place, _ in parts.backgrounds} == {
        (style, place) for style in STYLES for place in PLACES
    }


def test_another_file_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(PackError, match=r"must be a file made by .*packing, got .*a\.zip"):
        Parts(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("index.json", json.dumps({"world": 1}))
    with pytest.raises(PackError, match=r"must be of world version 2, got 1 in .*b\.zip"):
        Parts(tmp_path / "b.zip")


def test_neither_skia_nor_diffusers_is_needed():
    """Putting pictures together, planning and captioning them, and training on them."""
    code = (
        "import sys\n"
        "sys.modules['skia'] = sys.modules['diffusers'] = None\n"
        "import oneword.microworld.making.collage\n"
        "import oneword.microworld.making.wide\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
