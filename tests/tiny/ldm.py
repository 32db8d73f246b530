"""A tiny pipeline of the paper's LDM."""

from __future__ import annotations

from diffusers import LDMTextToImagePipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)

from tiny.parts import scheduler, seeded, unet, vae
from tiny.registry import register
from tiny.tokenizers import bert_tokenizer


@register("ldm")
def pipeline(seed: int = 0) -> LDMTextToImagePipeline:
    """The paper's architecture: 64 px, since its pipeline takes latents to be 8 times smaller."""
    with seeded(seed):
        tokens = bert_tokenizer()
        config = LDMBertConfig(
            vocab_size=len(tokens),
            d_model=32,
            encoder_layers=2,
            encoder_ffn_dim=64,
            encoder_attention_heads=4,
            head_dim=8,
        )
        return LDMTextToImagePipeline(
            vqvae=vae(4),
            bert=LDMBertModel(config),
            tokenizer=tokens,
            unet=unet(8),
            scheduler=scheduler(),
        )
