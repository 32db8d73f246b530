"""``oneword baseline vqgan-clip``: pictures, what they say of themselves, and what is refused."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from PIL import Image

from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.images import save_png, to_images


@pytest.fixture
def fewest(judge_folder):
    """Options of a quick drawing, by a CLIP with random weights."""
    return ["--model", "microworld-nano", "--guide", str(judge_folder), "--steps", "2",
            "--num-cutouts", "2"]  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    pixels = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for number, image in enumerate(to_images(pixels)):
        save_png(image, tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


def run(*words):
    return main(["baseline", "vqgan-clip", *map(str, words)])


def test_pictures_say_how_they_were_made_and_are_made_again(fewest, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    listed = tmp_path / "list.json"
    given = ["a photo of a mug", *fewest, "--pictures", pictures, "--image-share", 0.75]
    assert run(*given, "--preset", "nerdyrodent", "--seeds", "3-4", "--output-dir", out,
               "--json", listed) == 0  # fmt: skip
    told = capsys.readouterr()
    assert "Drawn by VQ on the landed VAE of microworld-nano (k-means, ours), guided by" in told.err
    assert "guide loss" in told.out
    found = json.loads(listed.read_text())
    assert [facts["seed"] for facts in found] == ["3", "4"]
    assert (out / "contact-sheet.png").is_file()
    file = Image.open(found[1]["file"])
    assert file.size == (64, 64)
    text = file.text
    assert text["preset"] == "nerdyrodent"
    assert text["image_share"] == "0.75"
    assert text["target_pictures"] == "3"
    assert text["cutouts"] == "augmented"
    command = shlex.split(text["command"])
    assert command[:3] == ["oneword", "baseline", "vqgan-clip"]
    assert main([*command[1:], "--output-dir", str(tmp_path / "again")]) == 0
    (again,) = (tmp_path / "again").glob("*seed4.png")
    assert Image.open(again).tobytes() == file.tobytes()


def test_a_word_of_the_guide_fills_prompts(fewest, tmp_path):
    word = Concept(placeholder_token="S*", rows={"clip_b8": torch.ones(1, 16)})
    formats.save_concept(word, tmp_path / "word.safetensors")
    out = tmp_path / "out"
    assert run("a photo of a {}", *fewest, "--concepts", tmp_path / "word.safetensors",
               "--output-dir", out) == 0  # fmt: skip
    (file,) = out.glob("*-seed0.png")
    assert Image.open(file).text["prompt"] == "a photo of a S*"


def test_a_picture_is_drawn_over(fewest, pictures, tmp_path):
    out = tmp_path / "out"
    assert run("a mug", *fewest, "--init-image", pictures / "0.png", "--output-dir", out) == 0
    (file,) = out.glob("*-seed0.png")
    assert Image.open(file).text["start"] == "a picture"
    assert len(Image.open(file).text["init_image_sha256"]) == 64


def test_the_embedded_models_own_guide_guides(tmp_path):
    few = ["--model", "microworld-nano", "--steps", "1", "--num-cutouts", "1"]
    assert run("a photo of a mug", *few, "--output-dir", tmp_path / "out") == 0
    (file,) = (tmp_path / "out").glob("*-seed0.png")
    assert Image.open(file).text["guide"] == "microworld's guide"
    assert Image.open(file).text["cutouts"] == "48 to 64 px"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "prompts must name a prompt, got none"),
        (["a mug", "--pictures", "{tmp}/empty"], "must contain at least one picture, got none"),
        (["a mug", "--pictures", "{tmp}/nowhere"], "must be in a folder, got"),
        (["a mug", "--image-share", "0.3"], "without pictures; pass --pictures"),
        (["a mug", "--judge", "{guide}"], "as guide because it is also the judge"),
        (["a mug", "--resolution", "60"], "resolution must be a multiple of 8 px"),
        (["a mug", "--checkpoint", "{tmp}/none.ckpt"], "none.ckpt, which does not exist"),
        (["a mug", "--checkpoint", "{tmp}/other.ckpt"], "lacks the tensor quantize.embedding.w"),
        (["a mug:0"], "The weight of a text must be finite and not 0"),
        (["a photo of a {}"], "must be filled with a word"),
        (["a mug", "--guide", "{tmp}/empty"], "The guide must be a CLIP"),
    ],
)
def test_what_cannot_be_drawn_is_refused(words, message, fewest, judge_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    torch.save({"encoder.conv_in.weight": torch.zeros(1)}, tmp_path / "other.ckpt")
    places = {"{tmp}": str(tmp_path), "{guide}": str(judge_folder)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    given = [w for w in fewest if "--guide" not in words or w not in ("--guide", str(judge_folder))]
    assert run(*words, *given, "--output-dir", tmp_path / "out") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_the_same_clip_may_guide_and_judge_where_that_is_asked_for(fewest, judge_folder, tmp_path):
    more = ["--judge", judge_folder, "--allow-same-clip", "--output-dir", tmp_path / "out"]
    assert run("a mug", *fewest, *more) == 0
