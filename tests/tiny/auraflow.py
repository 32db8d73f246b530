"""A tiny pipeline of AuraFlow."""

from __future__ import annotations

from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
from transformers import UMT5Config, UMT5EncoderModel

from tiny.parts import listening, seeded, vae
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


@register("auraflow")
def pipeline(seed: int = 2) -> AuraFlowPipeline:
    """A UMT5 of width 32, a transformer of one joint and one single block, which listen.

    Among 256 tokens of padding a prompt would otherwise move the output by 1e-5 of itself.
    """
    with seeded(seed):
        tokens = t5_tokenizer()
        return AuraFlowPipeline(
            tokenizer=tokens,
            text_encoder=UMT5EncoderModel(
                UMT5Config(
                    vocab_size=len(tokens) + 9,
                    d_model=32,
                    d_kv=8,
                    d_ff=64,
                    num_layers=2,
                    num_heads=4,
                )
            ),
            vae=vae(4, scaling_factor=0.13025),
            transformer=listening(
                AuraFlowTransformer2DModel(
                    sample_size=8,
                    patch_size=2,
                    in_channels=4,
                    out_channels=4,
                    num_mmdit_layers=1,
                    num_single_dit_layers=1,
                    attention_head_dim=8,
                    num_attention_heads=4,
                    joint_attention_dim=32,
                    caption_projection_dim=32,
                    pos_embed_max_size=64,
                ),
                "norm1",
                "attn.",
                "ff.",
                factor=4.0,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        )
