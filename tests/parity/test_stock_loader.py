"""Our files in stock diffusers on every family that has a loader, pooled where stock pools."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected


ENCODERS = {
    "stable_diffusion": {"clip": ("text_encoder", "tokenizer")},
    "stable_diffusion_v": {"clip": ("text_encoder", "tokenizer")},
    "sdxl": {
        "clip_l": ("text_encoder", "tokenizer"),
        "clip_g": ("text_encoder_2", "tokenizer_2"),
    },
    "flux": {
        "clip_l": ("text_encoder", "tokenizer"),
        "t5xxl": ("text_encoder_2", "tokenizer_2"),
    },
}


def words(backbone, num_vectors):
    generator = torch.Generator().manual_seed(num_vectors)
    return [
        Concept(
            placeholder_token=token,
            rows={
                n: 0.05 * torch.randn(num_vectors, v.dim, generator=generator)
                for n, v in backbone.vocabularies.items()
            },
        )
        for token in ("<my-cat>", "<toy>")
    ]


@pytest.mark.parametrize("num_vectors", [1, 3])
@pytest.mark.parametrize("family", ENCODERS)
def test_stock_diffusers_conditions_alike(tmp_path, family, num_vectors):
    folder = tiny.save(tiny.make(family), tmp_path / "model")
    ours = load_backbone(ModelConfig(model=str(folder), device="cpu", pool="legacy"))
    stock = DiffusionPipeline.from_pretrained(folder)
    concepts = words(ours, num_vectors)
    for i, concept in enumerate(concepts):
        paths = formats.save_concept(concept, tmp_path / f"{i}.safetensors", "diffusers")
        assert len(paths) == len(ENCODERS[family])
        for path, (encoder, tokenizer) in zip(paths, ENCODERS[family].values(), strict=True):
            ((token, rows),) = load_file(path).items()
            stock.load_textual_inversion(
                {token: rows},
                token=token,
                text_encoder=getattr(stock, encoder),
                tokenizer=getattr(stock, tokenizer),
            )
    prompt = "a photo of a <my-cat> next to my <toy> on the moon"
    with torch.no_grad(), injected(ours, concepts):
        found = ours.encode_prompt([prompt])
        if family.startswith("stable_diffusion"):
            states, pooled = stock.encode_prompt(prompt, "cpu", 1, False)[0], None
        elif family == "sdxl":
            states, _, pooled, _ = stock.encode_prompt(
                prompt, device="cpu", do_classifier_free_guidance=False
            )
        else:
            states, pooled, _ = stock.encode_prompt(
                prompt, None, device="cpu", max_sequence_length=64
            )
    assert torch.allclose(found.encoder_hidden_states, states, atol=1e-5)
    if pooled is not None:
        assert torch.allclose(found.pooled, pooled, atol=1e-5)
