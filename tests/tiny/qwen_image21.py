"""A tiny pipeline of Qwen-Image 2.1."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from transformers import Qwen3VLForConditionalGeneration

from tiny.encoders import qwen3vl
from tiny.parts import listening, seeded
from tiny.registry import register
from tiny.tokenizers import qwen_processor


@register("qwen_image21", own_latents=True)
def pipeline(seed: int = 0) -> QwenImage21Pipeline:
    """Qwen3-VL of width 32 inside a processor, a VAE of RGBA films, a transformer of one block."""
    with seeded(seed):
        processor = qwen_processor()
        return QwenImage21Pipeline(
            processor=processor,
            text_encoder=qwen3vl(
                Qwen3VLForConditionalGeneration, vocab_size=len(processor.tokenizer) + 9
            ),
            vae=AutoencoderKLQwenImage21(
                base_dim=8,
                decoder_base_dim=8,
                z_dim=4,
                dim_mult=[1, 1, 1, 1, 1],
                num_res_blocks=1,
                temperal_downsample=[False, False, False, False],
                latents_mean=[-0.7571, 0.1075, 1.5508, 0.4134],
                latents_std=[2.8184, 1.4541, 0.7708, 1.6052],
            ),
            transformer=listening(
                QwenImage21Transformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    context_in_dim=32,
                    axes_dims_rope=(4, 6, 6),
                ),
                "to_v",
                "to_out",
                "txt_in",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192
            ),
        )
