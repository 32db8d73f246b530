"""The page's folder gives nothing outside of it."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from oneword.images import read_folder
from oneword.web.workspace import Workspace, WorkspaceError


@pytest.mark.parametrize("name", [None, "", ".", "..", "../other", "../../run", "nobody", "/run"])
def test_a_run_outside_the_words_is_none(tmp_path, name):
    workspace = Workspace(tmp_path / "web")
    for folder in (tmp_path / "run", tmp_path / "web", workspace.root / "other", workspace.words):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
    with pytest.raises(WorkspaceError, match="trained here"):
        workspace.run_folder(name)


def test_a_run_of_the_words_is_found(tmp_path):
    workspace = Workspace(tmp_path / "web")
    (workspace.words / "mug").mkdir()
    (workspace.words / "mug" / "config.json").write_text("{}")
    assert workspace.run_folder("mug") == workspace.words / "mug"


@pytest.mark.parametrize("number", ["", "..", "0123456789abcdeg", "../0123456789abcd"])
def test_a_set_of_pictures_has_a_number_of_ours(tmp_path, number):
    with pytest.raises(WorkspaceError, match="number of 16 digits"):
        Workspace(tmp_path / "web").draft(number)


@pytest.fixture
def pictures(tmp_path):
    """A set of three pictures, each with its own colour, caption and mask; its files."""
    workspace = Workspace(tmp_path / "web")
    number = workspace.new_draft()
    (tmp_path / "given").mkdir()
    files = [tmp_path / "given" / f"{name}.png" for name in "abc"]
    for level, file in enumerate(files):
        Image.new("RGB", (20, 20), (level, 0, 0)).save(file)
    for path in workspace.take(number, files, most=9):
        path.with_suffix(".txt").write_text(f"caption of {path.stem}")
        Image.new("L", (20, 20), 255).save(path.with_suffix(".mask.png"))
    return workspace, number, files


def order(workspace, number):
    """Names without their places, and what lies beside each."""
    found = []
    for path in workspace.listed(number):
        own = path.stem.rpartition("-")[2]
        with Image.open(path) as image:
            assert image.getpixel((0, 0))[0] == "abcd".index(own)
        if own != "d":
            assert path.with_suffix(".txt").read_text() == f"caption of {own}"
            assert path.with_suffix(".mask.png").is_file()
        found.append(own)
    return "".join(found)


def test_pictures_are_learned_in_the_order_that_they_are_moved_to(pictures):
    workspace, number, _ = pictures
    expected, rng = [*"abc"], random.Random(0)
    for _ in range(30):
        place, by = rng.randrange(3), rng.choice([-1, 1])
        name = workspace.listed(number)[place].name
        if not 0 <= place + by < 3:
            with pytest.raises(WorkspaceError, match=r"because it is already (first|last)\."):
                workspace.move(number, name, by)
            continue
        assert workspace.move(number, name, by) == place + by
        expected.insert(place + by, expected.pop(place))
        assert order(workspace, number) == "".join(expected)
    seen = read_folder(workspace.draft(number), resolution=16)
    assert [name.removesuffix(".png")[-1] for name in seen.names] == expected
    assert [caption[-1] for caption in seen.captions] == expected
    assert len([*workspace.draft(number).iterdir()]) == 9  # nothing was left behind
    with pytest.raises(WorkspaceError, match="picture to move must be one of the set, got z"):
        workspace.move(number, "z.png", 1)


def test_pictures_that_come_after_an_order_come_last(pictures):
    workspace, number, files = pictures
    workspace.move(number, "c.png", -2)
    workspace.drop(number, workspace.listed(number)[1].name)
    late = files[0].with_name("d.png")
    Image.new("RGB", (20, 20), (3, 0, 0)).save(late)
    workspace.take(number, [late], most=9)
    assert order(workspace, number) == "cbd"


def test_two_pictures_of_one_stem_have_their_own_captions(tmp_path):
    workspace = Workspace(tmp_path / "web")
    number = workspace.new_draft()
    files = [tmp_path / "a.png", tmp_path / "a.jpg"]
    for file in files:
        Image.new("RGB", (20, 20)).save(file)
    assert {path.stem for path in workspace.take(number, files, most=9)} == {"a", "a-2"}


def test_a_word_has_its_pictures_whatever_becomes_of_the_set(pictures):
    workspace, number, _ = pictures
    workspace.move(number, "c.png", -2)
    before = {path.name: path.read_bytes() for path in workspace.draft(number).iterdir()}
    kept = workspace.keep(number, "mug")
    workspace.clear(number)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    other = workspace.new_draft()
    workspace.draft(other).mkdir()
    assert workspace.keep(other, "mug") != kept
