"""Flux.2: klein, with Qwen3 as the text encoder, and dev, with Mistral.

Three layers of the language model side by side are the conditioning. Latents are patches of 2 x 2
cells of the VAE, scaled by the running statistics of its batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    DiffusionPipeline,
    Flux2KleinInpaintPipeline,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
)
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, format_input
from torch import Tensor

from oneword._typing import Latents, Pixels, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline, quiet
from oneword.models.autoencoders import CELLS_IN_ROW, Patch
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import chat_tokens, key_of, refuse_clip_skip, refuse_negative_prompt


# the defaults of diffusers' pipelines; the distilled klein has no guidance and four steps
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=50)
FEW_STEPS = SamplingConfig(guidance_scale=1.0, num_inference_steps=4)
TOKENS = 512
_TEXT_ENCODERS = {2560: "qwen3_4b", 4096: "qwen3_8b", 5120: "mistral3_24b"}


def load(config: ModelConfig) -> Flux2:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Flux.2")
    pipeline = load_pipeline(
        config, DiffusionPipeline, config.model, autoencoder=AutoencoderKLFlux2
    )
    if isinstance(pipeline, Flux2KleinKVPipeline):
        # it differs only in how it attends to pictures next to a prompt, which no word needs
        pipeline = Flux2KleinPipeline(**pipeline.components, is_distilled=True)
        pipeline.set_progress_bar_config(disable=True)
    return Flux2(pipeline, config)


class Flux2(FamilyPipeline):
    """A frozen Flux.2 pipeline behind the contract of ``models.contract``."""

    autoencoder: Patch

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        self.is_klein = isinstance(pipeline, Flux2KleinPipeline)
        encoder = pipeline.text_encoder
        tokenizer = pipeline.tokenizer if self.is_klein else pipeline.tokenizer.tokenizer
        other = "qwen3" if self.is_klein else "mistral3"
        key = key_of(encoder, _TEXT_ENCODERS, other)
        if self.is_klein:
            template = chat_tokens(
                tokenizer, config.model, add_generation_prompt=True, enable_thinking=False
            )
        else:
            template = chat_tokens(
                pipeline.tokenizer,
                config.model,
                messages=format_input([""], pipeline.system_message)[0],
            )
        self.tokens = min(TOKENS, tokenizer.model_max_length)
        few = self.is_klein and pipeline.config.is_distilled
        sampling = FEW_STEPS if few else DEFAULTS
        place = "tokenizer" if self.is_klein else "tokenizer.tokenizer"

        def shift_of(latent_size: tuple[int, int]) -> float:
            patches = latent_size[0] * latent_size[1]
            return compute_empirical_mu(patches, sampling.num_inference_steps or 1)

        super().__init__(
            pipeline,
            config,
            family="flux2",
            denoiser=pipeline.transformer,
            autoencoder=Patch(pipeline.vae, config.model, CELLS_IN_ROW),
            encoders={key: (place, encoder, max(1, self.tokens - template))},
            noise=Flow(pipeline.scheduler, shift_of),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=sampling,
        )

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Three layers of the language model side by side, padding included."""
        with quiet():  # the processor warns about each call by its own pipeline
            states, _ = self.pipeline.encode_prompt(
                prompt=list(prompts), device=self.device, max_sequence_length=self.tokens
            )
        return Conditioning(states)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32, at the guidance that pictures are drawn with."""
        states = self._states(cond)
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t.to(self.dtype),
            guidance=self._guidance(len(x_t)),
            encoder_hidden_states=states,
            txt_ids=self.pipeline._prepare_text_ids(states).to(self.device),
            img_ids=self.pipeline._prepare_latent_ids(x_t).to(self.device),
        ).sample
        height, width = x_t.shape[-2:]
        return self.autoencoder.unpack(velocity, (height, width)).float()

    def _picture_and_mask(
        self, image: Pixels | None, mask: Tensor | None
    ) -> tuple[Pixels | None, Tensor | None]:
        """The requested pipeline; klein draws over a picture by inpainting all of it."""
        if image is not None and mask is None:
            mask = torch.ones_like(image[:, :1])
        return image, mask

    def _given(self, latents: Latents) -> Tensor:
        return latents  # the pipeline packs them

    def _returned(self, latents: Tensor, size: tuple[int, int]) -> Latents:
        if latents.ndim == 3:  # dev returns them as they are; klein undoes patches and scale
            return self.autoencoder.unpack(latents, size)
        return self.autoencoder.scaled(latents)

    def _image_pipeline(self, _inpaints: bool) -> Any:
        if not self.is_klein:
            raise ModelError(
                "Flux.2 dev can draw only from noise, not from a picture, because diffusers has "
                "no such pipeline for it; use another model."
            )
        pipeline = Flux2KleinInpaintPipeline(
            **self.pipeline.components, is_distilled=self.pipeline.config.is_distilled
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        refuse_negative_prompt(sampling, "Flux.2")
        return {"max_sequence_length": self.tokens}
