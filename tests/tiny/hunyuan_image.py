"""A tiny pipeline of HunyuanImage 2.1."""

from __future__ import annotations

from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLHunyuanImage,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
)
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from tiny.encoders import qwen25_vl
from tiny.parts import seeded
from tiny.registry import register
from tiny.tokenizers import qwen_tokenizer


@register("hunyuan_image")
def pipeline(seed: int = 0, *, distilled: bool = False) -> HunyuanImagePipeline:
    """Qwen2.5-VL of width 32 and three layers, a ByT5, a transformer of two blocks."""
    with seeded(seed):
        spelling = ByT5Tokenizer()
        guiders = [None, None]
        if not distilled:
            guiders = [
                AdaptiveProjectedMixGuidance(
                    adaptive_projected_guidance_scale=scale,
                    adaptive_projected_guidance_start_step=0,
                )
                for scale in (10.0, 4.0)
            ]
        return HunyuanImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            vae=AutoencoderKLHunyuanImage(
                in_channels=3,
                out_channels=3,
                latent_channels=4,
                block_out_channels=(32,) * 4,  # its norms are of 32 groups
                layers_per_block=1,
                spatial_compression_ratio=8,
                sample_size=64,
                scaling_factor=0.75289,
            ),
            text_encoder=qwen25_vl(3),
            tokenizer=qwen_tokenizer(131072),
            text_encoder_2=T5EncoderModel(
                T5Config(
                    vocab_size=len(spelling),
                    d_model=16,
                    d_kv=8,
                    d_ff=32,
                    num_layers=1,
                    num_heads=2,
                    feed_forward_proj="gated-gelu",
                )
            ),
            tokenizer_2=spelling,
            transformer=HunyuanImageTransformer2DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=1,
                num_single_layers=1,
                num_refiner_layers=1,
                text_embed_dim=32,
                text_embed_2_dim=16,
                rope_axes_dim=(8, 8),
                guidance_embeds=distilled,
                use_meanflow=distilled,
            ),
            guider=guiders[0],
            ocr_guider=guiders[1],
        )
