"""The base model, where none is named, is the one that the word's file names."""

from __future__ import annotations

import json

import pytest
import torch

import png_texts
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.base import base_of
from oneword.concepts.concept import Concept
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError, ModelError
from oneword.models.loading import load_backbone


def word(token="<a>", width=64, encoder="clip", **provenance):
    rows = {encoder: torch.randn(1, width, generator=torch.Generator().manual_seed(0))}
    return Concept(placeholder_token=token, rows=rows, provenance=provenance)


@pytest.fixture(scope="module")
def nano():
    backbone = load_backbone(ModelConfig(model="microworld-nano", device="cpu"))
    ((name, vocabulary),) = backbone.vocabularies.items()
    return name, vocabulary.dim


@pytest.fixture
def save(tmp_path, nano):
    def saved(name="a.safetensors", layout="oneword", token="<a>", **provenance):
        concept = word(token, nano[1], nano[0], **provenance)
        return formats.save_concept(concept, tmp_path / name, layout)[0]

    return saved


@pytest.fixture
def draw(tmp_path):
    def run(*arguments):
        return main(["generate", "--num-inference-steps", "1", "--num-images-per-prompt", "1",
                     "--output-dir", str(tmp_path / "out"), *map(str, arguments)])  # fmt: skip

    return run


def drawn_by(folder):
    return {png_texts.read(path)["model"] for path in folder.glob("0*.png")}


@pytest.mark.parametrize("layout", ["oneword", "a1111", "comfyui", "kohya"])
def test_a_word_is_drawn_on_the_model_that_it_names(layout, save, draw, tmp_path, capsys):
    ending = formats.WRITERS[layout][0]
    path = save(f"a{ending}", layout, base_model="microworld-nano")
    prompt = f"a {formats.load_concept(path).placeholder_token}"
    assert draw("--concepts", path, "--prompts", prompt) == 0
    err = capsys.readouterr().err
    assert f"Using the base model microworld-nano, named in {path}." in err
    assert drawn_by(tmp_path / "out") == {"microworld-nano"}


def test_a_model_that_is_named_is_taken_whatever_the_word_says(save, draw, tmp_path, capsys):
    path = save(base_model="someone/else")
    assert draw("--concepts", path, "--prompts", "a <a>", "--model", "microworld-nano") == 0
    assert "Using the base model" not in capsys.readouterr().err
    assert drawn_by(tmp_path / "out") == {"microworld-nano"}


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({}, "names none; its embeddings are for .*; pass --model"),
        ({"base_model": 3}, "because its file names none"),
        ({"base_model": " "}, "because its file names none"),
        ({"base_model": "v1-5-pruned"}, "Cannot find the model 'v1-5-pruned'"),
        ({"base_model": "/gone/model"}, "pass --model with its place"),
    ],
)  # fmt: skip
def test_a_file_that_names_none_says_what_to_type(provenance, message, tmp_path):
    concept = word(width=768, encoder="clip_l", **provenance)
    with pytest.raises(ConfigError, match=message):
        base_of({tmp_path / "a.pt": [concept]})


def test_a_hub_id_is_taken_as_it_is(tmp_path):
    words = {tmp_path / "a": [word(base_model="owner/name")], tmp_path / "b": []}
    assert base_of(words) == "owner/name"


@pytest.mark.parametrize("layout", ["diffusers", "onetrainer", "kohya", "a1111"])
def test_files_of_other_tools_that_name_none_are_one_sentence(layout, save, draw, capsys):
    path = save(f"a{formats.WRITERS[layout][0]}", layout)
    assert draw("--concepts", path, "--prompts", "a {}") == 2
    err = capsys.readouterr().err
    assert "because its file names none" in err
    assert "--model" in err
    assert "Traceback" not in err


def test_words_of_two_models_are_refused(save, draw, capsys):
    one = save("a.safetensors", base_model="microworld-nano")
    two = save("b.safetensors", token="<b>", base_model="microworld")
    assert draw("--concepts", one, two, "--prompts", "a <a> and a <b>") == 2
    err = capsys.readouterr().err
    assert f"{one}, learned on microworld-nano, and {two}, learned on microworld" in err


def test_without_a_word_it_is_microworld_and_nothing_is_said(draw, tmp_path, capsys):
    assert draw("--prompts", "a cat") == 0
    assert "Using the base model" not in capsys.readouterr().err
    assert drawn_by(tmp_path / "out") == {"microworld"}


def test_where_no_word_can_name_it_the_model_must_be_named():
    with pytest.raises(ModelError, match="Cannot tell the model with --model auto"):
        load_backbone(ModelConfig(model="auto"))


def test_a_description_of_another_tool_names_no_model(tmp_path, nano, save):
    import safetensors.torch

    for text in ("a cat", "[1]", json.dumps({"base_model": 3}), "{"):
        path = tmp_path / "other.safetensors"
        metadata = {"modelspec.description": text}
        safetensors.torch.save_file({"emb_params": torch.ones(1, nano[1])}, path, metadata)
        assert "base_model" not in formats.load_concept(path).provenance


def test_inspect_and_edit_take_the_same_model(save, tmp_path, capsys):
    path = save(base_model="microworld-nano")
    assert main(["concept", "inspect", str(path), "--nearest", "1"]) == 0
    out, err = capsys.readouterr()
    assert "Using the base model microworld-nano" in err
    assert "nearest" in out
