"""Whose CLIP guides and judges."""

from __future__ import annotations

import pytest

from oneword.config.model import is_embedded
from oneword.models import clip_pairs


@pytest.mark.parametrize(
    ("name", "model", "source"),
    [
        (None, None, clip_pairs.DEFAULT_GUIDE),  # a baseline that draws by itself
        (None, "some/model", clip_pairs.DEFAULT_GUIDE),
        ("some/clip", "microworld", "some/clip"),
    ],
)
def test_the_guide_is_the_named_one_or_clips(name, model, source):
    assert clip_pairs.guide_source(name, model) == source


def test_no_model_is_no_embedded_one():
    assert not is_embedded(None)
