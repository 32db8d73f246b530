from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from oneword import formats
from oneword.concept import Concept, ConceptError


@pytest.fixture
def concept():
    rows = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    return Concept(
        placeholder_token="<My-Cat>", rows={"clip": rows}, provenance={"steps": 3, "note": "π"}
    )


def test_a_round_trip_keeps_rows_spelling_and_provenance(concept, tmp_path):
    formats.save(concept, tmp_path / "c.safetensors")
    back = formats.load(tmp_path / "c.safetensors")
    assert torch.equal(back.rows["clip"], concept.rows["clip"])
    assert back.placeholder_token == "<My-Cat>"
    assert back.provenance == concept.provenance


def test_the_key_is_the_placeholder_in_lower_case(concept, tmp_path):
    formats.save(concept, tmp_path / "c.safetensors")
    tensors = load_file(tmp_path / "c.safetensors")
    assert list(tensors) == ["<my-cat>"]
    assert tensors["<my-cat>"].shape == (2, 8)


def test_several_encoders_are_keyed_by_their_names(tmp_path):
    rows = {"clip_l": torch.ones(1, 4), "t5xxl": torch.zeros(1, 6)}
    formats.save(Concept(placeholder_token="x", rows=rows), tmp_path / "c.safetensors")
    back = formats.load(tmp_path / "c.safetensors")
    assert {n: r.shape for n, r in back.rows.items()} == {n: r.shape for n, r in rows.items()}


def test_a_run_folder_and_another_name(concept, tmp_path):
    formats.save(concept, tmp_path / formats.LEARNED)
    assert formats.load(tmp_path).placeholder_token == "<My-Cat>"
    assert formats.load(tmp_path, "<b>").placeholder_token == "<b>"


def test_a_file_of_diffusers_is_read(tmp_path):
    save_file({"<toy>": torch.ones(768)}, tmp_path / "learned.safetensors")
    concept = formats.load(tmp_path / "learned.safetensors")
    assert concept.placeholder_token == "<toy>"
    assert concept.rows["clip_l"].shape == (1, 768)


def test_changed_rows_are_found(concept, tmp_path):
    path = tmp_path / "c.safetensors"
    formats.save(concept, path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConceptError, match="must match the file's SHA-256"):
        formats.load(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "must exist"),
        (lambda p: p.write_text("no embedding"), "must be an embedding"),
        (lambda p: save_file({"a": torch.ones(1), "b": torch.ones(1)}, p), "must be an embedding"),
        (lambda p: save_file({"a": torch.ones(1, 2, 3)}, p), "must be an embedding"),
        (lambda p: p.mkdir(), "has its training finished"),
    ],
)
def test_what_is_no_concept_is_refused(tmp_path, make, message):
    path = tmp_path / "c.safetensors"
    make(path)
    with pytest.raises(formats.FormatError, match=message):
        formats.load(path)


def test_metadata_that_is_not_ours_does_no_harm(tmp_path):
    path = tmp_path / "c.safetensors"
    save_file({"s": torch.ones(1, 4)}, path, metadata={"oneword": json.dumps({"x": 1})})
    with pytest.raises(ConceptError, match="metadata"):
        formats.load(path)
