"""Facts about concept files, and the doubts that a person should hear."""

from __future__ import annotations

import pytest
import torch

import layouts
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.inspection import facts


def inspected(tmp_path, rows, vocabularies=None, **options):
    name = "clip" if vocabularies else "clip_l"
    path = tmp_path / "w.safetensors"
    formats.save_concept(Concept(placeholder_token="<w>", rows={name: rows}), path)
    file = formats.read(path)
    return facts(file, file.concepts[0], vocabularies, **options)


def test_the_facts_name_layout_family_and_norms(tmp_path):
    file = formats.read(layouts.write("sdxl", tmp_path))
    found = facts(file, file.concepts[0])
    assert (found["layout"], found["for"]) == ("by_encoder", "Stable Diffusion XL")
    assert found["text_encoders"] == {"clip_l": [2, 768], "clip_g": [2, 1280]}
    expected = layouts.R.norm(dim=1).tolist()
    assert found["row_norms"]["clip_l"] == pytest.approx(expected, abs=1e-4)
    assert found["warnings"] == []


def test_rows_that_were_never_trained_are_doubted_without_a_model(tmp_path):
    assert "all zeros" in inspected(tmp_path, torch.zeros(1, 8))["warnings"][0]
    equal = torch.ones(3, 8)
    assert "all 3 embeddings for clip_l are equal" in inspected(tmp_path, equal)["warnings"][0]


def test_rows_are_compared_with_the_vocabulary(tmp_path, tiny_sd):
    vocabulary = tiny_sd.vocabularies["clip"]
    cat = vocabulary.rows_of("cat")
    found = inspected(tmp_path, cat, tiny_sd.vocabularies, nearest=2)
    assert found["warnings"] == ["embedding 0 for clip is exactly the word 'cat</w>': untrained"]
    assert found["nearest"]["clip"][0][0][0] == "cat</w>"
    table = vocabulary.weight[: len(vocabulary.tokenizer)]
    median = float(table.norm(dim=1).median())
    assert found["vocabulary_median_norm"] == {"clip": pytest.approx(median, abs=1e-4)}
    learned = cat + 0.3 * cat.norm() * torch.nn.functional.normalize(torch.ones_like(cat))
    beside = inspected(tmp_path, torch.cat([cat, learned]), tiny_sd.vocabularies)
    assert "is exactly the word 'cat</w>'" in beside["warnings"][0]
    gap = float(torch.cdist(learned, table).min())
    assert beside["distances_to_nearest_words"] == {
        "clip": [0.0, pytest.approx(gap / median, abs=1e-4)]
    }
    assert gap > 0
    assert inspected(tmp_path, learned, tiny_sd.vocabularies)["warnings"] == []
    long = 20 * learned
    assert "times as long" in inspected(tmp_path, long, tiny_sd.vocabularies)["warnings"][0]


def test_a_model_without_the_encoder_is_said(tmp_path, tiny_sd):
    file = formats.read(layouts.write("sdxl", tmp_path))
    doubts = facts(file, file.concepts[0], tiny_sd.vocabularies)["warnings"]
    assert "the model has no text encoder clip_l of width 768" in doubts
