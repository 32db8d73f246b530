"""Lumina-Next: Gemma reads the prompt; the flow runs from noise to the picture.

Zhuo et al. 2024, arXiv:2406.18583.
"""

from __future__ import annotations

import math
from typing import Any

from diffusers import LuminaPipeline
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, refuse_clip_skip, spare_words


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=30)


def load(config: ModelConfig) -> Lumina:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "Lumina-Next")
    return Lumina(load_pipeline(config, LuminaPipeline, config.model), config)


class Lumina(OneEncoder):
    """A frozen Lumina-Next pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        spare_words(pipeline)
        super().__init__(
            pipeline,
            config,
            family="lumina",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={"gemma": ("tokenizer", pipeline.text_encoder, pipeline.max_sequence_length)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_image_size,
            sampling=DEFAULTS,
        )
        # lower-cased, but text that looks like HTML is kept
        self.prompt_options = {"clean_caption": False}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity towards the noise, float32; the transformer's own points to the picture."""
        usual = self.pipeline.default_image_size
        height, width = x_t.shape[-2:]
        places = get_2d_rotary_pos_embed_lumina(
            self.denoiser.head_dim,
            height // self.denoiser.patch_size,
            width // self.denoiser.patch_size,
            # for a larger picture the pipeline uses this one of the two factors at all times
            linear_factor=math.sqrt(width * height) * self.autoencoder.factor / usual,
        )
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=1 - t,
            encoder_hidden_states=self._states(cond),
            encoder_mask=cond.extra["mask"],
            image_rotary_emb=places,
            cross_attention_kwargs={"base_sequence_length": (usual // 16) ** 2},
        )
        return -output.sample[:, : x_t.shape[1]].float()
