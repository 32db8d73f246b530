"""A tiny pipeline of CogView3-Plus."""

from __future__ import annotations

from diffusers import CogVideoXDDIMScheduler, CogView3PlusPipeline, CogView3PlusTransformer2DModel

from tiny.encoders import t5
from tiny.parts import listening, seeded, vae
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


@register("cogview3")
def pipeline(seed: int = 0) -> CogView3PlusPipeline:
    """A T5 of width 48, a transformer of one layer, a schedule that ends in noise alone."""
    with seeded(seed):
        return CogView3PlusPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            vae=vae(4, scaling_factor=0.13025),
            transformer=listening(
                CogView3PlusTransformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=1,
                    attention_head_dim=8,
                    num_attention_heads=4,
                    text_embed_dim=48,
                    time_embed_dim=16,
                    condition_dim=8,
                    sample_size=8,
                    pos_embed_max_size=8,
                ),
                "norm1.linear",
                "to_v",
                "to_out",
            ),
            scheduler=CogVideoXDDIMScheduler(
                prediction_type="v_prediction",
                clip_sample=False,
                timestep_spacing="trailing",
                rescale_betas_zero_snr=True,
                snr_shift_scale=4.0,
            ),
        )
