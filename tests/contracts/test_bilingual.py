"""What sets the families that read Chinese and English apart from the others."""

from __future__ import annotations

import io
import shutil
import string
from dataclasses import replace

import pytest
import sentencepiece
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.formats.names import family_of
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.generation.ddim_inversion import inverted
from oneword.models.families.hunyuan_dit import HunyuanDiT
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=2, height=64, width=64)


@pytest.fixture(scope="module")
def hunyuan(folders):
    return load_backbone(ModelConfig(model=str(folders["hunyuan_dit"]), device="cpu"))


def word(backbone, text="red cat", token="<Cat-Toy>"):
    rows = {n: v.rows_of(text) for n, v in backbone.vocabularies.items()}
    return Concept(placeholder_token=token, rows=rows)


def watched(denoiser, seen):
    """Keep what a denoiser is told, and what it says."""

    def look(module, args, kwargs, output):
        seen.append((args, kwargs, output[0]))

    return denoiser.register_forward_hook(look, with_kwargs=True)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_hunyuan_predicts_what_the_stock_pipeline_does(folders, hunyuan, size):
    """With its own defaults, but for the widths that the authors' code puts first."""
    stock, seen = DiffusionPipeline.from_pretrained(folders["hunyuan_dit"]), []
    stock.set_progress_bar_config(disable=True)
    height, width = size
    prompt = "A photo of a Red cat, on the MOON"
    watched(stock.transformer, seen)
    stock(
        prompt, height=height, width=width, num_inference_steps=2, guidance_scale=1.0,
        output_type="latent", use_resolution_binning=False, target_size=(width, height),
    )  # fmt: skip
    (x_t, t), told, expected = seen[-1]
    with torch.no_grad():
        found = hunyuan.predict(x_t, t.long(), hunyuan.encode_prompt([prompt, "a dog"])[:1])
    assert told["image_meta_size"].tolist() == [[1024, 1024, width, height, 0, 0]]
    assert torch.allclose(found, expected[:, :4], atol=1e-5)


def test_hunyuan_is_told_widths_first(hunyuan):
    seen, x_t = [], torch.zeros(2, 4, 8, 16)
    handle = watched(hunyuan.denoiser, seen)
    with torch.no_grad():
        cond = hunyuan.encode_prompt(["a cat"] * 2)
        crops = torch.tensor([[480, 640, 0, 16], [1000, 500, 8, 0]])
        told = hunyuan.predict(x_t, torch.tensor([5, 9]), cond, crops)
        untold = hunyuan.predict(x_t, torch.tensor([5, 9]), cond)
    hunyuan.draw(["a cat"], [0], replace(FEW, width=128, guidance_scale=1.0))
    handle.remove()
    given = [kwargs["image_meta_size"].tolist() for _, kwargs, _ in seen]
    assert given[0] == [[640, 480, 128, 64, 16, 0], [500, 1000, 128, 64, 0, 8]]
    assert given[1] == [[1024, 1024, 128, 64, 0, 0]] * 2
    assert given[2] == given[1][:1]
    assert not torch.equal(told, untold)


def test_hunyuan_from_version_1_2_on_is_told_no_sizes():
    pipeline = tiny.make("hunyuan_dit", use_style_cond_and_image_meta_size=False)
    later = HunyuanDiT(pipeline, ModelConfig(model="x", device="cpu"))
    with torch.no_grad():
        cond = later.encode_prompt(["a cat"])
        x_t, t = torch.zeros(1, 4, 8, 8), torch.tensor([9])
        told = later.predict(x_t, t, cond, torch.tensor([[480, 640, 0, 16]]))
        untold = later.predict(x_t, t, cond)
    assert torch.equal(told, untold)
    assert later.draw(["a cat"], [0], FEW).shape == (1, 3, 64, 64)


def test_each_of_hunyuans_encoders_moves_the_prediction(hunyuan):
    """Also the one that is pooled besides: a row's gradient comes back from both."""
    rows = {n: v.rows_of("cat").requires_grad_() for n, v in hunyuan.vocabularies.items()}
    x_t, t = torch.ones(1, 4, 8, 8), torch.tensor([500])
    with injected(hunyuan, [Concept(placeholder_token="<w>", rows=rows)]):
        hunyuan.predict(x_t, t, hunyuan.encode_prompt(["a <w>"])).square().sum().backward()
    assert {n: bool(r.grad.abs().min() > 0) for n, r in rows.items()} == {
        "chinese_roberta": True,
        "mt5xl": True,
    }


