"""The demo's folder."""

from __future__ import annotations

import pytest

from oneword.cli.demo import copy_pictures
from oneword.errors import ConfigError


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
    with pytest.raises(ConfigError, match=r"only its own pictures, got .*mine\.png"):
        copy_pictures("gold-mug", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
