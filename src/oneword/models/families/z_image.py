"""Z-Image, Turbo and Omni: the language model Qwen3 reads the prompt inside a chat template.

Z-Image Team 2025, arXiv:2511.22699.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ZImageOmniPipeline
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import chat_tokens, key_of, refuse_clip_skip


# the defaults of diffusers' pipeline and, for Turbo, of its documentation
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
FEW_STEPS = SamplingConfig(guidance_scale=0.0, num_inference_steps=8)
TOKENS = 512
SIDE = 128  # side of a picture in latent cells: the pipeline's own 1024 px
_TEXT_ENCODERS = {2560: "qwen3_4b"}


def load(config: ModelConfig) -> ZImage:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Z-Image")
    pipeline = load_pipeline(config, DiffusionPipeline, config.model)
    kind = ZImageOmni if isinstance(pipeline, ZImageOmniPipeline) else ZImage
    return kind(pipeline, config)


class ZImage(FamilyPipeline):
    """A frozen Z-Image pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3")
        template = self._template_tokens(tokenizer, config.model)
        tokens = min(TOKENS, tokenizer.model_max_length)
        # nothing in its configuration distinguishes the distilled model
        turbo = "turbo" in Path(config.model).name.lower()
        super().__init__(
            pipeline,
            config,
            family="z_image",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={key: ("tokenizer", encoder, max(1, tokens - template))},
            noise=Flow(pipeline.scheduler),
            resolution=SIDE * pipeline.vae_scale_factor,
            sampling=FEW_STEPS if turbo else DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": tokens}

    def _template_tokens(self, tokenizer: Any, name: str, /) -> int:
        """Number of tokens that the template adds to a prompt."""
        return chat_tokens(tokenizer, name, add_generation_prompt=True, enable_thinking=True)

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of the last layer but one, and a mask of those that belong to a prompt."""
        found, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),  # a copy, because the pipeline writes its template into it
            device=self.device,
            do_classifier_free_guidance=False,
            **self.prompt_options,
        )
        found = [self._alone(states) for states in found]
        masks = [torch.ones(len(states), dtype=torch.bool, device=self.device) for states in found]
        return Conditioning(
            pad_sequence(found, batch_first=True),
            extra={"mask": pad_sequence(masks, batch_first=True)},
        )

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity from data to noise, float32: the transformer's own runs the other way."""
        masks = cond.extra["mask"]
        prompts = [s[m] for s, m in zip(self._states(cond), masks, strict=True)]
        frames = list(x_t.to(self.dtype)[:, :, None].unbind())
        velocities = self._denoised(frames, 1 - t, prompts)
        return -torch.stack([v[:, 0].float() for v in velocities])

    def _alone(self, states: Any) -> Tensor:
        """The states of one prompt, from what the pipeline returns for it."""
        return states

    def _denoised(self, frames: list[Tensor], t: Tensor, prompts: list[Tensor]) -> list[Tensor]:
        return self.denoiser(frames, t, prompts).sample

    def _noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Latents:
        return super()._noise(generators, size).float()  # the pipeline requires float32


class ZImageOmni(ZImage):
    """A frozen Z-Image-Omni pipeline, which can take pictures as input; here it gets none."""

    def _template_tokens(self, tokenizer: Any, _name: str) -> int:
        empty = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"  # the pipeline's own
        return len(tokenizer(empty).input_ids)

    def _alone(self, states: Any) -> Tensor:
        (only,) = states  # a single part of text, because there is no picture in it
        return only

    def _denoised(self, frames: list[Tensor], t: Tensor, prompts: list[Tensor]) -> list[Tensor]:
        return self.denoiser(
            [[frame] for frame in frames],
            t,
            [[prompt] for prompt in prompts],
            siglip_feats=[None] * len(frames),
            image_noise_mask=[[1]] * len(frames),
        ).sample
