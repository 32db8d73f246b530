"""Qwen-Image 2.1: Qwen3-VL reads the prompt, which precedes the cells of the picture.

The autoencoder takes pictures with transparency and maps 16 x 16 pixels to a cell, which is one
token of the transformer. Prompt and picture form one sequence, in which the prompt is causal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import CELLS_IN_ROW, Film
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip


# the defaults of diffusers' pipeline, which is designed to draw without guidance
DEFAULTS = SamplingConfig(guidance_scale=1.0, num_inference_steps=40)
SIDE_PX = 1024
CELLS_PER_SLOT = 4  # cells of the picture for each slot of the transformer's mask
NO_PROMPT = " "  # the negative prompt that guidance needs, as in Qwen-Image
_TEXT_ENCODERS = {2560: "qwen3vl_4b", 4096: "qwen3vl_8b"}


def load(config: ModelConfig) -> QwenImage21:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Qwen-Image 2.1")
    pipeline = load_pipeline(
        config, QwenImage21Pipeline, config.model, autoencoder=AutoencoderKLQwenImage21
    )
    return QwenImage21(pipeline, config)


class ClearFilm(Film):
    """Films with transparency: pictures go in opaque, and come out on white."""

    def _taken(self, pixels: Tensor) -> Tensor:
        return super()._taken(torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1))

    def _shown(self, decoded: Tensor) -> Tensor:
        found = super()._shown(decoded).clamp(-1, 1)
        opacity = (found[:, 3:] + 1) / 2
        return found[:, :3] * opacity + (1 - opacity)


class QwenImage21(FamilyPipeline):
    """A frozen Qwen-Image 2.1 pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3vl")
        levels = pipeline.config.sample_sigmas  # the noise levels of a distilled model's steps
        sampling = replace(DEFAULTS, num_inference_steps=len(levels)) if levels else DEFAULTS
        super().__init__(
            pipeline,
            config,
            family="qwen_image21",
            denoiser=pipeline.transformer,
            autoencoder=ClearFilm(
                pipeline.vae, config.model, pipeline.vae_scale_factor, CELLS_IN_ROW
            ),
            # the pipeline cuts nothing off
            encoders={key: ("processor.tokenizer", encoder, None)},
            noise=Flow(pipeline.scheduler, patch=1),
            resolution=SIDE_PX,
            sampling=sampling,
        )

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states after the system prompt; with a mask if prompts differ in length."""
        states, mask, _ = self.pipeline.encode_prompt(list(prompts), device=self.device)
        return Conditioning(states, extra={} if mask is None else {"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        states = self._states(cond)
        count, height, width = len(x_t), *x_t.shape[-2:]
        of_picture = torch.arange(
            states.shape[1] + height * width // CELLS_PER_SLOT, device=self.device
        )
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t.to(self.dtype),
            encoder_hidden_states=states,
            encoder_hidden_states_mask=cond.extra.get("mask"),
            img_shapes=[[(1, height, width)]] * count,
            img_mask=(of_picture >= states.shape[1]).expand(count, -1),
        ).sample
        return self.autoencoder.unpack(velocity[:, -height * width :], (height, width)).float()

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        scale = sampling.guidance_scale or 1.0
        negative = sampling.negative_prompt or NO_PROMPT
        steps, levels = sampling.num_inference_steps or 1, self.pipeline.config.sample_sigmas
        if levels and len(levels) != steps:  # otherwise the requested number would be ignored
            levels = np.linspace(1.0, 1 / steps, steps)
        return {
            "true_cfg_scale": scale,
            "negative_prompt": negative if scale > 1 else None,
            "sigmas": levels,
        }
