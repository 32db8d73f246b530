"""Bria 3.2: Flux without CLIP or distilled guidance; T5 with its padding set to zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import BriaPipeline, FlowMatchEulerDiscreteScheduler

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline, quiet
from oneword.models.autoencoders import PATCHES_IN_ROW, Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=30)
T5_TOKENS = 128


def load(config: ModelConfig) -> Bria:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or is not a flow model.
    """
    refuse_clip_skip(config, "Bria")
    return Bria(load_pipeline(config, BriaPipeline, config.model), config)


class Bria(OneEncoder):
    """A frozen Bria pipeline behind the contract of ``models.contract``."""

    mask_at = None  # the pipeline encodes prompts one by one and pads with zeros

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        kind = type(pipeline.scheduler)
        if not issubclass(kind, FlowMatchEulerDiscreteScheduler):
            raise ModelError(
                f"A Bria model must come with FlowMatchEulerDiscreteScheduler, got "
                f"{kind.__name__} in {config.model}; earlier versions are not supported."
            )
        super().__init__(
            pipeline,
            config,
            family="bria",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, packing=PATCHES_IN_ROW),
            encoders={"t5xxl": ("tokenizer", pipeline.text_encoder, T5_TOKENS)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": T5_TOKENS}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of T5, padded with zeros."""
        with quiet():  # it reports all prompts of a batch but the longest as truncated
            return super()._read(prompts)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        states = self._states(cond)
        height, width = x_t.shape[-2:]
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t * self.pipeline.scheduler.config.num_train_timesteps,
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=self.device),
            img_ids=self.pipeline._prepare_latent_image_ids(
                1, height // 2, width // 2, self.device, self.dtype
            )[0],
        ).sample
        return self.autoencoder.unpack(velocity, (height, width)).float()
