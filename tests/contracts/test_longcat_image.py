"""What sets LongCat-Image apart: a gradient that its pipeline cuts, and letters between quotes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import LongCatImagePipeline

from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=3, height=64, width=96)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["longcat_image"]), device="cpu"))


@pytest.fixture(scope="module")
def stock(folders, backbone):
    pipeline = LongCatImagePipeline.from_pretrained(folders["longcat_image"], text_processor=None)
    pipeline.tokenizer_max_length = backbone.pipeline.tokenizer_max_length
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def word(backbone, text="red cat", token="<Toy>"):
    (vocabulary,) = backbone.vocabularies.values()
    return Concept(placeholder_token=token, rows={vocabulary.name: vocabulary.rows_of(text)})


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a red cat",
        "",
        "a house with 'a cat' on it",
        'a "cat" and \u201cred\u201d and \u2018dog\u2019',
        "the cat's house",
        "a cat's 'red' house",
        "no end ' of it",
        "the" + " cat" * 200,
    ],
)
def test_prompts_are_the_stock_pipelines(backbone, stock, prompt):
    with torch.no_grad():
        theirs, _ = stock.encode_prompt([prompt, "a dog"])
        own = backbone.encode_prompt([prompt, "a dog"])
        with injected(backbone, [word(backbone)]):
            beside, _ = backbone.pipeline.encode_prompt([prompt, "a dog"])
    assert torch.allclose(own.encoder_hidden_states, theirs, atol=1e-5)
    assert torch.allclose(beside, theirs, atol=1e-5)


def test_two_words_with_an_apostrophe_stay_two(backbone):
    """The pipeline takes one of them for the other, and which changes from run to run."""
    tokenizer = backbone.pipeline.tokenizer
    text = "the cat's house and the dog's chair"
    assert list(backbone._pieces(text)) == [text]
    assert backbone._ids(text) == tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("token", ["<Toy>", "<it's>", "toy-1"])
def test_a_quoted_word_is_not_spelled(backbone, token):
    concept = word(backbone, "red", token)
    (rows,) = concept.rows.values()
    with injected(backbone, [concept]):
        pieces = list(backbone._pieces(f"on it '{token} at' and {token}'s 'a'"))
        states = backbone.encode_prompt([f"a house with '{token}'"]).encoder_hidden_states
        grown = Concept(placeholder_token=token, rows={n: r + 1 for n, r in concept.rows.items()})
    with injected(backbone, [grown]):
        other = backbone.encode_prompt([f"a house with '{token}'"]).encoder_hidden_states
    assert pieces == ["on it ", "'", token, " ", "a", "t", "'", f" and {token}'s ", *"'a'", ""]
    assert rows.shape[0] == 1
    assert not torch.allclose(states, other, atol=1e-3)


@pytest.mark.parametrize("negative", ["", "a house"])
def test_pictures_are_the_stock_pipelines(backbone, stock, negative):
    noise = backbone._noise([torch.Generator().manual_seed(s) for s in (1, 2)], (8, 12))
    theirs = stock(
        ["a cat", "a red dog"],
        negative_prompt=[negative] * 2,
        height=64,
        width=96,
        num_inference_steps=3,
        latents=backbone.autoencoder.pack(noise),
        output_type="latent",
        enable_prompt_rewrite=False,
    ).images
    own = backbone.draw(["a cat", "a red dog"], [1, 2], replace(FEW, negative_prompt=negative))
    expected = backbone.decode_latents(backbone.autoencoder.unpack(theirs, (8, 12)))
    assert torch.allclose(own, expected, atol=1e-4)


def test_a_word_learns_to_the_end_of_the_room_and_is_refused_beyond(backbone):
    (vocabulary,) = backbone.vocabularies.values()
    rows = {name: r.requires_grad_() for name, r in word(backbone).rows.items()}
    late = "the" + " cat" * (vocabulary.max_length - 3) + " <Toy>"
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with injected(backbone, [Concept(placeholder_token="<Toy>", rows=rows)]):
        cond = backbone.encode_prompt([late])
        loss = backbone.predict(x, torch.tensor([0.4]), cond).square().sum()
        (gradient,) = torch.autograd.grad(loss, list(rows.values()))
        assert gradient.abs().sum(1).min() > 0
        for longer in (f"cat {late}", f"'{'cat' * vocabulary.max_length}' <Toy>"):
            with pytest.raises(PlaceholderError, match=r"must fit .* tokens up to its placeholder"):
                backbone.encode_prompt([longer])
