"""``oneword train`` on large photographs, as a camera leaves them, on three families."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from oneword.cli.main import main
from oneword.concepts import formats


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three JPEGs of six megapixels, one of them turned by its EXIF, with a mask and captions."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i, name in enumerate(("IMG_1.JPG", "IMG_2.JPG", "IMG_3.JPG")):
        small = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((3000, 2000), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 1 else 1
        exif[0x010F] = "A camera"
        picture.save(folder / name, quality=90, exif=exif)
    mask = Image.new("L", (3000, 2000))
    mask.paste(255, (1000, 500, 2000, 1500))
    mask.save(folder / "IMG_1.mask.png")
    texts = ("a photo of a <thing>", "on the beach", "a <thing> on the moon")
    lines = [{"file_name": f"IMG_{i}.JPG", "text": text} for i, text in enumerate(texts, 1)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.mark.parametrize("family", ["stable_diffusion", "sdxl", "flux"])
def test_photographs_are_learned_and_drawn(photographs, tmp_path, family, capsys):
    model = str(tiny.save(tiny.make(family), tmp_path / "model"))
    train = [
        "train", "--train-data-dir", str(photographs), "--model", model, "--device", "cpu",
        "--output-dir", str(tmp_path / "run"), "--placeholder-token", "<thing>",
        "--initializer-token", "cat", "--resolution", "64", "--max-train-steps", "2",
        "--train-batch-size", "2", "--num-evaluation-samples", "2", "--validation-steps", "0",
        "--no-flip",
    ]  # fmt: skip
    assert main(train) == 2
    assert "got 'on the beach'; for captions, --prefix-captions" in capsys.readouterr().err
    assert main([*train, "--prefix-captions"]) == 0
    concept = formats.load_concept(tmp_path / "run")
    assert concept.provenance["config"]["random_flip"] is False
    expected = {"stable_diffusion": 1, "sdxl": 2, "flux": 2}[family]
    assert len(concept.rows) == expected
    draw = [
        "generate", "--model", model, "--device", "cpu", "--concepts", str(tmp_path / "run"),
        "--prompts", "a <thing> on the moon", "--num-inference-steps", "2", "--height", "64",
        "--width", "64", "--num-images-per-prompt", "1",
    ]  # fmt: skip
    assert main([*draw, "--output-dir", str(tmp_path / "a")]) == 0
    over = ["--image", str(photographs / "IMG_1.JPG"), "--strength", "0.6"]
    assert main([*draw, *over, "--output-dir", str(tmp_path / "b")]) == 0
    paint = [*over, "--mask-image", str(photographs / "IMG_1.mask.png")]
    assert main([*draw, *paint, "--output-dir", str(tmp_path / "c")]) == 0
    pictures = [np.asarray(Image.open(next((tmp_path / x).glob("*0*.png")))) for x in "abc"]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])
    assert torch.isfinite(torch.tensor([p.mean() for p in pictures])).all()


def test_a_mask_without_its_picture_is_refused(tmp_path, capsys):
    assert main(["generate", "--prompts", "x", "--mask-image", "m.png"]) == 2
    assert "Cannot use --mask-image without a picture" in capsys.readouterr().err
