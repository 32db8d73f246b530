"""``oneword microworld things``: lists, searches, offers near names, makes a sheet."""

from __future__ import annotations

import pytest
from PIL import Image

from oneword.cli.main import main


def run(*arguments: str) -> int:
    return main(["microworld", "things", *arguments])


def test_everything_is_listed(capsys):
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("drawn from parts: cat, dog")
    assert len(lines) == 1 + 787
    assert any(line.startswith("rocket ") and "held out, test" in line for line in lines)


def test_a_search_takes_nouns_and_keywords(capsys):
    assert run("--search", "toadstool") == 0
    assert capsys.readouterr().out.startswith("mushroom  (")


def test_an_unknown_name_is_offered_the_nearest(capsys):
    assert run("--search", "octupus") != 0
    assert "got 'octupus'; did you mean octopus" in capsys.readouterr().err


def test_a_wrong_number_or_look_is_refused(capsys):
    assert run("--num", "0") != 0
    assert "num must be 1 or more, got 0" in capsys.readouterr().err
    assert run("--look", "sketchy") != 0
    assert "--look must be one of classic emoji, " in capsys.readouterr().err


def test_a_sheet(tmp_path, capsys):
    pytest.importorskip("skia")
    sheet = tmp_path / "made" / "things.png"
    assert run("--search", "toadstool", "--sheet", str(sheet)) == 0
    assert Image.open(sheet).width >= 2 * 64
    assert "4 drawings in" in "".join(capsys.readouterr())
