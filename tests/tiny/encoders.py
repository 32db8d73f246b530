"""Text encoders of several families, a few dozen wide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Mistral3Config,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    T5Config,
    T5EncoderModel,
)

from tiny.tokenizers import gemma_tokenizer, qwen_tokenizer, t5_tokenizer, tokenizer


def clip(width: int = 32, *, projection: bool = False, context: int = 77) -> CLIPTextModel:
    """A CLIP text encoder that pools at the highest id, as those on the hub do."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3 if projection else 2,
        num_attention_heads=4,
        max_position_embeddings=context,
        eos_token_id=2,
        projection_dim=width,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(width: int) -> T5EncoderModel:
    """A T5 encoder whose table, as the real one's, has more rows than the tokenizer has tokens."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()) + 9,
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def gemma(width: int = 32) -> Gemma2Model:
    """A Gemma, which multiplies what it looks up by the root of its width."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(gemma_tokenizer()),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )


def language_model(width: int, layers: int, **options: object) -> dict[str, object]:
    """Settings that the language models' configurations share."""
    return {
        "vocab_size": len(qwen_tokenizer()) + 9,  # the real tables have spare rows, too
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": width // 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.6 / layers,  # so that bf16 goes through thirty layers
        **options,
    }


def qwen25_vl(layers: int) -> Qwen2_5_VLForConditionalGeneration:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=language_model(32, layers, rope_parameters=rope),
            vision_config={
                "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                "out_hidden_size": 32, "fullatt_block_indexes": [0],
            },
        )
    )  # fmt: skip


def qwen3vl(kind: Callable[[Qwen3VLConfig], Any], **options: object) -> Any:
    """Qwen3-VL of width 32 and two layers."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = Qwen3VLConfig(
        text_config=language_model(32, 2, rope_parameters=rope, **options),
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 32, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    )  # fmt: skip
    return kind(config)


def mistral3(width: int, layers: int, kind: str, **options: object) -> Mistral3Config:
    vision = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "head_dim": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    text = {"model_type": kind} | language_model(width, layers, **options)
    return Mistral3Config(text_config=text, vision_config=vision)
