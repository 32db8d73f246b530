"""PixArt-Alpha and PixArt-Sigma: T5 with its mask, and a transformer that predicts the noise.

Chen et al. 2023, arXiv:2310.00426, and 2024, arXiv:2403.04692.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, PixArtSigmaPipeline
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Diffusion
from oneword.models.reading import OneEncoder, refuse_clip_skip, spare_words


# the defaults of diffusers' pipelines
DEFAULTS = SamplingConfig(guidance_scale=4.5, num_inference_steps=20)
ALPHA_TOKENS, SIGMA_TOKENS = 120, 300


def load(config: ModelConfig) -> PixArt:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    refuse_clip_skip(config, "PixArt")
    return PixArt(load_pipeline(config, DiffusionPipeline, config.model), config)


class PixArt(OneEncoder):
    """A frozen PixArt pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        spare_words(pipeline)
        longest = SIGMA_TOKENS if isinstance(pipeline, PixArtSigmaPipeline) else ALPHA_TOKENS
        super().__init__(
            pipeline,
            config,
            family="pixart",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={"t5xxl": ("tokenizer", pipeline.text_encoder, longest)},
            noise=Diffusion(pipeline.scheduler, pipeline.transformer.device),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        # lower-cased, but text that looks like HTML is kept
        self.prompt_options = {"clean_caption": False, "max_sequence_length": longest}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The noise that the transformer predicts, float32, without its predicted variance."""
        output = self.denoiser(
            x_t.to(self.dtype),
            encoder_hidden_states=self._states(cond),
            encoder_attention_mask=cond.extra["mask"],
            timestep=t,
            added_cond_kwargs=self._size(x_t),
        ).sample
        return output[:, : x_t.shape[1]].float()

    def _size(self, x_t: Latents) -> dict[str, Tensor | None]:
        """Size and aspect of the picture, which Alpha at 1024 px is given, as in drawing."""
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.autoencoder.factor for side in x_t.shape[-2:])
        told = {"resolution": [height, width], "aspect_ratio": [height / width]}
        return {
            name: torch.tensor([value] * len(x_t), device=self.device, dtype=self.dtype)
            for name, value in told.items()
        }

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        solver = isinstance(self.pipeline.scheduler, DPMSolverMultistepScheduler)
        alpha = not isinstance(self.pipeline, PixArtSigmaPipeline)
        if solver and alpha and sampling.num_inference_steps == 1:
            # for 1 step its pipeline needs a value that only one-step schedulers return
            raise ModelError(
                "PixArt-Alpha must be drawn in 2 steps or more with the scheduler of "
                f"{self.name}, got 1; pass --num-inference-steps 20."
            )
        return {"use_resolution_binning": False}
