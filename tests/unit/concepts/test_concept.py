from __future__ import annotations

import pytest
import torch

from oneword.concepts import formats
from oneword.concepts.base import base_of
from oneword.concepts.concept import Concept, ConceptError, check_drawable, is_of_pair
from oneword.concepts.formats.names import family_of
from oneword.concepts.mixing import average, concatenated
from oneword.training.parts import rows_of_file
from oneword.vocabulary.inject import injected


def concept(**rows):
    return Concept(placeholder_token="S*", rows=rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "must have rows for a text encoder"),
        ({"clip": torch.zeros(3)}, r"\(num_vectors, dim\) matrix"),
        ({"clip": torch.zeros(1, 3, dtype=torch.long)}, "matrix of floats"),
        ({"clip": torch.zeros(0, 3)}, "matrix"),
        ({"clip": torch.full((1, 3), torch.nan)}, "must be finite"),
        ({"a": torch.zeros(1, 3), "b": torch.zeros(2, 3)}, "the same number of vectors"),
    ],
)
def test_a_concept_that_is_not_whole_is_refused(rows, message):
    with pytest.raises(ConceptError, match=message):
        concept(**rows)


def test_the_hash_depends_on_encoders_and_values_but_not_on_storage():
    rows = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    first = concept(clip=rows).sha256()
    assert concept(clip=rows.double().t().contiguous().t()).sha256() == first
    assert concept(clip_l=rows).sha256() != first
    assert concept(clip=rows + 1e-6).sha256() != first


def test_a_detached_concept_shares_nothing():
    rows = torch.ones(1, 4, dtype=torch.float64, requires_grad=True)
    own = concept(clip=rows).detached()
    assert own.rows["clip"].dtype == torch.float32
    assert not own.rows["clip"].requires_grad
    with torch.no_grad():
        rows.fill_(5.0)
    assert own.rows["clip"].eq(1).all()
    assert own.num_vectors == 1


def more(value=1.0, **fields):
    tensors = {"net/w": torch.full((2, 3, 4), value)}
    rows = {"clip": torch.ones(1, 4)}
    return Concept(placeholder_token="S*", rows=rows, kind="neti", tensors=tensors, **fields)


def test_the_hash_covers_the_tensors_of_a_kind():
    assert more().sha256() == more().sha256()
    assert len({more().sha256(), more(2.0).sha256(), concept(clip=torch.ones(1, 4)).sha256()}) == 3


def test_tensors_must_be_finite_floats_and_cannot_be_averaged():
    with pytest.raises(ConceptError, match="must be finite floats, got net/w"):
        more(torch.inf)
    for combine in (average, concatenated):
        with pytest.raises(ConceptError, match=r"of kind neti .* plain embeddings"):
            combine([more(), more()], "x")


# --- words of a CLIP that draws nothing


@pytest.mark.parametrize(
    ("key", "own"),
    [("clip_guide", True), ("clip_b32", True), ("clip_b16", True), ("clip_l", False),
     ("clip", False), ("clip_bert", False), ("bert", False)],
)  # fmt: skip
def test_a_clips_own_key_is_never_taken_for_another_encoders(key, own):
    word = concept(**{key: torch.ones(1, 4)})
    assert is_of_pair(key) is own
    assert [*word.fitted({"clip_h": 4}).rows] == [key if own else "clip_h"]
    if own:
        with pytest.raises(ConceptError, match="Cannot use the concept 'S\\*' here because"):
            check_drawable("S*", word.rows, {"clip_l": 4})
        check_drawable("S*", word.rows, {key: 4})
    else:
        check_drawable("S*", word.rows)


def test_tools_that_draw_refuse_a_clips_word_and_ours_keeps_it(tmp_path, tiny_sd):
    word = concept(clip_b8=torch.ones(1, tiny_sd.vocabularies["clip"].dim))
    for layout in formats.WRITERS:
        if layout != "oneword":
            with pytest.raises(ConceptError, match="a CLIP that cannot draw"):
                formats.save_concept(word, tmp_path / "word", layout)
    (path,) = formats.save_concept(word, tmp_path / "word.safetensors")
    assert formats.load_concept(path).sha256() == word.sha256()
    with pytest.raises(ConceptError, match="a CLIP that cannot draw"):
        base_of({path: [word]})
    with pytest.raises(ConceptError, match="a CLIP that cannot draw"), injected(tiny_sd, [word]):
        pass
    with pytest.raises(ConceptError, match="a CLIP that cannot draw"):
        rows_of_file(tiny_sd, path, 1)
    assert family_of({"clip_b8": 16}) == "a CLIP pair, which cannot draw"
