"""The checks of annotations that all tests run under are there."""

from __future__ import annotations

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from oneword.images import caption_file, to_images
from oneword.microworld.world import captions
from oneword.study.work import write_gallery


def test_a_wrong_shape_is_an_error():
    with pytest.raises(TypeCheckError, match="pixels"):
        to_images(torch.zeros(1, 4, 8, 8))


def test_a_wrong_type_is_an_error_where_there_are_no_shapes():
    with pytest.raises(BeartypeCallHintParamViolation, match="noun"):
        captions.plural(3)


def test_functions_without_shapes_are_checked_beside_those_with_them():
    with pytest.raises(BeartypeCallHintParamViolation, match="picture"):
        caption_file("a.png")


def test_a_shape_is_found_within_other_types(tmp_path):
    with pytest.raises(TypeCheckError, match="rows"):
        write_gallery(tmp_path / "gallery.png", [torch.zeros(2, 2)])
