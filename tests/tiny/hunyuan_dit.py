"""A tiny pipeline of Hunyuan-DiT."""

from __future__ import annotations

from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
from transformers import BertConfig, BertModel

from tiny.encoders import t5
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import bert_tokenizer, t5_tokenizer


@register("hunyuan_dit")
def pipeline(seed: int = 0, **options: object) -> HunyuanDiTPipeline:
    """A BERT of width 32 and a T5 of 48, a transformer of four layers, the last with a skip."""
    with seeded(seed):
        tokens = bert_tokenizer()
        bert = BertConfig(
            vocab_size=len(tokens),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
        )
        return HunyuanDiTPipeline(
            tokenizer=tokens,
            text_encoder=BertModel(bert, add_pooling_layer=False),
            tokenizer_2=t5_tokenizer(),
            text_encoder_2=t5(48),
            vae=vae(4, scaling_factor=0.13025),
            transformer=HunyuanDiT2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                num_layers=4,
                hidden_size=32,
                num_attention_heads=4,
                attention_head_dim=8,
                cross_attention_dim=32,
                cross_attention_dim_t5=48,
                pooled_projection_dim=16,
                **options,
            ),
            scheduler=DDPMScheduler(
                beta_start=0.00085,
                beta_end=0.018,
                beta_schedule="scaled_linear",
                clip_sample=False,
                steps_offset=1,
                prediction_type="v_prediction",
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
