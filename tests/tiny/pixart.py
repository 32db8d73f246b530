"""A tiny pipeline of PixArt Alpha and Sigma."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)

from tiny.encoders import t5
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


@register("pixart")
def pipeline(
    kind: type = PixArtSigmaPipeline, seed: int = 0, *, size: int = 8
) -> DiffusionPipeline:
    """A T5 of width 48; Alpha of size 128 is told the picture's size."""
    with seeded(seed):
        return kind(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.13025),
            transformer=PixArtTransformer2DModel(
                sample_size=size,
                num_layers=2,
                patch_size=2,
                attention_head_dim=8,
                num_attention_heads=3,
                caption_channels=48,
                in_channels=4,
                out_channels=8,
                cross_attention_dim=24,
                attention_bias=True,
            ),
            scheduler=DPMSolverMultistepScheduler(),
        )


@register("pixart", "alpha")
def alpha() -> DiffusionPipeline:
    """Alpha, which is told the picture's size."""
    return pipeline(PixArtAlphaPipeline, size=128)
