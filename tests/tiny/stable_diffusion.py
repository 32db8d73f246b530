"""A tiny pipeline of Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

from diffusers import StableDiffusionPipeline

from tiny.encoders import clip
from tiny.parts import scheduler, seeded, unet, vae
from tiny.registry import register
from tiny.tokenizers import tokenizer


@register("stable_diffusion")
def pipeline(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """A pipeline that draws 32 px pictures from 16 x 16 x 4 latents."""
    with seeded(seed):
        return StableDiffusionPipeline(
            vae=vae(),
            text_encoder=clip(),
            tokenizer=tokenizer(),
            unet=unet(use_linear_projection=prediction_type == "v_prediction"),
            scheduler=scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


@register("stable_diffusion", "v")
def predicting_v() -> StableDiffusionPipeline:
    """The same with linear projections, as 2.x has them."""
    return pipeline("v_prediction", 1)
