"""A tiny pipeline of Ideogram 4."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
)
from transformers import Qwen3VLModel

from tiny.encoders import qwen3vl
from tiny.parts import flux2_vae, seeded
from tiny.registry import register
from tiny.tokenizers import qwen_processor


@register("ideogram4", own_latents=True)
def pipeline(seed: int = 0) -> Ideogram4Pipeline:
    """Qwen3-VL of width 32, with as many layers as the pipeline looks for; two transformers."""
    with seeded(seed):
        processor = qwen_processor(128)
        tokens = processor.tokenizer
        tokens.chat_template = processor.chat_template
        one, other = (
            Ideogram4Transformer2DModel(
                in_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                intermediate_size=64,
                adaln_dim=16,
                llm_features_dim=13 * 32,
                mrope_section=(4, 2, 2),
            )
            for _ in range(2)
        )
        return Ideogram4Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=flux2_vae(),
            text_encoder=qwen3vl(
                Qwen3VLModel,
                vocab_size=len(tokens) + 9,
                num_hidden_layers=36,
                initializer_range=0.6 / 36,
            ),
            tokenizer=tokens,
            transformer=one,
            unconditional_transformer=other,
        )
