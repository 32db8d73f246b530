"""A tiny pipeline of Qwen-Image."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

from tiny.encoders import qwen25_vl
from tiny.parts import film_vae, seeded
from tiny.registry import register
from tiny.tokenizers import qwen_tokenizer


@register("qwen_image", own_latents=True)
def pipeline(seed: int = 0) -> QwenImagePipeline:
    """Qwen2.5-VL of width 32, a VAE for films, a transformer of one block."""
    with seeded(seed):
        encoder = qwen25_vl(2)
        return QwenImagePipeline(
            transformer=QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.5,
                max_shift=0.9,
                max_image_seq_len=8192,
                shift_terminal=0.02,
            ),
            vae=film_vae(),
            text_encoder=encoder,
            tokenizer=qwen_tokenizer(131072),
        )
