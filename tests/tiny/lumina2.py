"""A tiny pipeline of Lumina 2."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

from tiny.encoders import gemma
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import gemma_tokenizer


@register("lumina2")
def pipeline(seed: int = 0) -> Lumina2Pipeline:
    """A Gemma of width 32, a transformer of two layers."""
    with seeded(seed):
        return Lumina2Pipeline(
            tokenizer=gemma_tokenizer(),
            text_encoder=gemma(),
            vae=vae(4, channels=16, scaling_factor=0.3611, shift_factor=0.1159),
            transformer=Lumina2Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=16,
                hidden_size=32,
                num_layers=2,
                num_refiner_layers=1,
                num_attention_heads=4,
                num_kv_heads=2,
                multiple_of=16,
                axes_dim_rope=(4, 2, 2),
                axes_lens=(300, 32, 32),
                cap_feat_dim=32,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        )
