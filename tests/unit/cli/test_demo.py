"""The demo's folder."""

from __future__ import annotations

import pytest
from PIL import Image

from oneword.cli.demo import copy_pictures
from oneword.errors import ConfigError, UserError


def test_the_demos_pictures_are_replaced_and_a_persons_own_are_not(tmp_path):
    pictures, plain = copy_pictures("gold-mug", tmp_path)
    mugs = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert len(mugs) == 5
    (pictures / ".DS_Store").write_text("")
    copy_pictures("parrot", tmp_path)
    assert {p.read_bytes() for p in pictures.glob("*.png")}.isdisjoint(mugs.values())
    assert list(plain.iterdir())
    mine = pictures / "mine.png"
    mine.write_bytes(b"a picture of my own")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"Cannot replace .*mine\.png because the demo"):
        copy_pictures("gold-mug", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_of_ones_own_is_learned_alone_and_never_replaced(tmp_path):
    mascot, demo = tmp_path / "mascot.png", tmp_path / "demo"
    Image.new("RGBA", (40, 30), (200, 0, 0, 90)).save(mascot)
    for _ in range(2):  # the same again
        pictures, plain = copy_pictures(mascot, demo)
        assert plain is None
        assert [path.read_bytes() for path in pictures.iterdir()] == [mascot.read_bytes()]
    with pytest.raises(ConfigError, match=r"Cannot replace .*mascot\.png because the demo"):
        copy_pictures("gold-mug", demo)
    copy_pictures("gold-mug", tmp_path / "mugs")
    pictures, _ = copy_pictures(mascot, tmp_path / "mugs")  # the demo's own make room
    assert [path.name for path in pictures.iterdir()] == ["mascot.png"]
    assert not list((tmp_path / "mugs" / "pictures-plain").iterdir())


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_picture_that_is_none_is_a_sentence_and_nothing_is_written(tmp_path, content):
    file = tmp_path / "mascot.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"mascot\.png"):
        copy_pictures(file, tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
