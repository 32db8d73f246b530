"""``oneword baseline``: pictures of the methods that the paper compares with."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from PIL import Image

from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.generation.guide import Guide
from oneword.models.unconditional import Layout, UNet
from oneword.vocabulary.vocabulary import initial_rows


QUICK = ["--num-inference-steps", "3", "--num-cutouts", "2"]


@pytest.fixture
def options(tiny_folder, guide_folder, judge_folder, tmp_path):
    return [
        "--model", str(tiny_folder), "--guide", str(guide_folder), "--judge", str(judge_folder),
        "--device", "cpu", "--output-dir", str(tmp_path / "out"), *QUICK,
    ]  # fmt: skip


def drawn(*words):
    return main(["baseline", "clip-diffusion", *map(str, words)])


def test_pictures_are_drawn_and_each_says_how_to_draw_it_again(options, tmp_path, capsys):
    Image.new("RGB", (40, 30), "orange").save(tmp_path / "start.png")
    listed = tmp_path / "pictures.json"
    start = ["--init-image", tmp_path / "start.png", "--skip", "200"]
    assert drawn("a cat on the beach", "a dog", *options, *start, "--seeds", "0-1",
                 "--json", listed) == 0  # fmt: skip
    told = capsys.readouterr()
    assert "4 pictures in" in told.out
    assert "Guide: " in told.err
    assert "(scores only, does not guide)" in told.err
    found = json.loads(listed.read_text())
    assert [one["seed"] for one in found] == ["0", "1", "0", "1"]
    assert (tmp_path / "out" / "contact-sheet.png").exists()
    picture = Image.open(found[3]["file"])
    assert picture.text["prompt"] == "a dog"
    assert picture.text["skip"] == "200"
    assert len(picture.text["init_image_sha256"]) == 64
    again = shlex.split(picture.text["command"])
    assert again[:4] == ["oneword", "baseline", "clip-diffusion", "a dog"]
    assert main([*again[1:], "--output-dir", str(tmp_path / "again")]) == 0
    (same,) = (tmp_path / "again").glob("*seed1.png")
    before, after = (list(Image.open(p).convert("RGB").tobytes()) for p in (found[3]["file"], same))
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 1  # a batch's rounding


def test_a_word_of_the_guide_is_drawn(options, guide_folder, judge_folder, tmp_path):
    guide = Guide.load(str(guide_folder), None, device=torch.device("cpu"), judge=str(judge_folder))
    rows = initial_rows(guide.vocabularies[guide.tower], "red cat", 1)
    word = Concept(placeholder_token="<mine>", rows={guide.tower: rows})
    path = tmp_path / "word.safetensors"
    formats.save_concept(word, path)
    assert drawn("a photo of a <mine>", *options, "--concepts", path) == 0
    assert drawn("a photo of a cat", *options, "--concepts", path) == 2


def test_a_checkpoint_of_pixels_draws(options, tmp_path, capsys):
    unet = UNet(Layout(channels=32, widths=(32, 32, 64), attends=(False, False, True)))
    torch.save(unet.state_dict(), tmp_path / "uncond.pt")
    checkpoint = ["--checkpoint", tmp_path / "uncond.pt"]
    for preset in ("hq", "plain"):
        assert drawn("a cat", *options, *checkpoint, "--preset", preset) == 0
    picture = Image.open(next((tmp_path / "out").glob("*seed0.png")))
    assert picture.size == (32, 32)
    assert picture.text["method"] == "clip-guided diffusion"
    torch.save(unet.state_dict() | {"ema": torch.zeros(1)}, tmp_path / "uncond.pt")
    assert drawn("a cat", *options, *checkpoint) == 2
    assert "unknown: ema." in capsys.readouterr().err


def test_the_judge_does_not_guide(options, judge_folder, capsys):
    same = ["--guide", judge_folder]
    assert drawn("a cat", *options, *same) == 2
    assert "as guide because it is also the judge" in capsys.readouterr().err
    assert drawn("a cat", *options, *same, "--allow-same-clip") == 0


def test_the_sub_verb_is_named(capsys):
    assert main(["baseline"]) == 2
    assert "clip-diffusion" in capsys.readouterr().out
    assert main(["baseline", "clip-difusion", "a cat"]) == 2
    assert "The sub-verb must be one of clip-diffusion" in capsys.readouterr().err
