"""The demo's folder, and what it learns on a model of either world."""

from __future__ import annotations

import json
from functools import partial

import pytest
from PIL import Image

from oneword.cli import demo
from oneword.cli.demo import Pictures, copy_pictures, pictures_of
from oneword.cli.main import main
from oneword.config.inversion import InversionConfig
from oneword.errors import ConfigError, UserError
from oneword.microworld.world import learnable


def shipped(name, world=1):
    return pictures_of(learnable.find(name, world), world, 128)


def test_the_demos_pictures_are_replaced_and_a_persons_own_are_not(tmp_path):
    pictures, plain = copy_pictures(shipped("gold-mug"), tmp_path)
    mugs = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert len(mugs) == 5
    (pictures / ".DS_Store").write_text("")
    copy_pictures(shipped("parrot"), tmp_path)
    assert {p.read_bytes() for p in pictures.glob("*.png")}.isdisjoint(mugs.values())
    assert list(plain.iterdir())
    mine = pictures / "mine.png"
    mine.write_bytes(b"a picture of my own")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"Cannot replace .*mine\.png because the demo"):
        copy_pictures(shipped("gold-mug"), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_of_ones_own_is_learned_alone_and_never_replaced(tmp_path):
    mascot, folder = tmp_path / "mascot.png", tmp_path / "demo"
    Image.new("RGBA", (40, 30), (200, 0, 0, 90)).save(mascot)
    own = Pictures.of_ones_own(mascot)
    for _ in range(2):  # the same again
        pictures, plain = copy_pictures(own, folder)
        assert plain is None
        assert [path.read_bytes() for path in pictures.iterdir()] == [mascot.read_bytes()]
    with pytest.raises(ConfigError, match=r"Cannot replace .*mascot\.png because the demo"):
        copy_pictures(shipped("gold-mug"), folder)
    copy_pictures(shipped("gold-mug"), tmp_path / "mugs")
    pictures, _ = copy_pictures(own, tmp_path / "mugs")  # the demo's own make room
    assert [path.name for path in pictures.iterdir()] == ["mascot.png"]
    assert not list((tmp_path / "mugs" / "pictures-plain").iterdir())


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_picture_that_is_none_is_a_sentence_and_nothing_is_written(tmp_path, content):
    file = tmp_path / "mascot.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"mascot\.png"):
        Pictures.of_ones_own(file)
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["mascot.png"])


def test_drawn_pictures_are_the_demos_own(tmp_path):
    pytest.importorskip("skia")
    fox, windmill = (
        pictures_of(learnable.find(n, w), w, 64) for n, w in (("fox", 2), ("windmill", 1))
    )
    assert [len(found.learned) for found in (fox, windmill)] == [5, 5]
    assert fox == pictures_of(learnable.find("fox", 2), 2, 64)  # the same again
    pictures, plain = copy_pictures(fox, tmp_path)
    assert Image.open(next(plain.iterdir())).size == (64, 64)
    for other in (fox, windmill, shipped("parrot"), fox):
        copy_pictures(other, tmp_path)
        assert {p.name: p.read_bytes() for p in pictures.iterdir()} == other.learned
    (pictures / "1.png").write_bytes(b"a picture of my own")
    with pytest.raises(ConfigError, match=r"Cannot replace .*1\.png because the demo"):
        copy_pictures(windmill, tmp_path)


def test_the_default_of_the_second_world_is_of_its_test_half():
    for world, name in demo.DEFAULT.items():
        assert (world, name) in demo.SHIPPED
    rocket = learnable.find(demo.DEFAULT[2], 2)
    assert (rocket.half, rocket.family, rocket.read_as) == ("test", "shape", ("noun", "rocket"))
    assert learnable.find(demo.DEFAULT[2], 1).half == "test"


def test_what_is_in_the_package_is_what_would_be_drawn():
    pytest.importorskip("skia")
    rocket = learnable.find("rocket", 2)
    packaged = shipped("rocket", 2)
    assert len(packaged.learned), len(packaged.plain) == (5, 8)
    for found, drawn in ((packaged.learned, rocket.pictures()), (packaged.plain, rocket.plain())):
        assert found == {
            f"{i}.png": demo.png_bytes(Image.fromarray(one)) for i, one in enumerate(drawn, start=1)
        }


@pytest.mark.parametrize("world", [1, 2])
def test_every_world_has_its_held_out_things(world):
    known = learnable.learnable(world)
    families = [one.family for one in known.values()]
    assert set(families) == {"shape", "recombination", "style", "character"}
    assert families.count("shape") == {1: 12, 2: 80}[world]
    halves = [one.half for one in known.values()]
    assert abs(halves.count("test") - len(halves) / 2) < 4
    assert ("windmill" in known) == (world == 1)
    assert ("fox" in known) == (world == 2)
    assert known["gold-mug"].noun == "mug"
    assert known["neon"].read_as == ("style", "neon")
    assert known["gold-mug"].read_as == ("concept", "gold-mug")


@pytest.mark.parametrize(
    ("name", "world", "says"),
    [
        ("rokcet", 2, "did you mean rocket"),
        ("lantern", 2, "did you mean red-paper-lantern"),
        ("windmil", 1, "did you mean windmill"),
        ("fox", 1, r"version 1, got 'fox'"),
        ("zzzz", 2, "they are snowman, rocket"),
    ],
)
def test_an_unknown_name_is_offered_the_nearest(name, world, says):
    with pytest.raises(UserError, match=says):
        learnable.find(name, world)


def test_a_style_is_no_thing():
    with pytest.raises(UserError, match="got 'neon'"):
        learnable.find("neon", 2, things_alone=True)
    assert learnable.find("red paper lantern", 2).name == "red-paper-lantern"


def test_the_demo_of_a_thing_of_the_second_world(wide_model, tmp_path, capsys, monkeypatch):
    pytest.importorskip("skia")
    short = {"max_train_steps": 2, "num_evaluation_samples": 4, "train_batch_size": 1}
    monkeypatch.setattr(demo, "InversionConfig", partial(InversionConfig, **short))
    folder, scores = tmp_path / "demo", tmp_path / "scores.json"
    command = ["demo", "--model", wide_model, "--output-dir", str(folder), "--json", str(scores),
               "--num-images-per-prompt", "1"]  # fmt: skip
    assert main([*command, "--thing", "foxx"]) != 0
    assert "did you mean fox" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--thing", "fox", "--concept", "parrot"]) != 0
    assert "got --concept and --thing" in " ".join(capsys.readouterr().err.split())
    assert not folder.exists() or not list(folder.rglob("*.png"))
    assert main([*command, "--thing", "fox"]) == 0
    record = json.loads((folder / "run" / "config.json").read_text())
    assert (record["config"]["model"]["model"], record["world"]) == (wide_model, 2)
    assert "--thing fox --model" in (folder / "report.html").read_text()
    assert json.loads(scores.read_text())["words"]["concept"] == "S*"


def test_a_model_that_is_not_embedded_is_refused(tmp_path, capsys):
    assert main(["demo", "--model", str(tmp_path), "--output-dir", str(tmp_path / "x")]) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "The demo's model must be microworld or microworld-nano, or the folder of one" in told
