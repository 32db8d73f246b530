"""CogView4: the language model GLM reads the prompt; the denoiser is given unshifted times.

Zheng et al. 2024, arXiv:2403.05121, describe CogView3; there is no paper on CogView4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffusers import CogView4Pipeline
from diffusers.pipelines.cogview4.pipeline_cogview4 import calculate_shift

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Flow
from oneword.models.reading import OneLength, key_of, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
GLM_TOKENS = 1024
_TEXT_ENCODERS = {4096: "glm4_9b"}


def load(config: ModelConfig) -> CogView4:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "CogView4")
    return CogView4(load_pipeline(config, CogView4Pipeline, config.model), config)


class CogView4(OneLength):
    """A frozen CogView4 pipeline behind the contract of ``models.contract``."""

    block = 16  # the pipeline pads prompts to multiples of this number of tokens
    tells_sizes = True

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "glm4")
        super().__init__(
            pipeline,
            config,
            family="cogview4",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={key: ("tokenizer", encoder, GLM_TOKENS)},
            noise=Flow(pipeline.scheduler, self._shift),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": GLM_TOKENS}

    def _read_alike(self, prompts: Sequence[str]) -> Conditioning:
        """GLM's hidden states before its last layer, including the padding."""
        found = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            device=self.device,
            **self.prompt_options,
        )
        return Conditioning(found[0])

    def _denoise_alike(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32, given the size and the crop's position."""
        scale = self.pipeline.scheduler.config.num_train_timesteps
        original, corner, size = cond.extra["sizes"].split(2, dim=1)
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            encoder_hidden_states=self._states(cond),
            timestep=self._unshifted(t, (x_t.shape[-2], x_t.shape[-1])) * scale,
            original_size=original,
            target_size=size,
            crop_coords=corner,
        )
        return output.sample.float()

    def _shift(self, latent_size: tuple[int, int]) -> float:
        """The shift of times that the pipeline uses for a picture of this many cells."""
        patch, config = self.denoiser.config.patch_size, self.pipeline.scheduler.config
        return calculate_shift(
            latent_size[0] * latent_size[1] // patch**2,
            config.get("base_image_seq_len", 256),
            config.get("base_shift", 0.25),
            config.get("max_shift", 0.75),
        )

    def _unshifted(self, t: Timesteps, latent_size: tuple[int, int]) -> Timesteps:
        """Times as the denoiser expects them: the pipeline shifts only the noise levels."""
        config = self.pipeline.scheduler.config
        factor = config.shift
        if config.use_dynamic_shifting:
            shift = self._shift(latent_size)
            factor = shift if config.time_shift_type == "linear" else math.exp(shift)
        return t / (t + factor * (1 - t))
