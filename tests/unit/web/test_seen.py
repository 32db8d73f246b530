"""What is shown of pictures before they are learned, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from oneword.config.inversion import InversionConfig
from oneword.images import from_uint8, read_folder


pytest.importorskip("gradio")
from oneword.training.grounds import NUM_GROUNDS, on_grounds
from oneword.training.job import Job
from oneword.web.seen import remarks, thumbnails


SIDE = 32
HOW = InversionConfig(placeholder_token="*")


@pytest.fixture
def cut_out(tmp_path):
    """A folder of one picture: a red square on nothing."""
    image = Image.new("RGBA", (SIDE, SIDE))
    image.paste((255, 0, 0, 255), (8, 8, 24, 24))
    folder = tmp_path / "pictures"
    folder.mkdir()
    image.save(folder / "thing.png")
    return folder


def seen(folder, how=HOW, family="microworld"):
    found = read_folder(folder, resolution=SIDE)
    return thumbnails(found, folder, how, family), remarks(found, how, family, SIDE)


def pixels_of(image):
    return from_uint8(np.asarray(image)[None])[0]


def test_a_cut_out_thing_is_shown_on_its_first_grounds(cut_out):
    (image,), said = seen(cut_out)
    assert said[0].startswith("Only one picture")
    assert said[1] == (
        "Transparent: thing.png; trained on a new background each step, which the loss ignores."
    )
    found = read_folder(cut_out, resolution=SIDE)
    job = Job(name="", pictures=found.pixels, config=HOW, opacity=found.opacity)
    trained, places = on_grounds(job, HOW.resolved("microworld"), "microworld")
    assert len(places) == NUM_GROUNDS
    step = (image.width - 4) // 2  # two by two, with gaps
    tiles = [image.crop((x, y, x + SIDE, y + SIDE)) for y in (4, 4 + step) for x in (4, 4 + step)]
    for number, tile in enumerate(tiles):
        wanted = trained[places[number, 0, 0]]
        assert (pixels_of(tile) - wanted).abs().max() < 0.01
        assert tile.getpixel((16, 16)) == (255, 0, 0)
    assert len({tile.tobytes() for tile in tiles}) == 4


def test_settings_that_leave_it_on_white_show_it_on_white(cut_out):
    (image,), said = seen(cut_out, InversionConfig(placeholder_token="*", preset="paper"))
    assert image.size == (SIDE, SIDE)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert said[1] == "Transparent: thing.png; trained on white, which the loss ignores."


def test_solid_pictures_are_as_they_are_and_a_painted_mask_dims_the_rest(cut_out):
    Image.new("RGB", (SIDE, SIDE), (200, 200, 200)).save(cut_out / "wall.png")
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (0, 0, 16, SIDE))
    mask.save(cut_out / "wall.mask.png")
    images, said = seen(cut_out)
    assert [image.size == (SIDE, SIDE) for image in images] == [False, True]
    assert images[1].getpixel((4, 16)) == (200, 200, 200)
    assert images[1].getpixel((28, 16)) == (60, 60, 60)
    assert not any("Only one picture" in line for line in said)


def test_what_speaks_against_pictures_is_said(cut_out):
    for name in ("a.png", "b.png"):
        Image.effect_noise((20, 20), 90).save(cut_out / name)
    (cut_out / "b.png").write_bytes((cut_out / "a.png").read_bytes())
    (cut_out / "notes.doc").write_text("")
    _, said = seen(cut_out, family="")  # the model is not loaded yet
    assert "Too small, will look blurred: a.png, b.png." in said
    assert "Near-duplicates: a.png, b.png; keep only one of them." in said
    assert any("notes.doc" in line for line in said)


def test_the_order_of_the_pictures_is_the_order_of_training(cut_out):
    for level, name in enumerate(("002-a.png", "001-b.png")):
        Image.new("RGB", (SIDE, SIDE), (0, 100 * level, 0)).save(cut_out / name)
    (cut_out / "thing.png").unlink()
    found = read_folder(cut_out, resolution=SIDE)
    job = Job(name="", pictures=found.pixels, config=HOW)
    trained, places = on_grounds(job, HOW.resolved("microworld"), "microworld")
    images, _ = seen(cut_out)
    for number, image in enumerate(images):
        assert torch.equal(pixels_of(image), trained[places[0, 0, number]])
    assert [image.getpixel((0, 0))[1] for image in images] == [100, 0]
