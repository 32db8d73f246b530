"""A tiny pipeline of Sana."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
)

from tiny.encoders import gemma
from tiny.parts import seeded
from tiny.registry import register
from tiny.tokenizers import gemma_tokenizer


@register("sana")
def pipeline(seed: int = 0) -> SanaPipeline:
    """A Gemma of width 32, an autoencoder without a posterior, the solver of the real one."""
    return SanaPipeline(
        **sana_parts(seed),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def sana_parts(seed: int, **options: object) -> dict[str, Any]:
    levels = 4
    with seeded(seed):
        return {
            "tokenizer": gemma_tokenizer(),
            "text_encoder": gemma(),
            "vae": AutoencoderDC(
                latent_channels=8,
                attention_head_dim=2,
                encoder_block_types="ResBlock",
                decoder_block_types="ResBlock",
                encoder_block_out_channels=(8, 8, 16, 16),
                decoder_block_out_channels=(8, 8, 16, 16),
                encoder_layers_per_block=(1,) * levels,
                decoder_layers_per_block=(1,) * levels,
                encoder_qkv_multiscales=((),) * levels,
                decoder_qkv_multiscales=((),) * levels,
                scaling_factor=0.41407,
            ),
            "transformer": SanaTransformer2DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=4,
                attention_head_dim=8,
                num_layers=2,
                num_cross_attention_heads=4,
                cross_attention_head_dim=8,
                cross_attention_dim=32,
                caption_channels=32,
                sample_size=8,
                **options,
            ),
        }
