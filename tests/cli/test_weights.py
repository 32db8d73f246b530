"""Setups that change weights, from the command line to stock files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import tiny
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.deltas import WEIGHT


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def test_dreambooth_is_trained_drawn_with_inspected_and_converted(
    photos, tiny_folder, tmp_path, capsys
):
    run, model = tmp_path / "run", ["--model", str(tiny_folder)]
    training = [
        "train", "--setup", "lora-dreambooth", *model, "--train-data-dir", str(photos),
        "--output-dir", str(run), "--initializer-token", "cat", "--rank", "3",
        "--max-train-steps", "4", "--train-batch-size", "2", "--evaluation-steps", "2",
        "--num-evaluation-samples", "4", "--validation-steps", "0", "--num-class-images", "2",
    ]  # fmt: skip
    assert main(training) == 0
    out, err = capsys.readouterr()
    assert "To draw with it" in out
    assert "lora-dreambooth: 4 steps of 2 samples" in err
    assert "It also changes the model" in (run / "report.html").read_text()

    drawing = ["generate", *model, "--num-inference-steps", "2", "--num-images-per-prompt", "1"]
    plain, with_it = tmp_path / "plain", tmp_path / "with"
    assert main([*drawing, "--prompts", "a dog", "--output-dir", str(plain)]) == 0
    assert main([*drawing, "--concepts", str(run), "--prompts", "a dog", "a S*",
                 "--output-dir", str(with_it)]) == 0  # fmt: skip
    pictures = [np.asarray(Image.open(f / "000-a-dog-seed0.png")) for f in (plain, with_it)]
    assert not np.array_equal(*pictures)  # weights change every prompt

    assert main(["concept", "inspect", str(run), "--json", str(tmp_path / "facts.json")]) == 0
    (facts,) = json.loads((tmp_path / "facts.json").read_text())
    assert facts["weight_deltas"]["parts"] == ["unet"]
    assert facts["stands_for"].endswith(" cat")
    assert facts["tuning"]["tuned_weights"] == "lora"
    shared = tmp_path / "shared"
    converted = ["concept", "convert", str(run), "--to", "diffusers", "--output-dir", str(shared)]
    assert main(converted) == 0
    lora = safetensors.torch.load_file(shared / "S_lora.safetensors")
    assert {len(t) for name, t in lora.items() if "lora_A" in name} == {3}
    assert list(safetensors.torch.load_file(shared / "S.safetensors")) == ["s*"]
    capsys.readouterr()
    assert main(["concept", "convert", str(run), "--to", "a1111"]) == 2
    assert "because it cannot hold its" in capsys.readouterr().err


def test_a_rare_token_that_nobody_knows_leaves_no_folder(photos, tiny_folder, tmp_path, capsys):
    arguments = [
        "train", "--setup", "custom-diffusion", "--model", str(tiny_folder), "--train-data-dir",
        str(photos), "--output-dir", str(tmp_path / "run"), "--rare-token", "xqzwkj",
    ]  # fmt: skip
    assert main(arguments) == 2
    assert "must be known to the model's tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_evaluate_tells_how_far_other_prompts_have_drifted(
    photos, tiny_folder, tiny_sd, tmp_path, capsys
):
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    concept = Concept(
        placeholder_token="S*",
        rows={"clip": tiny_sd.vocabularies["clip"].rows_of("cat")},
        deltas={key + WEIGHT: torch.ones(8, 32)},
        provenance={"initializer_token": "cat"},
    )
    formats.save_concept(concept, tmp_path / "word.safetensors")
    tiny.parts.judge(32).save_pretrained(tmp_path / "judge")
    tiny.tokenizers.tokenizer().save_pretrained(tmp_path / "judge")
    command = [
        "evaluate", "--concept", str(tmp_path / "word.safetensors"), "--train-data-dir",
        str(photos), "--model", str(tiny_folder), "--judge", str(tmp_path / "judge"),
        "--num-images-per-prompt", "1", "--num-inference-steps", "1", "--prompts", "a red S*",
        "--output-dir", str(tmp_path / "scores"),
    ]  # fmt: skip
    assert main(command) == 0
    drift = json.loads((tmp_path / "scores" / "scores.json").read_text())["drift"]
    assert len(drift["by_prompt"]) == 4
    assert drift["pixel_change"] > 0
    assert "This word also changes the model's weights" in capsys.readouterr().out
    assert "What else has changed" in (tmp_path / "scores" / "report.html").read_text()
