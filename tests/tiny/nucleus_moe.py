"""A tiny pipeline of Nucleus-MoE-Image."""

from __future__ import annotations

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
)
from transformers import Qwen3VLForConditionalGeneration

from tiny.encoders import qwen3vl
from tiny.parts import film_vae, listening, seeded
from tiny.registry import register
from tiny.tokenizers import qwen_processor


@register("nucleus_moe", own_latents=True)
def pipeline(seed: int = 0) -> NucleusMoEImagePipeline:
    """Qwen3-VL of width 32 and nine layers, of which the second is read; two blocks of experts."""
    with seeded(seed):
        processor = qwen_processor()
        transformer = NucleusMoEImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
            dense_moe_strategy="all_moe",
            num_experts=4,
            moe_intermediate_dim=16,
            capacity_factors=2.0,
        )
        for name, weight in transformer.named_parameters():
            if "experts." in name:  # not initialised by its class
                torch.nn.init.normal_(weight, std=0.2)
        return NucleusMoEImagePipeline(
            processor=processor,
            text_encoder=qwen3vl(
                Qwen3VLForConditionalGeneration,
                vocab_size=len(processor.tokenizer) + 9,
                num_hidden_layers=9,
            ),
            vae=film_vae(),
            transformer=listening(transformer, "add_v_proj", "to_out"),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )
