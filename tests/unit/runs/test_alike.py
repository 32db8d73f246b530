"""Pictures that are nearly the same are told from different ones of one thing."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import oneword
from oneword.images import read_folder
from oneword.runs import alike
from oneword.runs.remarks import remarks


PICTURES = Path(oneword.__file__).parent / "microworld" / "pictures"
THINGS = ("gold-mug", "parrot", "rocket-sticker", "snowman")


def jpeg(image, quality):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def cut(image, left, top, right, bottom):
    width, height = image.size
    return image.crop(
        (round(width * left), round(height * top), round(width * (1 - right)),
         round(height * (1 - bottom)))
    )  # fmt: skip


def scaled(image, factor):
    size = tuple(round(side * factor) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS)


COPIES = {
    "half": lambda image: scaled(image, 0.5),
    "a third": lambda image: scaled(image, 1 / 3),
    "double": lambda image: scaled(image, 2),
    "jpeg": lambda image: jpeg(image, 10),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "gamma": lambda image: image.point(lambda v: round(255 * (v / 255) ** 0.7)),
    "cut all round": lambda image: cut(image, 0.05, 0.05, 0.05, 0.05),
    "cut at the left": lambda image: cut(image, 0.1, 0, 0, 0),
    "cut at a corner": lambda image: cut(image, 0.08, 0.08, 0, 0),
    "cut unevenly": lambda image: cut(image, 0.03, 0.07, 0.05, 0.02),
    "several": lambda image: jpeg(
        ImageEnhance.Brightness(scaled(cut(image, 0.04, 0.02, 0.05, 0.04), 0.5)).enhance(1.2), 50
    ),
}


@pytest.fixture(scope="module")
def pictures():
    """Five pictures of each thing, all different."""
    return {
        name: [Image.open(path).convert("RGB") for path in sorted((PICTURES / name).glob("*.png"))]
        for name in THINGS
    }


@pytest.fixture(scope="module")
def prints(pictures):
    return {name: [alike.print_of(image) for image in own] for name, own in pictures.items()}


def test_different_pictures_of_one_thing_are_far_below_the_threshold(prints):
    found = [
        alike.likeness(one, other)
        for own in prints.values()
        for one, other in itertools.combinations(own, 2)
    ]
    assert len(found) == 40
    assert max(found) < 0.71 < alike.NEARLY_SAME


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_far_above_it(how, pictures, prints):
    for name in THINGS:
        for image, known in zip(pictures[name], prints[name], strict=True):
            copy = alike.print_of(COPIES[how](image))
            assert alike.likeness(known, copy) > 0.9 > alike.NEARLY_SAME, name


def test_pictures_of_one_colour_are_the_same_only_if_it_is_the_same():
    red, green = (Image.new("RGB", (40, 40), colour) for colour in ("#ff0000", "#00ff00"))
    assert alike.groups([red, green, red.copy()]) == [[0, 2]]


def test_copies_of_copies_are_one_group_and_large_sets_are_not_compared(pictures):
    first, second, *_ = pictures["parrot"]
    given = [first, second, jpeg(first, 30), scaled(first, 0.5), scaled(second, 0.5)]
    assert alike.groups(given) == [[0, 2, 3], [1, 4]]
    assert alike.groups([first] * 101) == []


def test_a_set_s_remarks_name_its_pictures(pictures, tmp_path):
    one, other, *_ = pictures["snowman"]
    one.save(tmp_path / "a.png")
    other.save(tmp_path / "b.png")
    jpeg(scaled(one, 0.7), 60).save(tmp_path / "c.jpg")
    found = read_folder(tmp_path, resolution=128)
    assert remarks(found, 128) == [
        "Too small, will look blurred: c.jpg.",
        "Near-duplicates: a.png, c.jpg; keep only one of them.",
    ]
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    (tmp_path / "c.jpg").unlink()
    buckets = read_folder(tmp_path, resolution=128, fit="buckets", bucket_step=32)
    assert buckets.sizes is not None
    assert remarks(buckets, 128) == []
