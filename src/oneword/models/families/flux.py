"""Flux.1 dev and schnell: CLIP's pooled output and T5, with straight flow on packed latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxPipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import PATCHES_IN_ROW, Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import refuse_clip_skip, refuse_negative_prompt


# the defaults of diffusers' pipeline; schnell has no guidance and needs four steps
DEFAULTS = SamplingConfig(guidance_scale=3.5, num_inference_steps=28)
FEW_STEPS = SamplingConfig(guidance_scale=0.0, num_inference_steps=4)
T5_TOKENS = 512


def load(config: ModelConfig) -> Flux:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "Flux", pools=True)
    return Flux(load_pipeline(config, FluxPipeline, config.model), config)


class Flux(FamilyPipeline):
    """A frozen Flux pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        guided = pipeline.transformer.config.guidance_embeds
        longest = min(T5_TOKENS, pipeline.tokenizer_2.model_max_length)
        super().__init__(
            pipeline,
            config,
            family="flux",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, packing=PATCHES_IN_ROW),
            encoders={
                "clip_l": ("tokenizer", pipeline.text_encoder, None),
                "t5xxl": ("tokenizer_2", pipeline.text_encoder_2, longest),
            },
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS if guided else FEW_STEPS,
        )
        self.t5_tokens = longest

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of T5, and CLIP's pooled output."""
        states, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            device=self.device,
            num_images_per_prompt=1,
            max_sequence_length=self.t5_tokens,
        )
        return Conditioning(states, pooled)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32, at the guidance that pictures are drawn with."""
        states = self._states(cond)
        count, height, width = len(x_t), *x_t.shape[-2:]
        places = self.pipeline._prepare_latent_image_ids(
            count, height // 2, width // 2, self.device, self.dtype
        )
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t.to(self.dtype),
            guidance=self._guidance(count),
            encoder_hidden_states=states,
            pooled_projections=self._pooled(cond),
            txt_ids=torch.zeros(states.shape[1], 3, device=self.device, dtype=self.dtype),
            img_ids=places,
        ).sample
        return self.autoencoder.unpack(velocity, (height, width)).float()

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        refuse_negative_prompt(sampling, "Flux")
        return {"max_sequence_length": self.t5_tokens}
