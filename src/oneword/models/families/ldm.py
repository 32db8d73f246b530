"""The paper's own model: latent diffusion (LDM, 1.4B) with a BERT that was trained along.

Rombach et al. 2021, arXiv:2112.10752; on the hub as CompVis/ldm-text2im-large-256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, LDMTextToImagePipeline
from torch import Tensor

from oneword._typing import Latents, Pixels, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline, refuse_vae
from oneword.models.contract import Conditioning, OnLatents
from oneword.models.noise import Diffusion
from oneword.models.pipeline import FrozenPipeline


CONTEXT = 77
# Gal et al. 2022 score at guidance 5 with 50 steps of DDIM (evaluation/clip_eval.py of their code)
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)


def load(config: ModelConfig) -> LatentDiffusion:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or predicts what the family does not train on.
    """
    refuse_vae(config)
    return LatentDiffusion(load_pipeline(config, LDMTextToImagePipeline, config.model), config)


class LatentDiffusion(FrozenPipeline):
    """A frozen latent diffusion pipeline behind the contract of ``backbones.base``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        super().__init__(
            pipeline,
            config,
            family="ldm",
            denoiser=pipeline.unet,
            vae=pipeline.vqvae,
            encoders={"bert": ("tokenizer", pipeline.bert, CONTEXT)},
            noise=Diffusion(pipeline.scheduler, pipeline.unet.device),
            resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self._check_channels()

    def encode_prompt(self, prompts: Sequence[str], t: Timesteps | None = None) -> Conditioning:
        """Last hidden states of BERT, padding included as in the paper's code; differentiable."""
        return self._encoded(prompts, t, self._encode)

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        ids = self.pipeline.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=CONTEXT,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return Conditioning(self.pipeline.bert(ids.to(self.device))[0])

    def predict(
        self,
        x_t: Latents,
        t: Timesteps,
        cond: Conditioning,
        crops: Tensor | None = None,  # noqa: ARG002  (part of the contract)
    ) -> Latents:
        """The UNet's own prediction, float32."""
        output = self.denoiser(x_t.to(self.dtype), t, encoder_hidden_states=self._states(cond))
        return output.sample.float()

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SamplingConfig | None = None,
        *,
        image: Pixels | None = None,
        mask: Tensor | None = None,
        strength: float = 0.8,  # noqa: ARG002  (part of the contract)
        latents: Latents | None = None,
        on_latents: OnLatents | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Pixels:
        """Draw from noise; the family's pipeline has no other road, and no negative prompt."""
        chosen = self.sampling.overlaid(sampling)
        if image is not None or mask is not None:
            raise ModelError(
                "The paper's model draws from noise only, got a picture to start from; diffusers "
                "has no such pipeline for it."
            )
        if chosen.negative_prompt:
            raise ModelError(
                f"The paper's model takes no negative prompt, got {chosen.negative_prompt!r}."
            )
        assert chosen.height
        assert chosen.width
        size = chosen.height // self.vae_factor, chosen.width // self.vae_factor
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        start = self._start(latents, generators, size, on_latents, chosen)
        seen = self._watched(on_latents, size, on_step, chosen.num_inference_steps or 1)
        with self._present(self.vae), self._following(prompts), seen:
            drawn = self.pipeline(
                list(prompts),
                height=chosen.height,
                width=chosen.width,
                num_inference_steps=chosen.num_inference_steps,
                guidance_scale=chosen.guidance_scale,
                latents=start,
                output_type="pt",
            ).images
        return drawn.float() * 2 - 1
