"""DreamLite: Qwen3-VL reads the prompt for a small UNet, which draws next to a second picture.

An edit starts from the second picture; for a drawing from noise it is empty. There is no
paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, DreamLiteMobilePipeline
from torch import Tensor

from oneword._devices import sent
from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.by_layer import telling
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline, Request
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip, refuse_negative_prompt


# the defaults of diffusers' pipelines; the distilled one takes no guidance
DEFAULTS = SamplingConfig(guidance_scale=3.5, num_inference_steps=30)
FEW_STEPS = SamplingConfig(guidance_scale=1.0, num_inference_steps=4)
TOKENS = 200
TASK = "[Generate]: "  # in front of every prompt except negative ones
_TEXT_ENCODERS = {2048: "qwen3vl_2b", 2560: "qwen3vl_4b"}


def load(config: ModelConfig) -> DreamLite:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "DreamLite")
    pipeline = load_pipeline(config, DiffusionPipeline, config.model, autoencoder=AutoencoderTiny)
    return DreamLite(pipeline, config)


class DreamLite(FamilyPipeline):
    """A frozen DreamLite pipeline behind the contract of ``models.contract``."""

    alike = "that are the same"

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        self.is_distilled = isinstance(pipeline, DreamLiteMobilePipeline)
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3vl")
        filled = pipeline.prompt_template_encode_generate.format(TASK)
        around = len(pipeline.tokenizer(filled).input_ids)
        room = TOKENS + pipeline.prompt_template_encode_generate_start_idx
        super().__init__(
            pipeline,
            config,
            family="dreamlite",
            denoiser=pipeline.unet,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={key: ("tokenizer", encoder, max(1, room - around))},
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=FEW_STEPS if self.is_distilled else DEFAULTS,
        )
        self._layers = []  # the states of several layers would not match the mask

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states after the template's head, and the mask of their tokens."""
        states, mask = self.pipeline.encode_prompt(
            "generate",
            [TASK + prompt for prompt in prompts],
            self.device,
            self.dtype,
            max_sequence_length=TOKENS,
        )
        return Conditioning(states, extra={"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The UNet's own velocity of the first picture, float32, given its width and height."""
        pair = torch.cat([x_t, torch.zeros_like(x_t)], dim=3).to(self.dtype)
        height, width = (side * self.autoencoder.factor for side in x_t.shape[-2:])
        size = torch.tensor([[width, height]] * len(x_t)).to(self.dtype)
        velocity = self.denoiser(
            pair,
            timestep=(t * self.pipeline.scheduler.config.num_train_timesteps).to(self.dtype),
            encoder_hidden_states=self._states(cond),
            encoder_attention_mask=cond.extra["mask"],
            added_cond_kwargs={"time_ids": sent(size, self.device)},
        ).sample
        return velocity[..., : x_t.shape[3]].float()

    def _alike(self, prompts: Sequence[str]) -> list[list[int]]:
        # the pipeline takes one prompt and draws several pictures of it
        return [[i for i, p in enumerate(prompts) if p == own] for own in dict.fromkeys(prompts)]

    def _start(self, request: Request, size: tuple[int, int]) -> Latents:
        start = super()._start(request, size)
        # the pipeline does not accept noise but generates its own
        self.pipeline.prepare_latents = lambda *_: start
        return start

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        if not self.is_distilled:
            return {}
        refuse_negative_prompt(sampling, "DreamLite's distilled model")
        return {"guidance_scale": None}  # it warns about any number

    def _run(self, pipeline: Any, options: dict[str, Any]) -> Tensor:
        given = {n: options[n][0] for n in ("prompt", "negative_prompt") if n in options}
        given["num_images_per_prompt"] = len(options["prompt"])
        return super()._run(pipeline, options | given)

    @contextmanager
    def _following(self, prompts: Sequence[str]) -> Iterator[None]:
        """While the pipeline draws, give the UNet the size of every picture."""

        def told(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
            # with guidance it is given two equal sizes, however many pictures there are
            size = kwargs["added_cond_kwargs"]["time_ids"][:1].expand(len(args[0]), -1)
            return {"added_cond_kwargs": {"time_ids": size}}

        with telling(self.denoiser, told), super()._following(prompts):
            yield
