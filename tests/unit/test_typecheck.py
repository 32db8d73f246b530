"""The checks of annotations that all tests run under are there."""

from __future__ import annotations

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from oneword.images import to_images
from oneword.microworld.world import captions


def test_a_wrong_shape_is_an_error():
    with pytest.raises(TypeCheckError, match="pixels"):
        to_images(torch.zeros(1, 4, 8, 8))


def test_a_wrong_type_is_an_error_where_there_are_no_shapes():
    with pytest.raises(BeartypeCallHintParamViolation, match="noun"):
        captions.plural(3)
