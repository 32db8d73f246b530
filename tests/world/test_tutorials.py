"""The tutorials do what they say, command by command, on small models and with few steps."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import blocks
from oneword.cli.main import main
from oneword.concepts import formats


TUTORIALS = blocks.ROOT / "docs" / "tutorials"
NANO = "microworld-nano"
TRAINING = ["--max-train-steps", "2", "--num-evaluation-samples", "2", "--train-batch-size", "2"]
DRAWING = ["--num-inference-steps", "2"]


def small(words, model, judge):
    """A command with what makes it quick; of an option that is given twice the last counts."""
    match words[0]:
        case "train" | "compose":
            saved = ["--save-steps", "2", "--num-validation-images", "1"]
            previews = saved if "--save-steps" in words else ["--validation-steps", "0"]
            return [*words, "--model", model, *TRAINING, *(previews if words[0] == "train" else [])]
        case "generate":
            few = ["--num-images-per-prompt", "1"]
            return [*words, *DRAWING, *(["--judge", judge] if "--keep" in words else few)]
        case "choose":
            step = ["--step", "2"] if "--step" in words else []
            return [*words, *step, *DRAWING]
    return words


def follow(page, model=NANO, judge=""):
    """Type what a page says: its Python, then its commands, but those that open the page."""
    for code in blocks.code(TUTORIALS / page, "python"):
        exec(code, {})
    for words in blocks.commands(TUTORIALS / page):
        for_this_model = model != NANO or "stable-diffusion" not in " ".join(words)
        if words[0] != "web" and for_this_model:
            assert main(small(words, model, judge)) == 0, words


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sheets(*folders):
    return [Path(folder, "contact-sheet.png").is_file() for folder in folders]


def test_a_sticker():
    follow("sticker.md")
    assert Image.open("sticker/mug.png").getextrema()[3] == (0, 255)
    assert Path("my-sticker-pictures.png").is_file()
    assert sheets("stickers") == [True]
    assert len([*Path("stickers").glob("*-seed*.png")]) == 3


def test_a_style():
    follow("first-word.md")
    assert Path("for-comfyui/my-mug.safetensors").is_file()
    follow("style.md")
    assert formats.load_concept("neon").learnable_property == "style"
    assert formats.load_concept("neon").num_vectors == 3
    assert Path("style-pictures/sheet-neon.png").is_file()
    assert sheets("neon-drawn", "mug-in-neon") == [True, True]


def test_two_words():
    follow("two-words.md")
    assert len(formats.load_all(Path("pair"))) == 2
    assert sheets("apart") == [True]
    assert Path("together/gallery.html").is_file()


def test_the_pages_pictures():
    follow("page.md")
    assert len([*Path("mug-pictures").iterdir()]) >= 5


def test_photographs_on_stable_diffusion(tiny_folder, judge_folder, capsys):
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for name in "abc":
        noise = Image.fromarray(rng.integers(0, 255, (6, 9, 3), dtype=np.uint8))
        noise.resize((90, 60)).save(f"photos/{name}.jpg")
    follow("photographs.md", str(tiny_folder), str(judge_folder))
    assert Path("my-cat-pictures.png").is_file()
    assert Path("my-cat/steps.png").is_file()
    assert formats.load_concept("my-cat").provenance["chosen"]
    assert sheets("drawn", "drawn/dropped") == [True, True]
    assert [*Path("for-a1111").glob("*.pt")]


# --- the notebook


def test_the_notebook_runs_and_holds_no_outputs():
    cells = json.loads((TUTORIALS / "first-word.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
    first = code[0].replace('MODEL = "microworld"', f'MODEL = "{NANO}"')
    first = first.replace("STEPS = None", "STEPS = 2")
    assert first.count(NANO) == first.count("STEPS = 2") == 1
    names: dict[str, object] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in [first, *code[1:]]:
            exec(cell, names)
    assert Path("my-mug.safetensors").is_file()
    assert formats.load_concept(Path("my-mug.safetensors")).placeholder_token == "<my-mug>"
