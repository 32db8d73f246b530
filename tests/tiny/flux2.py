"""A tiny pipeline of Flux.2."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from transformers import Mistral3ForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM

from tiny.encoders import language_model, mistral3
from tiny.parts import flux2_vae, seeded
from tiny.registry import register
from tiny.tokenizers import mistral_processor, qwen_tokenizer


@register("flux2", unguided=None, own_latents=True)
def klein(seed: int = 0, *, distilled: bool = True) -> Flux2KleinPipeline:
    """Qwen3 of width 16, with as many layers as the pipeline looks for."""
    with seeded(seed):
        return Flux2KleinPipeline(
            **_flux2_parts(16, guidance=False),
            text_encoder=Qwen3ForCausalLM(Qwen3Config(**language_model(16, 28))),
            tokenizer=qwen_tokenizer(),
            is_distilled=distilled,
        )


@register("flux2", "dev", unguided=None, own_latents=True, draws=("from noise",))
def dev(seed: int = 0) -> Flux2Pipeline:
    """Mistral of width 16, with as many layers as the pipeline looks for, and a processor."""
    with seeded(seed):
        processor = mistral_processor()
        config = mistral3(16, 31, "mistral", vocab_size=len(processor.tokenizer) + 9)
        return Flux2Pipeline(
            **_flux2_parts(16, guidance=True),
            text_encoder=Mistral3ForConditionalGeneration(config),
            tokenizer=processor,
        )


def _flux2_parts(width: int, *, guidance: bool) -> dict[str, object]:
    autoencoder = flux2_vae()
    return {
        "transformer": Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * width,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guidance,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": autoencoder,
    }
