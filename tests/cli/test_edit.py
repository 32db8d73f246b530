"""``oneword edit``: its files, and what it says of mistakes."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import png_texts
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture, its masks, and a file with ``<a>``, for microworld-nano."""
    folder = tmp_path_factory.mktemp("edit")
    backbone = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    side = backbone.resolution
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "picture.png")
    Image.fromarray(noise[: side - 8]).save(folder / "small.png")
    mask = np.zeros((side, side), dtype=np.uint8)
    Image.fromarray(mask).save(folder / "empty.png")
    mask[side // 4 : side // 2, side // 4 : -side // 8] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[: side // 2]).save(folder / "flat.png")
    ((name, vocabulary),) = backbone.vocabularies.items()
    concept = Concept(placeholder_token="<a>", rows={name: vocabulary.rows_of("cat")})
    formats.save_concept(concept, folder / "a.safetensors")
    return folder


@pytest.fixture
def edit(folder, tmp_path):
    def run(picture, prompt, *arguments):
        return main([
            "edit", str(folder / picture), "--prompt", prompt, "--model", "microworld-nano",
            "--num-inference-steps", "2", "--output-dir", str(tmp_path / "out"),
            "--json", str(tmp_path / "all.json"), *map(str, arguments),
        ])  # fmt: skip

    return run


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_what_is_outside_the_mask_is_the_pictures_own(edit, folder, tmp_path, capsys):
    arguments = "--concepts", folder / "a.safetensors", "--mask", folder / "mask.png"
    assert edit("picture.png", "a photo of a <a>", *arguments, "--keep", "2") == 0
    out = capsys.readouterr().out
    assert "2 edits in" in out
    assert "contact-sheet.png" in out
    found = json.loads((tmp_path / "all.json").read_text())
    scores = [float(f["score"]) for f in found]
    assert len(found) == 2
    assert scores == sorted(scores, reverse=True)
    outside = np.asarray(Image.open(folder / "mask.png")) == 0
    before = pixels(folder / "picture.png")
    for file in found:
        assert (file["prompt"], file["background"]) == ("a photo of a <a>", "paste")
        after = pixels(file["file"])
        assert np.array_equal(after[outside], before[outside])
        assert not np.array_equal(after[~outside], before[~outside])


def test_an_empty_mask_gives_the_picture_back_and_says_so(edit, folder, tmp_path, capsys):
    assert edit("picture.png", "a cat", "--mask", folder / "empty.png", "--keep", "1") == 0
    assert "The mask is empty, so the picture comes back unchanged" in capsys.readouterr().err
    (found,) = json.loads((tmp_path / "all.json").read_text())
    assert np.array_equal(pixels(found["file"]), pixels(folder / "picture.png"))


def test_an_inverted_picture_has_one_edit_and_strength_as_many_as_asked(edit, tmp_path):
    assert edit("picture.png", "a dog", "--invert", "a cat") == 0
    (found,) = json.loads((tmp_path / "all.json").read_text())
    assert found["invert"] == "a cat"
    assert edit("picture.png", "a dog", "--strength", "0.5", "--num-images-per-prompt", "3") == 0
    found = json.loads((tmp_path / "all.json").read_text())
    assert [f["seed"] for f in found] == ["0", "1", "2"]
    assert {f["strength"] for f in found} == {"0.5"}


@pytest.mark.parametrize(
    ("picture", "prompt", "arguments", "message"),
    [
        ("picture.png", "a cat", [], "without --mask, --strength below 1 or --invert"),
        ("picture.png", "a cat", ["--mask", "flat.png"], "A mask must have its picture's aspect"),
        ("small.png", "a cat", ["--strength", "0.5"], "at least as large as what the model draws"),
        ("picture.png", "a cat", ["--strength", "1.5"], "strength must be in (0, 1], got 1.5"),
        ("picture.png", "a cat", ["--mask", "none.png"], "none.png"),
        ("picture.png", "a cat", ["--mask", "mask.png", "--invert", "a dog"], "leave one of them"),
        ("picture.png", "a cat", ["--mask", "mask.png", "--concepts", "a.safetensors"],
         "must contain the placeholder '<a>'"),
        ("picture.png", "a cat", ["--mask", "mask.png", "--negative-prompt", "a <b>"], "<b>"),
        ("picture.png", "a cat", ["--mask", "mask.png", "--keep", "9"], "keep must be in 1..4"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(edit, folder, picture, prompt, arguments, message, capsys):
    given = [folder / a if "." in a and not a[0].isdigit() else a for a in arguments]
    assert edit(picture, prompt, *given) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert message in told
    assert "Traceback" not in told


def test_how_picture_and_edit_are_blended_is_kept_with_the_edit(edit, folder, tmp_path):
    options = "--mask", folder / "mask.png", "--background", "poisson", "--pixel-blending", "0.5"
    assert edit("picture.png", "a cat", *options, "--num-images-per-prompt", "1") == 0
    (found,) = json.loads((tmp_path / "all.json").read_text())
    assert (found["background"], found["pixel_blending"]) == ("poisson", "0.5")


@pytest.mark.parametrize(
    ("words", "starts"),
    [
        (["--concepts", "a.safetensors", "--mask", "mask.png", "--background", "blend"], True),
        (["--strength", "0.5", "--negative-prompt", "a dog"], False),
        (["--invert", "a dog"], False),
    ],
)
def test_an_edit_says_what_made_it_and_its_command_makes_it_again(
    words, starts, edit, folder, tmp_path, capsys
):
    words = [str(folder / w) if w.endswith(("png", "safetensors")) else w for w in words]
    prompt = "a photo of a <a>" if starts else "a photo of a cat"
    assert edit("picture.png", prompt, *words, "--num-images-per-prompt", "2") == 0
    file = json.loads((tmp_path / "all.json").read_text())[-1]["file"]
    told = png_texts.read(Path(file))
    assert told["prompt"] == prompt
    assert told["parameters"].startswith("a photo of a ")
    assert f"Seed: {told['seed']}" in told["parameters"]
    assert told["picture_sha256"] == sha256(folder / "picture.png")
    assert ("mask_sha256" in told) == starts
    again = shlex.split(told["command"])
    assert again[:3] == ["oneword", "edit", str(folder / "picture.png")]
    assert main([*again[1:], "--output-dir", str(tmp_path / "again")]) == 0
    (same,) = (tmp_path / "again").glob("000-*.png")
    assert np.array_equal(pixels(same), pixels(file))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
