"""A tiny pipeline of Ovis-Image."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
)
from transformers import Qwen3Config, Qwen3Model

from tiny.encoders import language_model
from tiny.parts import listening, seeded, vae
from tiny.registry import register
from tiny.tokenizers import qwen_tokenizer


@register("ovis_image")
def pipeline(seed: int = 0) -> OvisImagePipeline:
    """Qwen3 of width 32 and two layers, a transformer of one double and one single block."""
    with seeded(seed):
        return OvisImagePipeline(
            tokenizer=qwen_tokenizer(512),
            text_encoder=Qwen3Model(Qwen3Config(**language_model(32, 2))),
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            transformer=listening(
                OvisImageTransformer2DModel(
                    in_channels=16,
                    out_channels=16,
                    num_layers=1,
                    num_single_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    joint_attention_dim=32,
                    axes_dims_rope=(4, 4, 8),
                ),
                "norm1.linear",
                "norm.linear",
                "to_v",
                "to_out",
                "context_embedder",
                factor=6.0,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )
