"""A tiny pipeline of Cosmos-Predict2."""

from __future__ import annotations

import numpy as np
from diffusers import (
    AutoencoderKLWan,
    Cosmos2TextToImagePipeline,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.cosmos import pipeline_cosmos2_text2image

from tiny.encoders import t5
from tiny.parts import seeded
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


class Guardrail:
    """In the place of Cosmos' safety checker, whose library brings models of its own."""

    def to(self, device: object) -> None: ...

    def check_text_safety(self, prompt: str) -> bool:
        """Every prompt passes."""
        return bool(prompt)

    def check_video_safety(self, frames: np.ndarray) -> np.ndarray:
        """Every picture passes."""
        return frames


pipeline_cosmos2_text2image.CosmosSafetyChecker = Guardrail


@register("cosmos2", own_latents=True)
def pipeline(seed: int = 0, *, masked: bool = False) -> Cosmos2TextToImagePipeline:
    """A T5 of width 48, a VAE for films, a transformer of two blocks; masked needs torchvision."""
    with seeded(seed):
        return Cosmos2TextToImagePipeline(
            text_encoder=t5(48),
            tokenizer=t5_tokenizer(),
            transformer=CosmosTransformer3DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=2,
                mlp_ratio=2,
                text_embed_dim=48,
                adaln_lora_dim=4,
                max_size=(4, 32, 64),
                rope_scale=(1.0, 4.0, 4.0),
                concat_padding_mask=masked,
                extra_pos_embed_type=None,
            ),
            vae=AutoencoderKLWan(
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 2],
                num_res_blocks=1,
                temperal_downsample=[False],
                latents_mean=[-0.7571, 0.1075, 1.5508, 0.4134],
                latents_std=[2.8184, 1.4541, 0.7708, 1.6052],
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        )
