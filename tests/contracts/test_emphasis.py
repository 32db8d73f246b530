"""Weights in prompts, end to end, beside a drawing that is put together by hand."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import BatchEncoding

import png_texts
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.generation.generate import generate
from oneword.models.emphasis import Part, token_weights
from oneword.models.loading import load_backbone
from oneword.prompts import PromptError
from oneword.vocabulary.inject import injected
from oneword.vocabulary.vocabulary import Vocabulary


FEW = SamplingConfig(num_inference_steps=2, guidance_scale=3.0, sampler="model")


@pytest.fixture(scope="module")
def nano():
    return load_backbone(ModelConfig(model="microworld-nano", device="cpu"))


@pytest.fixture(scope="module")
def word(nano):
    """A word of three vectors."""
    ((name, vocabulary),) = nano.vocabularies.items()
    rows = torch.cat([vocabulary.rows_of(w)[:1] for w in ("red", "gold", "mug")])
    return Concept(placeholder_token="S*", rows={name: rows})


def by_hand(backbone, parts, negative, seed):
    """A picture of weighted parts: every part is tokenised alone, hidden states times weights."""
    pipeline = backbone.pipeline
    ((_, vocabulary),) = backbone.vocabularies.items()

    def states_of(parts):
        tokenizer, encoder = vocabulary.tokenizer, vocabulary.text_encoder
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for text, weight in parts:
            own = tokenizer(text, add_special_tokens=False).input_ids
            ids, weights = ids + own, weights + [weight] * len(own)
        ids, weights = [*ids, tokenizer.eos_token_id], [*weights, 1.0]
        rest = tokenizer.model_max_length - len(ids)
        ids, weights = ids + [tokenizer.pad_token_id] * rest, weights + [1.0] * rest
        states = encoder(torch.tensor([ids]))[0]
        changed = states * torch.tensor(weights)[None, :, None]
        return changed * (states.mean() / changed.mean())

    size = backbone.resolution // backbone.autoencoder.factor
    shape = (1, backbone.autoencoder.channels, size, size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        positive, negative = states_of(parts), states_of(negative)
        latents = pipeline(
            prompt_embeds=positive, negative_prompt_embeds=negative, latents=noise,
            num_inference_steps=2, guidance_scale=3.0, output_type="latent",
        ).images  # fmt: skip
        return backbone.decode_latents(latents)


@pytest.mark.parametrize(
    ("prompt", "emphasis", "parts", "negative", "away"),
    [
        ("a (S*:1.5) on the (moon:0.6)", "numbers",
         [("a", 1), ("S*", 1.5), ("on the", 1), ("moon", 0.6)], "", []),
        ("a ((red) S*:1.2), [cat]", "a1111",
         [("a", 1), ("red", 1.32), ("S*", 1.2), (",", 1), ("cat", 1 / 1.1)], "", []),
        ("a mug", "numbers", [("a mug", 1)], "a (S*:1.8) cat", [("a", 1), ("S*", 1.8), ("cat", 1)]),
    ],
)  # fmt: skip
def test_a_weighted_drawing_is_the_one_made_by_hand(
    prompt, emphasis, parts, negative, away, nano, word
):
    sampling = SamplingConfig(
        num_inference_steps=2, guidance_scale=3.0, emphasis=emphasis, negative_prompt=negative
    )
    drawn = generate(nano, [prompt], [3], concepts=[word], sampling=sampling).pixels
    with injected(nano, [word]):
        expected = by_hand(nano, parts, away, 3)
    assert torch.allclose(drawn, expected, atol=1e-4)
    letters = SamplingConfig(
        num_inference_steps=2, guidance_scale=3.0, emphasis="none", negative_prompt=negative
    )
    other = generate(nano, [prompt], [3], concepts=[word], sampling=letters).pixels
    assert not torch.allclose(drawn, other, atol=1e-2)


def test_prompts_without_weights_keep_their_bits_beside_those_with_them(nano):
    plain = ["a (red) [mug]", "a cat: on the moon)", "a mug"]
    letters = SamplingConfig(num_inference_steps=2, emphasis="none")
    alone = nano.draw(plain, [1, 2, 3], letters)
    assert torch.equal(nano.draw(plain, [1, 2, 3], SamplingConfig(num_inference_steps=2)), alone)
    mixed = nano.draw([*plain, "a (mug:1.4)"], [1, 2, 3, 3], SamplingConfig(num_inference_steps=2))
    assert torch.allclose(mixed[:3], alone, atol=1e-5)
    assert not torch.allclose(mixed[3], mixed[2], atol=1e-3)
    assert "encode_prompt" not in vars(nano.pipeline)


def test_both_encoders_of_sdxl_are_weighted_and_its_pooled_prompt_is_not(folders):
    sdxl = load_backbone(ModelConfig(model=str(folders["sdxl"]), device="cpu"))
    plain = sdxl.encode_prompt(["a big cat"])
    with sdxl.weighing(FEW):
        found = sdxl.encode_prompt(["a (big:1.5) cat"])
    assert torch.equal(found.pooled, plain.pooled)
    encoders = list(sdxl.vocabularies.values())
    widths = [encoder.text_encoder.config.hidden_size for encoder in encoders]
    before = plain.encoder_hidden_states.split(widths, -1)
    after = found.encoder_hidden_states.split(widths, -1)
    for encoder, one, other in zip(encoders, before, after, strict=True):
        count = {
            t: len(encoder.tokenizer(t, add_special_tokens=False).input_ids) for t in ("a", "big")
        }
        weights = torch.ones(1, one.shape[1], 1)
        weights[:, 1 + count["a"] : 1 + count["a"] + count["big"]] = 1.5
        expected = one * weights
        expected *= one.mean() / expected.mean()
        assert torch.allclose(other, expected, atol=1e-4)
    drawn = sdxl.draw(["a (big:1.5) cat"], [0], FEW)
    assert not torch.allclose(drawn, sdxl.draw(["a big cat"], [0], FEW), atol=1e-3)


def test_over_a_picture_and_with_a_word_by_layer(nano, word):
    pixels = torch.zeros(1, 3, nano.resolution, nano.resolution)
    over = {"image": pixels, "strength": 0.9}
    drawn = nano.draw(["a (mug:1.8)"], [0], FEW, **over)
    assert not torch.allclose(drawn, nano.draw(["a mug"], [0], FEW, **over), atol=1e-3)


@pytest.mark.parametrize("family", ["flux", "ldm"])
def test_another_family_refuses_weights_and_draws_what_is_text(family, folders):
    backbone = load_backbone(ModelConfig(model=str(folders[family]), device="cpu"))
    few = SamplingConfig(num_inference_steps=1)
    message = f"of the family {family} because they need a model that only CLIP"
    with pytest.raises(ModelError, match=message):
        generate(backbone, ["a cat", "a (cat:1.3)"], [0], sampling=few)
    with pytest.raises(ModelError, match=message):
        backbone.draw(["a (cat:1.3)"], [0], few)
    letters = SamplingConfig(num_inference_steps=1, emphasis="none")
    text = backbone.draw(["a (cat)"], [0], letters)
    assert torch.equal(backbone.draw([r"a \(cat\)"], [0], few), text)
    assert torch.equal(backbone.draw(["a (cat)"], [0], few), text)


class Joining:
    """A tokenizer for which spaces mean something."""

    def __call__(self, text, add_special_tokens=True):
        ids = [1] * (3 if " " in text else len(text))
        return BatchEncoding({"input_ids": [0, *ids, 2] if add_special_tokens else ids})


def test_a_weight_that_begins_inside_a_token_is_refused():
    holder = type("Holder", (), {"tokenizer": Joining()})()
    vocabulary = Vocabulary("joining", holder, "tokenizer", torch.nn.Linear(1, 1))
    with pytest.raises(PromptError, match="got one inside a word in 'micro scope'"):
        token_weights([Part("micro", 1.2), Part("scope")], vocabulary, 20)


def test_the_command_line_says_and_records_what_was_read(tmp_path, nano, word, capsys):
    path = formats.save_concept(word, tmp_path / "s.safetensors")[0]

    def draw(*arguments):
        return main(["generate", "--model", "microworld-nano", "--num-inference-steps", "1",
                     "--seeds", "0", "--output-dir", str(tmp_path / "out"),
                     "--concepts", str(path), *arguments])  # fmt: skip

    assert draw("--prompts", "a (nice) (S*:1.3)") == 0
    assert (
        "Brackets without a number are plain text in 'a (nice) (S*:1.3)'" in capsys.readouterr().err
    )
    (picture,) = (tmp_path / "out").glob("0*.png")
    found = png_texts.read(picture)
    assert (found["prompt"], found["emphasis"]) == ("a (nice) (S*:1.3)", "numbers")
    assert draw("--prompts", "a (S*:13)") == 2
    assert "A weight must be in [0, 5], got 13" in capsys.readouterr().err
    assert draw("--prompts", "a (S*) here", "--emphasis", "a1111", "--json",
                str(tmp_path / "all.json")) == 0  # fmt: skip
    assert json.loads((tmp_path / "all.json").read_text())[0]["emphasis"] == "a1111"
