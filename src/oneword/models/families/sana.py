"""Sana: straight flow, an autoencoder that shrinks by 32, and Gemma with an instruction.

Xie et al. 2024, arXiv:2410.10629.
"""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import SanaPipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline, refuse_vae
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, refuse_clip_skip, spare_words


# the defaults of diffusers' pipeline, which puts its instruction before every prompt
DEFAULTS = SamplingConfig(guidance_scale=4.5, num_inference_steps=20)
INSTRUCTION: list[str] = (
    inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
)
GEMMA_TOKENS = 300


def load(config: ModelConfig) -> Sana:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "Sana")
    refuse_vae(config)
    return Sana(load_pipeline(config, SanaPipeline, config.model), config)


class Sana(OneEncoder):
    """A frozen Sana pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        spare_words(pipeline)
        super().__init__(
            pipeline,
            config,
            family="sana",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, pipeline.vae_scale_factor),
            # one of the tokens that the pipeline keeps is the last of the instruction
            encoders={"gemma": ("tokenizer", pipeline.text_encoder, GEMMA_TOKENS - 1)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {
            "clean_caption": False,
            "max_sequence_length": GEMMA_TOKENS,
            "complex_human_instruction": INSTRUCTION,
        }
        self.draw_options = {"use_resolution_binning": False}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        scale = self.pipeline.scheduler.config.num_train_timesteps
        output = self.denoiser(
            x_t.to(self.dtype),
            encoder_hidden_states=self._states(cond),
            encoder_attention_mask=cond.extra["mask"],
            timestep=t * scale * self.denoiser.config.timestep_scale,
        ).sample
        return output[:, : x_t.shape[1]].float()
