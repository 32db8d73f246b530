"""A tiny pipeline of Stable Diffusion 3."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from tiny.encoders import clip, t5
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer, tokenizer


@register("sd3")
def pipeline(seed: int = 0, *, with_t5: bool = True) -> StableDiffusion3Pipeline:
    """Two CLIPs of widths 32 and 48, a T5 of width 96, a transformer of two layers."""
    with seeded(seed):
        return StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=96,
                pooled_projection_dim=80,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae(channels=16, scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=clip(projection=True),
            tokenizer=tokenizer(),
            text_encoder_2=clip(48, projection=True),
            tokenizer_2=tokenizer(),
            text_encoder_3=t5(96) if with_t5 else None,
            tokenizer_3=t5_tokenizer() if with_t5 else None,
        )
