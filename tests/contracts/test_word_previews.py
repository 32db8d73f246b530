"""The preview beside a word's file: from the last one of training, kept when the file is copied."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import png_texts
from oneword.cli.main import main
from oneword.concepts import formats, previews
from oneword.concepts.concept import Concept
from oneword.images import contact_sheet, save_png
from oneword.runs.sheets import read_sheet
from oneword.runs.train import train


def pixels_of(path):
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def words_pictures(path):
    """Those of a preview without the initialiser's, as a sheet."""
    return contact_sheet(read_sheet(path).pictures).tobytes()


@pytest.mark.usefixtures("few_steps")
def test_training_ends_with_the_last_preview_beside_the_word(make, tmp_path):
    config = make(
        inversion={"max_train_steps": 4, "evaluation_steps": 2}, validation_steps=2,
        num_validation_images=1,
    )  # fmt: skip
    train(config)
    run = tmp_path / "run"
    beside = run / "learned_embeds.preview.png"
    assert pixels_of(beside) == words_pictures(run / "previews" / "step-000004.png")
    assert pixels_of(beside) != words_pictures(run / "previews" / "step-000002.png")
    assert png_texts.read(beside)["preview"] == "step-000004"
    assert formats.load_concept(run)  # the run folder is still that of one word
    assert main(["concept", "convert", str(run), "--to", "a1111", "--output-dir",
                 str(tmp_path / "out")]) == 0  # fmt: skip
    (word,) = (tmp_path / "out").glob("*.pt")
    assert pixels_of(word.with_name(f"{word.stem}.preview.png")) == pixels_of(beside)


def test_without_previews_there_is_none(make, tmp_path):
    train(make(inversion={"max_train_steps": 2, "evaluation_steps": 2}))
    assert not list((tmp_path / "run").glob("*.preview.png"))


@pytest.mark.usefixtures("few_steps")
def test_a_preview_of_before_training_is_not_the_words(make, tmp_path):
    train(make(
        inversion={"max_train_steps": 2, "evaluation_steps": 2}, validation_steps=5,
        num_validation_images=1,
    ))  # fmt: skip
    assert (tmp_path / "run" / "previews" / "step-000000.png").is_file()
    assert not list((tmp_path / "run").glob("*.preview.png"))


@pytest.mark.usefixtures("few_steps")
def test_a_persons_preview_in_the_run_folder_stays(make, tmp_path):
    config = make(
        inversion={"max_train_steps": 2, "evaluation_steps": 2}, validation_steps=2,
        num_validation_images=1,
    )  # fmt: skip
    train(config)
    run = tmp_path / "run"
    beside = run / "learned_embeds.preview.png"
    mine = Image.new("RGB", (16, 16), (1, 2, 3))
    save_png(mine, beside)
    (run / "learned_embeds.safetensors").unlink()
    train(config)  # writes what it owed
    assert (run / "learned_embeds.safetensors").is_file()
    assert pixels_of(beside) == mine.tobytes()
    beside.unlink()
    (run / "learned_embeds.safetensors").unlink()
    train(config)
    assert pixels_of(beside) == words_pictures(run / "previews" / "step-000002.png")


@pytest.fixture
def word(tmp_path):
    concept = Concept(placeholder_token="<a>", rows={"clip_l": torch.ones(1, 768)})
    path = formats.save_concept(concept, tmp_path / "a.safetensors")[0]
    save_png(Image.new("RGB", (16, 16), (9, 9, 9)), previews.beside(path))
    return path


def test_renaming_keeps_it_and_writes_over_nothing(word, tmp_path):
    new = tmp_path / "new" / "b.safetensors"
    new.parent.mkdir()
    previews.beside(new).write_bytes(b"not ours")
    assert main(["concept", "rename", str(word), "--placeholder-token", "<b>", "--output",
                 str(new)]) == 0  # fmt: skip
    assert previews.beside(new).read_bytes() == b"not ours"
    other = tmp_path / "other" / "c.safetensors"
    assert main(["concept", "rename", str(word), "--placeholder-token", "<c>", "--output",
                 str(other)]) == 0  # fmt: skip
    assert previews.beside(other).read_bytes() == previews.beside(word).read_bytes()


@pytest.mark.parametrize("damage", [b"", b"no picture", None])
def test_a_preview_that_is_none_is_left_behind(damage, word, tmp_path):
    beside = previews.beside(word)
    beside.unlink()
    if damage is None:
        beside.mkdir()
    else:
        beside.write_bytes(damage)
    assert main(["concept", "convert", str(word), "--to", "comfyui", "--output-dir",
                 str(tmp_path / "out")]) == 0  # fmt: skip
    assert not list((tmp_path / "out").glob("*.preview.png"))
    assert not previews.may_write(beside)


def test_one_of_several_words_takes_none(word, tmp_path):
    second = Concept(placeholder_token="<b>", rows={"clip_l": torch.zeros(1, 768) + 2})
    both = tmp_path / "both.safetensors"
    formats.save_concept([formats.load_concept(word), second], both)
    save_png(Image.new("RGB", (16, 16)), previews.beside(both))
    assert main(["concept", "extract", str(both), "--output-dir", str(tmp_path / "out")]) == 0
    assert not list((tmp_path / "out").glob("*.preview.png"))