def test_a_word_stands_among_chinese_characters(hunyuan):
    """BERT reads them one by one, and no space need stand beside the word."""
    plain = hunyuan.encode_prompt(["一张red的照片"]).encoder_hidden_states[:, :77]
    with injected(hunyuan, [word(hunyuan, "red", "<w>")]):
        found = hunyuan.encode_prompt(["一张<w>的照片"]).encoder_hidden_states[:, :77]
    assert torch.allclose(found, plain, atol=1e-5)


def test_a_word_must_fit_the_shorter_of_hunyuans_encoders(hunyuan):
    with injected(hunyuan, [word(hunyuan, "cat", "<w>")]):
        hunyuan.encode_prompt(["red " * 74 + "<w>"])
        with pytest.raises(
            PlaceholderError, match=r"must fit into 75 tokens up to its placeholder"
        ):
            hunyuan.encode_prompt(["red " * 75 + "<w>"])


def test_steps_are_told_and_a_negative_prompt_counts(hunyuan):
    steps = []
    plain = hunyuan.draw(["a cat"], [0], FEW, on_step=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    against = replace(FEW, negative_prompt="a red dog")
    assert not torch.equal(plain, hunyuan.draw(["a cat"], [0], against))


def test_what_the_family_does_not_have_is_refused(folders):
    with pytest.raises(ModelError, match="Hunyuan-DiT because it has no CLIP"):
        load_backbone(ModelConfig(model=str(folders["hunyuan_dit"]), device="cpu", clip_skip=1))


def test_a_tokenizer_that_is_a_file_of_sentencepiece_alone_is_read(folders, tmp_path):
    """As mT5's is published, and other T5s'."""
    folder, pieces = shutil.copytree(folders["hunyuan_dit"], tmp_path / "model"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([string.ascii_letters + string.digits] * 50),
        model_writer=pieces,
        vocab_size=300,
        hard_vocab_limit=False,
        user_defined_symbols=[f"\u2581{one}" for one in tiny.tokenizers.WORDS],
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "tokenizer_2" / "tokenizer.json").unlink()
    (folder / "tokenizer_2" / "spiece.model").write_bytes(pieces.getvalue())
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    with injected(backbone, [word(backbone, "a", "<w>")]):
        found = backbone.encode_prompt(["cat <w> cat"]).encoder_hidden_states
    plain = backbone.encode_prompt(["cat a cat"]).encoder_hidden_states
    assert torch.allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("layout", ["comfyui", "oneword"])
def test_files_name_hunyuans_encoders(hunyuan, layout, tmp_path):
    """And the word of such a file fits the model, without being told the family."""
    concept = word(hunyuan)
    formats.save_concept(concept, tmp_path / "cat-toy.safetensors", layout)
    if layout == "comfyui":
        assert sorted(load_file(tmp_path / "cat-toy.safetensors")) == ["chinese_roberta", "mt5xl"]
    read = formats.load_concept(tmp_path / "cat-toy.safetensors").named("<Cat-Toy>")
    assert read.sha256() == concept.sha256()
    assert family_of({n: rows.shape[1] for n, rows in read.rows.items()}) == "Hunyuan-DiT"
    plain = hunyuan.encode_prompt(["a red cat"]).encoder_hidden_states
    with injected(hunyuan, [read]):
        found = hunyuan.encode_prompt(["a <Cat-Toy>"]).encoder_hidden_states
    assert torch.allclose(found, plain, atol=1e-5)


def test_hunyuan_draws_an_inverted_picture_again(hunyuan):
    x0, noise = (
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    settings = SamplingConfig(num_inference_steps=25, height=64, width=64, guidance_scale=1.0)
    again, other = (
        hunyuan.draw(["a cat"], [0], settings, latents=start)
        for start in (inverted(hunyuan, x0, "a cat", SamplingConfig(num_inference_steps=25)), noise)
    )
    expected = hunyuan.decode_latents(x0)
    assert (again - expected).abs().mean() < 0.2 * (other - expected).abs().mean()
