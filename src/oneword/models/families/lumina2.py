"""Lumina-Image 2: Gemma with a system prompt; the flow runs from noise to the picture.

Qin et al. 2025, arXiv:2503.21758.
"""

from __future__ import annotations

from typing import Any

from diffusers import Lumina2Pipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=30)
GEMMA_TOKENS = 256


def load(config: ModelConfig) -> Lumina2:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its system prompt leaves no room for a prompt.
    """
    refuse_clip_skip(config, "Lumina 2")
    return Lumina2(load_pipeline(config, Lumina2Pipeline, config.model), config)


class Lumina2(OneEncoder):
    """A frozen Lumina 2 pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        before = f"{pipeline.system_prompt} <Prompt Start> "
        used = len(pipeline.tokenizer(before, add_special_tokens=False).input_ids)
        if used >= GEMMA_TOKENS - 1:
            raise ModelError(
                f"The system prompt of {config.model} must leave room for a prompt in "
                f"{GEMMA_TOKENS} tokens, got {used} tokens; its tokenizer may belong to another "
                "model."
            )
        super().__init__(
            pipeline,
            config,
            family="lumina2",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={"gemma": ("tokenizer", pipeline.text_encoder, GEMMA_TOKENS - used)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_image_size,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": GEMMA_TOKENS}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity towards the noise, float32; the transformer's own points to the picture."""
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=1 - t,
            encoder_hidden_states=self._states(cond),
            encoder_attention_mask=cond.extra["mask"],
        )
        return -output.sample.float()
