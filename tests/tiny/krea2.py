"""A tiny pipeline of Krea 2."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, Krea2Pipeline, Krea2Transformer2DModel
from transformers import Qwen3VLModel

from tiny.encoders import qwen3vl
from tiny.parts import film_vae, listening, seeded
from tiny.registry import register
from tiny.tokenizers import qwen_tokenizer


@register("krea2", unguided=0.0, own_latents=True)
def pipeline(seed: int = 0) -> Krea2Pipeline:
    """Qwen3-VL of width 32, of which two layers are read, and a transformer of one block."""
    with seeded(seed):
        return Krea2Pipeline(
            tokenizer=qwen_tokenizer(1024),
            text_encoder=qwen3vl(Qwen3VLModel),
            text_encoder_select_layers=(1, 2),
            vae=film_vae(),
            transformer=listening(
                Krea2Transformer2DModel(
                    in_channels=16,
                    num_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    num_key_value_heads=2,
                    intermediate_size=32,
                    timestep_embed_dim=16,
                    text_hidden_dim=32,
                    num_text_layers=2,
                    text_num_attention_heads=2,
                    text_num_key_value_heads=2,
                    text_intermediate_size=32,
                    num_layerwise_text_blocks=1,
                    num_refiner_text_blocks=1,
                    axes_dims_rope=(4, 6, 6),
                ),
                "to_v",
                "to_out",
                "txt_in",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=6400
            ),
        )
