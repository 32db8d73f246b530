"""What sets Kandinsky 5 apart: two readers, padding that is read, and prompts that are cleaned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline

from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=2, height=64, width=64)


@pytest.fixture(scope="module")
def backbone(folders):
    return load_backbone(ModelConfig(model=str(folders["kandinsky5"]), device="cpu"))


def word(backbone, text="red cat", token="<Toy>"):
    rows = {n: v.rows_of(text) for n, v in backbone.vocabularies.items()}
    return Concept(placeholder_token=token, rows=rows)


@pytest.mark.parametrize(
    "prompt", ["A photo of a Red cat, on the MOON", "a  cat &amp;\n dog ", "the" + " cat" * 400]
)
def test_prompts_are_the_stock_pipelines(folders, backbone, prompt):
    stock = DiffusionPipeline.from_pretrained(folders["kandinsky5"])
    with torch.no_grad():
        states, pooled, ends = stock.encode_prompt([prompt] * 2)
        own = backbone.encode_prompt([prompt] * 2)
        with injected(backbone, [word(backbone)]):
            beside, _, told = backbone.pipeline.encode_prompt([prompt] * 2)
    assert torch.equal(own.encoder_hidden_states, states)
    assert torch.equal(own.pooled, pooled)
    assert torch.equal(beside, states)
    assert torch.equal(told, ends)


def test_words_are_spared_where_prompts_are_cleaned(backbone):
    """``&lt;`` would become another sign, and the accent one letter with what it stands on."""
    for token in ("&lt;toy", "e\u0301toy"):
        with injected(backbone, [word(backbone, token=token)]):
            found = backbone.encode_prompt([f"a  {token} on\nthe moon"])
        plain = backbone.encode_prompt(["a red cat on the moon"])
        assert torch.allclose(found.encoder_hidden_states, plain.encoder_hidden_states, atol=1e-5)
        assert torch.allclose(found.pooled, plain.pooled, atol=1e-5)


def test_each_prompt_is_read_as_if_it_were_alone(backbone):
    """Length counts after cleaning; what is too long has that of the longest prompt."""
    prompts = ["a cat", "a   cat", "a cat on the moon " * 6, "a dog", "red " * 600, "red " * 700]
    seeds, steps = list(range(6)), []
    x = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = backbone.sample_t(torch.linspace(0.2, 0.8, 6), (8, 8))
    assert backbone._alike(prompts) == [[0, 1, 3], [2], [4, 5]]
    with torch.no_grad():
        cond = backbone.encode_prompt(prompts)
        whole = backbone.predict(x, t, cond)
        parts = [backbone.encode_prompt([prompt]) for prompt in prompts]
        alone = [backbone.predict(x[i : i + 1], t[i : i + 1], part) for i, part in enumerate(parts)]
    assert torch.allclose(cond.pooled, torch.cat([part.pooled for part in parts]), atol=1e-5)
    assert torch.allclose(whole, torch.cat(alone), atol=1e-5)
    drawn = backbone.draw(prompts, seeds, FEW, on_step=lambda *step: steps.append(step))
    apart = [backbone.draw([p], [s], FEW) for p, s in zip(prompts, seeds, strict=True)]
    assert torch.allclose(drawn, torch.cat(apart), atol=1e-4)
    assert steps == [(i + 1, 6) for i in range(6)]


def test_a_gradient_returns_to_both_readers(backbone):
    rows = {n: v.rows_of("cat").requires_grad_() for n, v in backbone.vocabularies.items()}
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with injected(backbone, [Concept(placeholder_token="<w>", rows=rows)]):
        cond = backbone.encode_prompt(["a <w>", "a photo of a <w> on the moon"])
        loss = backbone.predict(x, torch.tensor([0.3, 0.8]), cond).square().sum()
    for gradient in torch.autograd.grad(loss, list(rows.values())):
        assert gradient.abs().max() > 0


def test_the_longest_prompt_still_holds_its_word_and_a_longer_one_is_refused(backbone):
    """The pipeline itself would cut the word off in silence, or letters of it."""
    concept = word(backbone, "cat")
    qwen = backbone.vocabularies["qwen25"]
    rows = {n: r.requires_grad_() for n, r in concept.rows.items()}
    late = "the" + " cat" * (qwen.max_length - 2)
    # CLIP reads 77 tokens, so that the word is in its rows alone where Qwen's is looked at
    with injected(backbone, [concept]):
        found = backbone._tokens([f"{late} <Toy>"])[0]
        with pytest.raises(PlaceholderError, match=r"must fit .* tokens up to its placeholder"):
            backbone._tokens([late + " cat" * 96 + " <Toy>"])
        with pytest.raises(
            PlaceholderError, match=r"must fit into 75 tokens up to its placeholder"
        ):
            backbone.draw([f"{late} <Toy>"], [0], FEW)
        long = backbone.encode_prompt(["a <Toy> on the moon" + " cat" * 900])
    assert found.count(qwen.weight.shape[0]) == 1
    (gradient,) = torch.autograd.grad(long.encoder_hidden_states.square().sum(), rows["qwen25"])
    assert gradient.abs().max() > 0
    assert long.encoder_hidden_states.shape[1] == 512


def test_a_negative_prompt_counts_and_any_size_is_drawn(backbone):
    wide = SamplingConfig(num_inference_steps=2, height=64, width=96)
    drawn = backbone.draw(["a cat"], [0], wide)
    assert drawn.shape == (1, 3, 64, 96)
    against = replace(wide, negative_prompt="a red dog on the moon")
    assert not torch.equal(drawn, backbone.draw(["a cat"], [0], against))


def test_pictures_are_decoded_as_the_stock_pipeline_does(folders, backbone):
    """It leaves the shift of the autoencoder out."""
    stock = DiffusionPipeline.from_pretrained(folders["kandinsky5"])
    stock.set_progress_bar_config(disable=True)
    stock.resolutions = [(64, 64)]
    noise = backbone._noise([torch.Generator().manual_seed(7)], (8, 8))
    (theirs,) = stock(
        ["a cat"],
        height=64,
        width=64,
        num_inference_steps=2,
        latents=noise.permute(0, 2, 3, 1)[:, None],
        output_type="pt",
        return_dict=False,
    )
    own = backbone.draw(["a cat"], [7], FEW)
    assert torch.allclose(own, theirs * 2 - 1, atol=1e-4)


def test_layers_of_clip_are_not_skipped(folders):
    with pytest.raises(ModelError, match=r"clip_skip 1 with .* only CLIP's pooled output"):
        load_backbone(ModelConfig(model=str(folders["kandinsky5"]), device="cpu", clip_skip=1))


@pytest.mark.parametrize("layout", ["oneword", "comfyui"])
def test_a_file_names_both_readers(backbone, tmp_path, layout):
    concept = word(backbone)
    (path,) = formats.save_concept(concept, tmp_path / "word.safetensors", layout)
    found = formats.load_concept(path)
    assert list(found.rows) == ["clip_l", "qwen25"]
    assert all(torch.equal(found.rows[n], rows) for n, rows in concept.rows.items())
