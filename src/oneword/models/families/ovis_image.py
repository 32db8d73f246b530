"""Ovis-Image: Flux without CLIP; the language model Qwen3 reads an instruction and the prompt.

Wang et al. 2025, arXiv:2511.22982.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import OvisImagePipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import PATCHES_IN_ROW, Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, chat_tokens, key_of, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
TOKENS = 256
_TEXT_ENCODERS = {2048: "qwen3_2b"}


def load(config: ModelConfig) -> OvisImage:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Ovis-Image")
    return OvisImage(load_pipeline(config, OvisImagePipeline, config.model), config)


class OvisImage(OneEncoder):
    """A frozen Ovis-Image pipeline behind the contract of ``models.contract``."""

    mask_at = None  # the states of padding are zeros, and the denoiser reads them

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3")
        template = chat_tokens(
            pipeline.tokenizer,
            config.model,
            [{"role": "user", "content": pipeline.system_prompt}],
            add_generation_prompt=True,
            enable_thinking=False,
        )
        longest = TOKENS + pipeline.user_prompt_begin_id - template
        super().__init__(
            pipeline,
            config,
            family="ovis_image",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model, packing=PATCHES_IN_ROW),
            encoders={key: ("tokenizer", encoder, max(1, longest))},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": TOKENS}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        states = self._states(cond)
        height, width = x_t.shape[-2:]
        places = self.pipeline._prepare_latent_image_ids(
            1, height // 2, width // 2, self.device, self.dtype
        )
        # text tokens have positions on the diagonal
        tokens = torch.arange(states.shape[1], device=self.device, dtype=self.dtype)
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t.to(self.dtype),
            encoder_hidden_states=states,
            txt_ids=torch.stack([torch.zeros_like(tokens), tokens, tokens], dim=1),
            img_ids=places,
        ).sample
        return self.autoencoder.unpack(velocity, (height, width)).float()
