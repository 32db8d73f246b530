"""Nucleus-MoE-Image: a mixture of experts; Qwen3-VL reads an instruction and the prompt.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import AutoencoderKLQwenImage, NucleusMoEImagePipeline
from diffusers.pipelines.nucleusmoe_image.pipeline_nucleusmoe_image import DEFAULT_SYSTEM_PROMPT

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import PATCHES_IN_ROW, Film
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import chat_tokens, key_of, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=50)
_TEXT_ENCODERS = {2560: "qwen3vl_4b", 4096: "qwen3vl_8b"}


def load(config: ModelConfig) -> NucleusMoE:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Nucleus-MoE-Image")
    pipeline = load_pipeline(
        config, NucleusMoEImagePipeline, config.model, autoencoder=AutoencoderKLQwenImage
    )
    return NucleusMoE(pipeline, config)


class NucleusMoE(FamilyPipeline):
    """A frozen Nucleus-MoE-Image pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3vl")
        template = chat_tokens(
            pipeline.processor,
            config.model,
            messages=[
                {"role": "system", "content": DEFAULT_SYSTEM_PROMPT},
                {"role": "user", "content": [{"type": "text", "text": ""}]},
            ],
            add_generation_prompt=True,
        )
        longest = max(1, pipeline.default_max_sequence_length - template)
        super().__init__(
            pipeline,
            config,
            family="nucleus_moe",
            denoiser=pipeline.transformer,
            autoencoder=Film(pipeline.vae, config.model, pipeline.vae_scale_factor, PATCHES_IN_ROW),
            encoders={key: ("processor.tokenizer", encoder, longest)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """States of an earlier layer, the instruction's included; a mask if some are padding."""
        states, mask = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            max_sequence_length=self.pipeline.default_max_sequence_length,
        )
        return Conditioning(states, extra={} if mask is None else {"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity, float32: the transformer's own, from noise to data, reversed."""
        count, height, width = len(x_t), *x_t.shape[-2:]
        output = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t.to(self.dtype),
            encoder_hidden_states=self._states(cond),
            encoder_hidden_states_mask=cond.extra.get("mask"),
            img_shapes=[(1, height // 2, width // 2)] * count,
        ).sample
        return -self.autoencoder.unpack(output, (height, width)).float()
