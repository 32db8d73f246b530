"""Stable Diffusion 1.x and 2.x, and the embedded models, which are miniatures of it.

The embedded models predict v, as Stable Diffusion 2.1 does; the paper's model predicts the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from oneword._typing import Latents, Pixels, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig, is_embedded
from oneword.microworld import weights
from oneword.models.assembly import load_pipeline, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Diffusion


DEFAULTS = {
    "microworld": SamplingConfig(guidance_scale=4.0, num_inference_steps=25),
    "stable_diffusion": SamplingConfig(guidance_scale=7.5, num_inference_steps=50),
}
_TEXT_ENCODERS = {768: "clip_l", 1024: "clip_h"}


def load(config: ModelConfig) -> StableDiffusion:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    embedded, source = is_embedded(config.model), config.model
    if embedded:
        source = str(weights.pipeline_folder(config.model))
    options: dict[str, Any] = {}
    if not config.safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    pipeline = load_pipeline(config, StableDiffusionPipeline, source, **options)
    return StableDiffusion(pipeline, config, "microworld" if embedded else "stable_diffusion")


class StableDiffusion(FamilyPipeline):
    """A frozen Stable Diffusion pipeline behind the contract of ``models.contract``."""

    weighs: ClassVar[bool] = True

    def __init__(
        self, pipeline: Any, config: ModelConfig, family: str = "stable_diffusion"
    ) -> None:
        # the paper samples with DDIM; the noise schedule is the model's own
        reschedule(pipeline, DDIMScheduler)
        encoder = pipeline.text_encoder
        if not hasattr(encoder, "text_model"):
            # for clip_skip, diffusers looks for the last norm where transformers 4 had it
            encoder.__dict__["text_model"] = encoder
        key = _TEXT_ENCODERS.get(encoder.config.hidden_size, "clip")
        super().__init__(
            pipeline,
            config,
            family=family,
            denoiser=pipeline.unet,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={key: ("tokenizer", encoder, None)},
            noise=Diffusion(pipeline.scheduler, pipeline.unet.device),
            resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS[family],
        )
        self._check_channels()
        self.prompt_options = {"clip_skip": self.clip_skip}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of CLIP for prompts of any length up to its context; differentiable."""
        states, _ = self.pipeline.encode_prompt(
            list(prompts), self.device, 1, False, **self.prompt_options
        )
        return Conditioning(states)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The UNet's own prediction, float32."""
        output = self.denoiser(x_t.to(self.dtype), t, encoder_hidden_states=self._states(cond))
        return output.sample.float()

    def _checked(self, drawn: Pixels) -> Pixels:
        checker = self.pipeline.safety_checker
        with self._present(*([] if checker is None else [checker])):
            checked, flagged = self.pipeline.run_safety_checker(
                (drawn + 1) / 2, self.device, self.dtype
            )
        return self._blackened(drawn, torch.as_tensor(checked), flagged or ())
