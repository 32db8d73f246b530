"""A tiny pipeline of DreamLite."""

from __future__ import annotations

from diffusers import (
    AutoencoderTiny,
    DreamLiteMobilePipeline,
    DreamLitePipeline,
    DreamLiteUNetModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import Qwen3VLForConditionalGeneration

from tiny.encoders import qwen3vl
from tiny.parts import listening, seeded
from tiny.registry import register
from tiny.tokenizers import qwen_processor, qwen_tokenizer


@register("dreamlite")
def pipeline(
    kind: type[DreamLitePipeline] | type[DreamLiteMobilePipeline] = DreamLitePipeline, seed: int = 0
) -> DreamLitePipeline | DreamLiteMobilePipeline:
    """Qwen3-VL of width 32, a UNet of two blocks, a tiny autoencoder of cells of 2 px."""
    with seeded(seed):
        tokens = qwen_tokenizer(1024)
        return kind(
            text_encoder=qwen3vl(Qwen3VLForConditionalGeneration, vocab_size=len(tokens) + 9),
            tokenizer=tokens,
            processor=qwen_processor(),
            vae=AutoencoderTiny(
                encoder_block_out_channels=(8, 8),
                decoder_block_out_channels=(8, 8),
                num_encoder_blocks=(1, 1),
                num_decoder_blocks=(1, 1),
                scaling_factor=1.3,
                shift_factor=0.1,
            ),
            unet=listening(
                DreamLiteUNetModel(
                    down_block_types=(
                        "DreamLiteCrossAttnNoSelfAttnDownBlock2D",
                        "DreamLiteCrossAttnDownBlock2D",
                    ),
                    up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
                    block_out_channels=(16, 32),
                    layers_per_block=1,
                    norm_num_groups=4,
                    cross_attention_dim=32,
                    attention_head_dim=2,
                    encoder_hid_dim=32,
                    encoder_hid_dim_type="text_proj_rms",
                    addition_embed_type="time",
                    addition_time_embed_dim=8,
                    projection_class_embeddings_input_dim=16,
                    ff_mult=2,
                ),
                "attn2.to_v",
                "attn2.to_out",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=1.16),
        )


@register("dreamlite", "mobile")
def mobile() -> DreamLiteMobilePipeline:
    """Mobile, of the same parts."""
    return pipeline(DreamLiteMobilePipeline)
