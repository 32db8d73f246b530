"""A tiny pipeline of PRX and PRXPixel."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    FlowMatchEulerDiscreteScheduler,
    PRXPipeline,
    PRXPixelPipeline,
    PRXTransformer2DModel,
)
from transformers import Qwen3VLForConditionalGeneration, T5GemmaConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from tiny.encoders import qwen3vl
from tiny.parts import seeded, vae
from tiny.registry import register
from tiny.tokenizers import gemma_tokenizer, qwen_tokenizer


@register("prx")
def pipeline(seed: int = 0, *, autoencoder: AutoencoderDC | None = None) -> PRXPipeline:
    """The encoder of a T5-Gemma of width 32, a transformer of two layers with open gates."""
    with seeded(seed):
        tokens = gemma_tokenizer()
        tokens.model_max_length = 64
        autoencoder = autoencoder or vae(4, scaling_factor=0.3611, shift_factor=0.1159)
        transformer = PRXTransformer2DModel(
            in_channels=autoencoder.config.latent_channels,
            context_in_dim=32,
            hidden_size=32,
            mlp_ratio=2.0,
            num_heads=2,
            depth=2,
            axes_dim=[8, 8],
        )
        for block in transformer.blocks:
            torch.nn.init.ones_(block.modulation.lin.bias)  # closed before training
        whole = _t5gemma(len(tokens))
        made = PRXPipeline(
            tokenizer=tokens,
            text_encoder=T5GemmaEncoder(whole.encoder),
            vae=autoencoder,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            default_sample_size=64,
        )
        save = made.save_pretrained

    def save_whole(folder: Path) -> None:
        """Its loader looks for the settings of a whole T5-Gemma."""
        save(folder)
        whole.save_pretrained(folder / "text_encoder")

    made.save_pretrained = save_whole
    return made


@register("prx", "pixel")
def pixel(seed: int = 0) -> PRXPixelPipeline:
    """Qwen3-VL of width 32, a transformer of two layers with open gates on patches of 4 px."""
    with seeded(seed):
        tokens = qwen_tokenizer()
        transformer = PRXTransformer2DModel(
            in_channels=3,
            patch_size=4,
            context_in_dim=32,
            hidden_size=32,
            mlp_ratio=2.0,
            num_heads=2,
            depth=2,
            axes_dim=[8, 8],
            bottleneck_size=24,
            resolution_embeds=True,
        )
        for block in transformer.blocks:
            torch.nn.init.ones_(block.modulation.lin.bias)  # closed before training
        whole = qwen3vl(Qwen3VLForConditionalGeneration, vocab_size=len(tokens) + 9)
        return PRXPixelPipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=whole.model.language_model,
            tokenizer=tokens,
            default_sample_size=64,
            prompt_max_tokens=48,
        )


def _t5gemma(vocab_size: int) -> T5GemmaConfig:
    """Settings of a whole T5-Gemma, of which PRX has the encoder."""
    half = {
        "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    return T5GemmaConfig(encoder=half, decoder=half, vocab_size=vocab_size)
