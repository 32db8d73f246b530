"""Qwen-Image: the language model Qwen2.5-VL reads the prompt inside a chat template.

Wu et al. 2025, arXiv:2508.02324.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import AutoencoderKLQwenImage, QwenImagePipeline

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import PATCHES_IN_ROW, Film
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=50)
NO_PROMPT = " "  # what the authors use when guidance needs a negative prompt
_TEXT_ENCODERS = {3584: "qwen25_7b"}


def load(config: ModelConfig) -> QwenImage:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Qwen-Image")
    pipeline = load_pipeline(
        config, QwenImagePipeline, config.model, autoencoder=AutoencoderKLQwenImage
    )
    return QwenImage(pipeline, config)


class QwenImage(FamilyPipeline):
    """A frozen Qwen-Image pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen25")
        # the pipeline removes the template's head before it counts the longest prompt
        template = len(pipeline.tokenizer(pipeline.prompt_template_encode.format("")).input_ids)
        head = pipeline.prompt_template_encode_start_idx
        longest = max(1, pipeline.tokenizer_max_length + head - template)
        super().__init__(
            pipeline,
            config,
            family="qwen_image",
            denoiser=pipeline.transformer,
            autoencoder=Film(pipeline.vae, config.model, pipeline.vae_scale_factor, PATCHES_IN_ROW),
            encoders={key: ("tokenizer", encoder, longest)},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states after the template's head; with a mask if prompts differ in length."""
        states, mask = self.pipeline.encode_prompt(
            prompt=list(prompts),
            device=self.device,
            max_sequence_length=self.pipeline.tokenizer_max_length,
        )
        return Conditioning(states, extra={} if mask is None else {"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        count, height, width = len(x_t), *x_t.shape[-2:]
        velocity = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t.to(self.dtype),
            guidance=self._guidance(count),
            encoder_hidden_states=self._states(cond),
            encoder_hidden_states_mask=cond.extra.get("mask"),
            img_shapes=[[(1, height // 2, width // 2)]] * count,
        ).sample
        return self.autoencoder.unpack(velocity, (height, width)).float()

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        guided = self.denoiser.config.guidance_embeds
        return {
            "guidance_scale": sampling.guidance_scale if guided else None,
            "true_cfg_scale": 1.0 if guided else sampling.guidance_scale,
            "negative_prompt": sampling.negative_prompt or NO_PROMPT,
        }
