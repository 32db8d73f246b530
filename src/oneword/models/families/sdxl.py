"""Stable Diffusion XL: two CLIP text encoders, one of them pooled, and the picture's size.

Podell et al. 2023, arXiv:2307.01952.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Diffusion
from oneword.models.sizes import SizedUNet


# the default of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)


def load(config: ModelConfig) -> StableDiffusionXL:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    return StableDiffusionXL(load_pipeline(config, StableDiffusionXLPipeline, config.model), config)


class StableDiffusionXL(SizedUNet):
    """A frozen Stable Diffusion XL pipeline behind the contract of ``models.contract``."""

    weighs: ClassVar[bool] = True

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        reschedule(pipeline, DDIMScheduler)
        super().__init__(
            pipeline,
            config,
            family="sdxl",
            denoiser=pipeline.unet,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={
                "clip_l": ("tokenizer", pipeline.text_encoder, None),
                "clip_g": ("tokenizer_2", pipeline.text_encoder_2, None),
            },
            noise=Diffusion(pipeline.scheduler, pipeline.unet.device),
            resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self._check_channels()
        self.prompt_options = {"clip_skip": self.clip_skip}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of both encoders side by side, and the second's pooled output."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **self.prompt_options,
        )
        return Conditioning(states, pooled)
