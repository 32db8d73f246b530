"""What the embedded models are: their tokenizer, and what they predict."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from oneword.catalog import FAMILIES
from oneword.cli.main import main
from oneword.config.model import EMBEDDED, ModelConfig
from oneword.microworld import weights
from oneword.microworld.making import models
from oneword.microworld.world import captions, held_out, scenes
from oneword.models.loading import load_backbone


ROOT = Path(__file__).parents[3]


def test_every_word_of_a_caption_is_one_token():
    tokens = models.tokenizer()
    for word in ("mug", "striped", "watercolor", "teapots", "moon", "professor"):
        known = word in " ".join(captions.vocabulary()).split()
        assert (len(tokens(word, add_special_tokens=False).input_ids) == 1) == known
    rng = np.random.default_rng(1)
    texts = [captions.caption(scenes.sample_scene(seed), rng) for seed in range(200)]
    texts += [prompt.text for prompt in captions.evaluation_prompts(100, seed=0)]
    texts += [text for c in held_out.HELD_OUT for text in (*c.captions_short, *c.captions_long)]
    for text in texts:
        ids = tokens(text, add_special_tokens=False).input_ids
        assert len(ids) == len(re.findall(r"\w+|[^\w\s]", text)), text


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_card_says_that_the_denoiser_predicts_v(name, capsys):
    assert main(["microworld", "card", "--model", name]) == 0
    card = json.loads(capsys.readouterr().out)
    backbone = load_backbone(ModelConfig(model=name, device="cpu"))
    assert card["prediction_type"] == backbone.noise.prediction_type == "v_prediction"
    assert weights.prediction_type(name) == FAMILIES["microworld"].prediction_type


@pytest.mark.parametrize("page", ["docs/explanation/microworld.md", "docs/explanation/study.md"])
def test_the_pages_say_so_too(page):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert re.search(r"predicts v, (not|`sqrt)", text)
    assert "in the noise's place" in text


def test_the_error_of_v_is_that_of_the_noise_by_what_is_left_of_the_picture():
    """The figures of microworld.md: 1.001 times at the cleanest time, 215 times at the noisiest."""
    noise = load_backbone(ModelConfig(model="microworld-nano", device="cpu")).noise
    alphas = noise.alphas_cumprod.double()
    x0, true, guess = torch.randn(3, 1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    for t in (0, 500, 999):
        at = torch.tensor([t])
        x_t = noise.add_noise(x0, true, at)
        signal, sigma = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        clean = (x_t - sigma * guess) / signal  # what the guessed noise says of the picture
        error = (noise.target(clean, guess, at) - noise.target(x0, true, at)).double().square()
        assert error.mean() == pytest.approx(
            float((guess - true).double().square().mean() / alphas[t]), rel=1e-3
        )
    assert (round(float(1 / alphas[0]), 3), round(float(1 / alphas[999]))) == (1.001, 215)
    page = (ROOT / "docs/explanation/microworld.md").read_text(encoding="utf-8")
    assert (
        "1.001 times as large at the cleanest time and 215 times as large at the\nnoisiest" in page
    )
