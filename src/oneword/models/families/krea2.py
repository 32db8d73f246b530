"""Krea 2: several layers of the language model Qwen3-VL, and Qwen-Image's latents.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import AutoencoderKLQwenImage, Krea2Pipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import PATCHES_IN_ROW, Film
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip


# the defaults of diffusers' pipeline and, for the distilled model, its fixed shift
DEFAULTS = SamplingConfig(guidance_scale=4.5, num_inference_steps=28)
FEW_STEPS = SamplingConfig(guidance_scale=0.0, num_inference_steps=8)
FEW_STEPS_SHIFT = 1.15
TOKENS = 512
SIDE = 128  # side of a picture in latent cells: the pipeline's own 1024 px
_TEXT_ENCODERS = {2560: "qwen3vl_4b"}


def load(config: ModelConfig) -> Krea2:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Krea 2")
    pipeline = load_pipeline(
        config, Krea2Pipeline, config.model, autoencoder=AutoencoderKLQwenImage
    )
    return Krea2(pipeline, config)


class Krea2(FamilyPipeline):
    """A frozen Krea 2 pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3vl")
        # prompts are cut to the length before the end of the template is added
        before = len(pipeline.tokenizer(pipeline.prompt_template_encode_prefix).input_ids)
        room = pipeline.prompt_template_encode_start_idx
        room -= pipeline.prompt_template_encode_num_suffix_tokens
        distilled = pipeline.config.is_distilled
        super().__init__(
            pipeline,
            config,
            family="krea2",
            denoiser=pipeline.transformer,
            autoencoder=Film(pipeline.vae, config.model, pipeline.vae_scale_factor, PATCHES_IN_ROW),
            encoders={key: ("tokenizer", encoder, max(1, TOKENS + room - before))},
            noise=Flow(pipeline.scheduler, (lambda _: FEW_STEPS_SHIFT) if distilled else None),
            resolution=SIDE * pipeline.vae_scale_factor,
            sampling=FEW_STEPS if distilled else DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": TOKENS}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of the chosen layers, side by side, and the mask of their tokens."""
        states, mask = self.pipeline.encode_prompt(
            list(prompts), device=self.device, **self.prompt_options
        )
        return Conditioning(states.flatten(2), extra={"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        states = self._states(cond)
        height, width = x_t.shape[-2:]
        layers = self.denoiser.config.num_text_layers
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            encoder_hidden_states=states.unflatten(2, (layers, -1)),
            timestep=t.to(self.dtype),
            position_ids=self.pipeline.prepare_position_ids(
                states.shape[1], height // 2, width // 2, self.device
            ),
            encoder_attention_mask=cond.extra["mask"],
        ).sample
        return self.autoencoder.unpack(velocity, (height, width)).float()
