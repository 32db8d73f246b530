"""``oneword palavra``: maps, a word and what it finds, as a person types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in (("cat", (200, 40, 40)), ("dog", (40, 200, 40))):
        (folder / name).mkdir()
        for i in range(4):
            pixels = (rng.integers(-30, 30, (30, 24, 3)) + np.array(colour)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_from_pictures_of_classes_to_what_a_word_finds(judge_folder, photos, tmp_path, capsys):
    maps, word, told = tmp_path / "maps", tmp_path / "word", tmp_path / "told.json"
    train = ["palavra", "train", "--train-data-dir", str(photos), "--clip", str(judge_folder),
             "--epochs", "2", "--hidden", "16", "--output-dir", str(maps), "--device", "cpu",
             "--json", str(told)]  # fmt: skip
    assert main(train) == 0
    assert "2 epochs on 2 classes" in " ".join(capsys.readouterr().out.split())
    found = json.loads(told.read_text())
    assert (found["epochs"], found["classes"], len(found["history"])) == (2, 2, 1)

    learn = ["palavra", "word", "--train-data-dir", str(photos / "cat"), "--maps", str(maps),
             "--placeholder-token", "<my-cat>", "--initializer-token", "cat",
             "--output-dir", str(word), "--device", "cpu", "--json", str(told)]  # fmt: skip
    assert main(learn) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "The word <my-cat> was learned from 4 pictures in 30 steps" in out
    assert "Its embedding is for the CLIP clip_b8, which cannot draw" in out
    assert json.loads(told.read_text())["steps"] == 30

    look = ["palavra", "find", str(word), "--pictures", str(photos / "cat"),
            "--among", str(photos / "dog"), "--json", str(told), "--device", "cpu"]  # fmt: skip
    assert main(look) == 0
    assert "4 pictures, each ranked among 4 others" in capsys.readouterr().out
    found = json.loads(told.read_text())
    assert found["num_others"] == 4
    assert found["noun and word"]["prompt"] == "a photo of a cat <my-cat>"
    assert len(found["noun"]["ranks"]) == 4

    # whatever draws refuses the word
    for command in (
        ["generate", "--model", "microworld-nano", "--concepts", str(word), "--prompts",
         "a photo of a <my-cat>", "--output-dir", str(tmp_path / "drawn")],
        ["generate", "--model", "auto", "--concepts", str(word), "--prompts", "a <my-cat>"],
        ["concept", "convert", str(word), "--to", "a1111", "--output-dir", str(tmp_path / "a1111")],
        ["evaluate", "--concept", str(word), "--train-data-dir", str(photos / "cat"),
         "--output-dir", str(tmp_path / "scores")],
        ["train", "--model", "microworld-nano", "--train-data-dir", str(photos / "cat"),
         "--initializer-file", str(word), "--output-dir", str(tmp_path / "run")],
    ):  # fmt: skip
        assert main(command) == 2, command
        said = " ".join(capsys.readouterr().err.split())
        assert "because its embedding is for a CLIP that cannot draw (clip_b8)" in said, command
    assert main(["concept", "inspect", str(word)]) == 0
    assert "a CLIP pair, which cannot draw" in " ".join(capsys.readouterr().out.split())


def test_a_held_out_concept_is_drawn_and_looked_for(judge_folder, tmp_path, capsys):
    word = Concept(placeholder_token="<m>", rows={"clip_b8": torch.ones(1, 16)})
    formats.save_concept(word, tmp_path / "word.safetensors")
    command = ["palavra", "find", str(tmp_path / "word.safetensors"), "--clip", str(judge_folder),
               "--initializer-token", "mug", "--num-others", "3", "--device", "cpu"]  # fmt: skip
    assert main([*command, "--held-out", "gold-mug"]) == 0
    assert "5 pictures, each ranked among 3 others" in capsys.readouterr().out
    assert main([*command, "--held-out", "neon"]) == 2
    assert "it has no noun; pass a thing" in capsys.readouterr().err
    assert main([*command[:3], "--held-out", "gold-mug"]) == 2
    assert "must name its CLIP" in capsys.readouterr().err
