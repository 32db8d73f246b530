"""CogView3-Plus: T5 reads the prompt; the denoiser is given the picture's size and crop.

Zheng et al. 2024, arXiv:2403.05121.
"""

from __future__ import annotations

from typing import Any

from diffusers import CogVideoXDDIMScheduler, CogView3PlusPipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Diffusion
from oneword.models.reading import OneEncoder, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
T5_TOKENS = 224


def load(config: ModelConfig) -> CogView3:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    refuse_clip_skip(config, "CogView3")
    return CogView3(load_pipeline(config, CogView3PlusPipeline, config.model), config)


class CogView3(OneEncoder):
    """A frozen CogView3-Plus pipeline behind the contract of ``models.contract``."""

    mask_at = None  # T5 and the denoiser also read the padding
    tells_sizes = True

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        # the family's other solver adds noise in every step
        reschedule(pipeline, CogVideoXDDIMScheduler)
        super().__init__(
            pipeline,
            config,
            family="cogview3",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={"t5xxl": ("tokenizer", pipeline.text_encoder, T5_TOKENS)},
            noise=Diffusion(pipeline.scheduler, pipeline.transformer.device),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": T5_TOKENS}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own prediction, float32, given the size and the crop's position."""
        original, corner, size = cond.extra["sizes"].split(2, dim=1)
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            encoder_hidden_states=self._states(cond),
            timestep=t,
            original_size=original,
            target_size=size,
            crop_coords=corner,
        )
        return output.sample.float()
