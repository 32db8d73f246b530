"""Kolors: ChatGLM3 reads the prompt, Chinese or English; the UNet is like SDXL's.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import DDIMScheduler, KolorsPipeline

from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.noise import Diffusion
from oneword.models.reading import key_of, refuse_clip_skip
from oneword.models.sizes import SizedUNet


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
GLM_TOKENS = 256
_TEXT_ENCODERS = {4096: "chatglm3_6b"}


def load(config: ModelConfig) -> Kolors:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    refuse_clip_skip(config, "Kolors")
    return Kolors(load_pipeline(config, KolorsPipeline, config.model), config)


class Kolors(SizedUNet):
    """A frozen Kolors pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        # its steps are those of the published Euler solver, whose last step ends at the picture
        reschedule(pipeline, DDIMScheduler, clip_sample=False, set_alpha_to_one=True)
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "chatglm3")
        super().__init__(
            pipeline,
            config,
            family="kolors",
            denoiser=pipeline.unet,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={key: ("tokenizer", encoder, GLM_TOKENS)},
            noise=Diffusion(pipeline.scheduler, pipeline.unet.device),
            resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self._check_channels()

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states before ChatGLM's last layer, and the last token's state after it."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        return Conditioning(states, pooled)
