"""Our files in stock diffusers: ``load_textual_inversion`` gives the same conditioning."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.vocabulary.inject import injected


@pytest.mark.parametrize("num_vectors", [1, 2, 5])
@pytest.mark.parametrize("token", ["<My-Cat>", "<my-cat>", "S*"])
def test_stock_diffusers_conditions_alike(tiny_folder, tiny_sd, tmp_path, token, num_vectors):
    generator = torch.Generator().manual_seed(num_vectors)
    rows = 0.05 * torch.randn(num_vectors, 32, generator=generator)
    concept = Concept(placeholder_token=token, rows={"clip": rows})
    formats.save_concept(concept, tmp_path / "learned_embeds.safetensors")

    stock = StableDiffusionPipeline.from_pretrained(tiny_folder)
    # Stock models pool at the highest id; the pooled output has no part in Stable Diffusion.
    stock.load_textual_inversion(tmp_path / "learned_embeds.safetensors")
    prompt = f"a photo of a {token} on the moon"
    stock_prompt = stock.maybe_convert_prompt(prompt.replace(token, token.lower()), stock.tokenizer)
    ids = stock.tokenizer(stock_prompt, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = stock.text_encoder(ids).last_hidden_state
        with injected(tiny_sd, [concept]):
            found = tiny_sd.encode_prompt([prompt]).encoder_hidden_states
            drawn, _ = tiny_sd.pipeline.encode_prompt(prompt, "cpu", 1, False)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(found, drawn)


def test_a_file_of_stock_diffusers_is_read_back(tiny_folder, tiny_sd, tmp_path):
    """The training script saves {token: (dim,)} or (n, dim) without metadata."""
    from safetensors.torch import save_file

    rows = tiny_sd.vocabularies["clip"].rows_of("red cat")
    save_file({"<toy>": rows}, tmp_path / "learned_embeds.safetensors")
    concept = formats.load_concept(tmp_path / "learned_embeds.safetensors")
    with injected(tiny_sd, [concept]):
        found = tiny_sd.encode_prompt(["a <toy>"]).encoder_hidden_states
    expected = tiny_sd.encode_prompt(["a red cat"]).encoder_hidden_states
    assert torch.equal(found, expected)
