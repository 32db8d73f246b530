"""A tiny pipeline of Chroma."""

from __future__ import annotations

from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

from tiny.encoders import t5
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


@register("chroma")
def pipeline(seed: int = 0) -> ChromaPipeline:
    """T5 of width 48, a transformer of one double and one single block."""
    with seeded(seed):
        return ChromaPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159),
            transformer=ChromaTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                axes_dims_rope=(4, 4, 8),
                approximator_num_channels=8,
                approximator_hidden_dim=16,
                approximator_layers=1,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )
