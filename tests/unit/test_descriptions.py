"""Descriptions beside pictures: the file, and its limits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from oneword.images import read_folder
from oneword.microworld.world.held_out import HELD_OUT
from oneword.prompts.descriptions import DescriptionError, Descriptions, read, write


def texts(words):
    return tuple(" ".join(["word"] * words) for _ in range(5))


def test_a_round_trip(tmp_path):
    assert read(tmp_path) is None
    given = Descriptions(short=texts(12), long=texts(30))
    write(given, tmp_path)
    assert read(tmp_path) == given


@pytest.mark.parametrize(
    ("short", "long", "message"),
    [
        (texts(12)[:4], texts(3), "There must be 5 short captions of a thing, got 4"),
        (texts(12), (), "There must be 5 long captions of a thing, got 0"),
        (texts(13), texts(30), "A short caption must have 1 to 12 words, got 13 in"),
        (texts(12), texts(31), "A long caption must have 1 to 30 words, got 31 in"),
        ((*texts(3)[:4], " "), texts(3), "1 to 12 words, got 0"),
    ],
)
def test_the_limits_are_kept(short, long, message):
    with pytest.raises(DescriptionError, match=message):
        Descriptions(short=short, long=long)


@pytest.mark.parametrize("content", ["{", "[]", '{"short": 1, "long": []}', '{"short": [1]}'])
def test_another_file_of_that_name_is_refused(tmp_path, content):
    (tmp_path / "descriptions.json").write_text(content)
    with pytest.raises(DescriptionError, match="must be JSON such as"):
        read(tmp_path)
    (tmp_path / "descriptions.json").write_text(json.dumps({"short": [1] * 5, "long": [1] * 5}))
    with pytest.raises(DescriptionError, match=r"must be a string, got 1"):
        read(tmp_path)


def test_the_file_is_no_stray_among_the_pictures(tmp_path):
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "1.png")
    write(Descriptions(short=texts(2), long=texts(2)), tmp_path)
    assert read_folder(tmp_path, resolution=16).skipped == ()


def test_microworlds_own_descriptions_keep_the_limits():
    for concept in HELD_OUT:
        Descriptions(short=concept.captions_short, long=concept.captions_long)
