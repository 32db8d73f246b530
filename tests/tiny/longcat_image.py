"""A tiny pipeline of LongCat-Image."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
)

from tiny.encoders import qwen25_vl
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import qwen_tokenizer


@register("longcat_image")
def pipeline(seed: int = 0) -> LongCatImagePipeline:
    """Qwen2.5-VL of width 32, a transformer of one double and one single block."""
    with seeded(seed):
        return LongCatImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
            ),
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=qwen25_vl(2),
            tokenizer=qwen_tokenizer(),
            text_processor=None,
            transformer=LongCatImageTransformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                axes_dims_rope=[4, 6, 6],
            ),
        )
