"""A tiny pipeline of Stable Diffusion XL."""

from __future__ import annotations

from diffusers import StableDiffusionXLPipeline

from tiny.encoders import clip
from tiny.parts import scheduler, seeded, unet, vae
from tiny.registry import register
from tiny.tokenizers import tokenizer


@register("sdxl")
def pipeline(seed: int = 0) -> StableDiffusionXLPipeline:
    """Two text encoders of widths 32 and 48."""
    with seeded(seed):
        return StableDiffusionXLPipeline(
            vae=vae(scaling_factor=0.13025),
            text_encoder=clip(),
            text_encoder_2=clip(48, projection=True),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet(
                width=80,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 48,
            ),
            scheduler=scheduler(),
            add_watermarker=False,
        )
