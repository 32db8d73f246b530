"""A tiny pipeline of Flux."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from tiny.encoders import clip, t5
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer, tokenizer


@register("flux", unguided=None)
def pipeline(seed: int = 0, *, guidance: bool = True) -> FluxPipeline:
    """CLIP of width 32, T5 of width 48, a transformer of one double and one single block."""
    with seeded(seed):
        return FluxPipeline(
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                pooled_projection_dim=32,
                axes_dims_rope=(4, 4, 8),
                guidance_embeds=guidance,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance),
            vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=clip(),
            tokenizer=tokenizer(),
            text_encoder_2=t5(48),
            tokenizer_2=t5_tokenizer(),
        )
