"""Chroma: Flux without CLIP or distilled guidance; T5 with its mask."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from diffusers import ChromaPipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import PATCHES_IN_ROW, Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=35)
T5_TOKENS = 512


def load(config: ModelConfig) -> Chroma:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "Chroma")
    with warnings.catch_warnings():  # about a class that the transformer itself still imports
        warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)
        pipeline = load_pipeline(config, ChromaPipeline, config.model)
    return Chroma(pipeline, config)


class Chroma(OneEncoder):
    """A frozen Chroma pipeline behind the contract of ``models.contract``."""

    mask_at = 2  # the mask leaves one token of padding visible

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        super().__init__(
            pipeline,
            config,
            family="chroma",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, packing=PATCHES_IN_ROW),
            encoders={"t5xxl": ("tokenizer", pipeline.text_encoder, T5_TOKENS)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": T5_TOKENS}
        self._checkpoint: Any = getattr(self.denoiser, "_gradient_checkpointing_func", None)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        states = self._states(cond)
        count, height, width = len(x_t), *x_t.shape[-2:]
        packed = self.autoencoder.pack(x_t.to(self.dtype))
        mask = self.pipeline._prepare_attention_mask(
            count, packed.shape[1], self.dtype, cond.extra["mask"].to(self.dtype)
        )
        if self.denoiser.gradient_checkpointing:
            # diffusers then forgets the mask of the single blocks, which is their fourth argument
            self.denoiser._gradient_checkpointing_func = lambda block, *args: self._checkpoint(
                block, *args, *((mask,) if len(args) == 3 else ())
            )
        velocity = self.denoiser(
            hidden_states=packed,
            timestep=t.to(self.dtype),
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=self.device, dtype=self.dtype),
            img_ids=self.pipeline._prepare_latent_image_ids(
                count, height // 2, width // 2, self.device, self.dtype
            ),
            attention_mask=mask,
        ).sample
        return self.autoencoder.unpack(velocity, (height, width)).float()
