"""A tiny pipeline of Bria 3.2."""

from __future__ import annotations

from diffusers import BriaPipeline, BriaTransformer2DModel, FlowMatchEulerDiscreteScheduler

from tiny.encoders import t5
from tiny.parts import listening, seeded, vae
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


@register("bria")
def pipeline(seed: int = 0) -> BriaPipeline:
    """A T5 of width 48, a transformer of one double and one single block."""
    with seeded(seed):
        return BriaPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.13025, shift_factor=0.0),
            transformer=listening(
                BriaTransformer2DModel(
                    patch_size=1,
                    in_channels=16,
                    num_layers=1,
                    num_single_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    joint_attention_dim=48,
                    axes_dims_rope=(4, 4, 8),
                ),
                "norm1.linear",
                "norm.linear",
                "to_v",
                "to_out",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )
