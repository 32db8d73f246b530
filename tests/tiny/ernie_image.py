"""A tiny pipeline of ERNIE-Image."""

from __future__ import annotations

from diffusers import (
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import Mistral3Model

from tiny.encoders import mistral3
from tiny.parts import flux2_vae, seeded
from tiny.registry import register
from tiny.tokenizers import mistral_processor


@register("ernie_image", own_latents=True)
def pipeline(seed: int = 0) -> ErnieImagePipeline:
    """Ministral of width 32 and three layers, a transformer of two layers with open gates."""
    with seeded(seed):
        tokens = mistral_processor().tokenizer
        transformer = ErnieImageTransformer2DModel(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=2,
            ffn_hidden_size=64,
            in_channels=16,
            out_channels=16,
            text_in_dim=24,
            rope_axes_dim=(4, 6, 6),
        )
        for layer in (transformer.adaLN_modulation[-1], transformer.final_linear):
            layer.weight.data.normal_(0, 0.1)  # zero, so that nothing would count
        return ErnieImagePipeline(
            transformer=transformer,
            vae=flux2_vae(),
            text_encoder=Mistral3Model(mistral3(24, 3, "ministral3", vocab_size=len(tokens) + 9)),
            tokenizer=tokens,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
