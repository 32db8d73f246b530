"""CogView4: the language model GLM reads the prompt, and the denoiser is told unshifted times.

Zheng et al. 2024, arXiv:2403.05121, describe CogView3; its successor has no paper of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from diffusers import CogView4Pipeline
from diffusers.pipelines.cogview4.pipeline_cogview4 import calculate_shift
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oneword._typing import Latents, Pixels, Timesteps
from oneword.backbones.base import Conditioning, ModelError, OnLatents
from oneword.backbones.frozen import load_pipeline, refuse_clip_skip
from oneword.backbones.noise import Flow
from oneword.backbones.shared import OneEncoder, ToldSizes
from oneword.config import ModelConfig, SamplingConfig


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
GLM_TOKENS = 1024
BLOCK = 16  # the pipeline pads prompts to multiples of so many tokens
_TEXT_ENCODERS = {4096: "glm4_9b"}


def load(config: ModelConfig) -> CogView4:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    refuse_clip_skip(config, "CogView4")
    return CogView4(load_pipeline(config, CogView4Pipeline, config.model), config)


class CogView4(ToldSizes, OneEncoder):
    """A frozen CogView4 pipeline behind the contract of ``backbones.base``."""

    mask_at = None

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = _TEXT_ENCODERS.get(encoder.get_input_embeddings().weight.shape[1], "glm4")
        super().__init__(
            pipeline,
            config,
            family="cogview4",
            denoiser=pipeline.transformer,
            vae=pipeline.vae,
            encoders={key: ("tokenizer", encoder, GLM_TOKENS)},
            noise=Flow(pipeline.scheduler, self._shift),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": GLM_TOKENS}

    def encode_prompt(self, prompts: Sequence[str], t: Timesteps | None = None) -> Conditioning:
        """GLM's hidden states before its last layer, and a mask where lengths differ.

        GLM and the denoiser read the padding, too, so that each prompt is padded as if it were
        alone.
        """
        groups = self._alike(prompts)
        if len(groups) == 1:
            return super().encode_prompt(prompts, t)
        found: dict[int, Tensor] = {}
        for places in groups:
            cond = super().encode_prompt([prompts[i] for i in places], t)
            found |= dict(zip(places, cond.encoder_hidden_states, strict=True))
        states = [found[i] for i in range(len(prompts))]
        masks = [torch.ones(len(s), dtype=torch.bool, device=self.device) for s in states]
        return Conditioning(
            pad_sequence(states, batch_first=True),
            extra={"mask": pad_sequence(masks, batch_first=True)},
        )

    def predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None = None
    ) -> Latents:
        """The transformer's own velocity, float32, told the picture's size and the crop's place."""
        if "mask" not in cond.extra:
            return self._predict(x_t, t, self._states(cond), self._sizes(x_t, crops))
        sizes, states = self._sizes(x_t, crops), self._states(cond)
        lengths = cond.extra["mask"].sum(dim=1).tolist()
        found: dict[int, Tensor] = {}
        for length in sorted(set(lengths)):
            places = [i for i, own in enumerate(lengths) if own == length]
            told = {name: size[places] for name, size in sizes.items()}
            part = self._predict(x_t[places], t[places], states[places, :length], told)
            found |= dict(zip(places, part, strict=True))
        return torch.stack([found[i] for i in range(len(x_t))])

    def _predict(
        self, x_t: Latents, t: Timesteps, states: Tensor, sizes: dict[str, Tensor]
    ) -> Latents:
        scale = self.pipeline.scheduler.config.num_train_timesteps
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            encoder_hidden_states=states,
            timestep=self._unshifted(t, (x_t.shape[-2], x_t.shape[-1])) * scale,
            **sizes,
        )
        return output.sample.float()

    def _alike(self, prompts: Sequence[str]) -> list[list[int]]:
        """Places of the prompts that are padded to one length, by length."""
        tokenizer = self.pipeline.tokenizer
        found = tokenizer(list(prompts), max_length=GLM_TOKENS, truncation=True).input_ids
        blocks = [math.ceil(len(ids) / BLOCK) for ids in found]
        order = sorted(range(len(prompts)), key=blocks.__getitem__)
        return [list(places) for _, places in groupby(order, key=blocks.__getitem__)]

    def _shift(self, latent_size: tuple[int, int]) -> float:
        """What the pipeline shifts times by for a picture of so many cells."""
        patch, config = self.denoiser.config.patch_size, self.pipeline.scheduler.config
        return calculate_shift(
            latent_size[0] * latent_size[1] // patch**2,
            config.get("base_image_seq_len", 256),
            config.get("base_shift", 0.25),
            config.get("max_shift", 0.75),
        )

    def _unshifted(self, t: Timesteps, latent_size: tuple[int, int]) -> Timesteps:
        """Times as the denoiser knows them: the pipeline shifts noise levels alone."""
        config = self.pipeline.scheduler.config
        factor = config.shift
        if config.use_dynamic_shifting:
            shift = self._shift(latent_size)
            factor = shift if config.time_shift_type == "linear" else math.exp(shift)
        return t / (t + factor * (1 - t))

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SamplingConfig | None = None,
        *,
        image: Pixels | None = None,
        mask: Tensor | None = None,
        strength: float = 0.8,
        latents: Latents | None = None,
        on_latents: OnLatents | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Pixels:
        """Draw as every family does, prompts of one length at a time.

        Raises:
            ModelError: ``on_latents`` is to see prompts of several lengths at once.
        """
        groups = self._alike(prompts)
        if len(groups) == 1:
            return super().draw(
                prompts, seeds, sampling, image=image, mask=mask, strength=strength,
                latents=latents, on_latents=on_latents, on_step=on_step,
            )  # fmt: skip
        if on_latents is not None:
            raise ModelError(
                "CogView4 must be given prompts of one length in tokens (to the next "
                f"{BLOCK}) where latents are watched, got {len(groups)} lengths; pass them one by "
                "one."
            )
        total = len(groups) * (self.sampling.overlaid(sampling).num_inference_steps or 0)
        found: dict[int, Tensor] = {}
        done = 0

        def count(*_: int) -> None:
            nonlocal done
            done += 1
            if on_step is not None:
                on_step(done, total)

        for places in groups:
            drawn = super().draw(
                [prompts[i] for i in places],
                [seeds[i] for i in places],
                sampling,
                image=None if image is None else image[places],
                mask=None if mask is None else mask[places],
                strength=strength,
                latents=None if latents is None else latents[places],
                on_step=count,
            )
            found |= dict(zip(places, drawn, strict=True))
        return torch.stack([found[i] for i in range(len(prompts))])
