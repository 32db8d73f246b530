"""A tiny pipeline of Lumina-Next."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LuminaNextDiT2DModel, LuminaPipeline
from transformers import GemmaConfig, GemmaModel

from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import gemma_tokenizer


@register("lumina")
def pipeline(seed: int = 2) -> LuminaPipeline:
    """A Gemma of the first kind and of width 32, a transformer of two layers with open gates."""
    with seeded(seed):
        tokens = gemma_tokenizer()
        transformer = LuminaNextDiT2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=32,
            num_layers=2,
            num_attention_heads=4,
            num_kv_heads=2,
            multiple_of=16,
            cross_attention_dim=32,
        )
        torch.nn.init.zeros_(transformer.pad_token)  # which its class leaves as memory had it
        for layer in transformer.layers:
            torch.nn.init.ones_(layer.gate)  # closed before training
        return LuminaPipeline(
            tokenizer=tokens,
            text_encoder=GemmaModel(
                GemmaConfig(
                    vocab_size=len(tokens),
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    head_dim=8,
                )
            ),
            vae=vae(4, scaling_factor=0.13025),
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0),
        )
