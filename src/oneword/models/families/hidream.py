"""HiDream-I1: a mixture of experts, with two CLIPs' pooled outputs, T5 and all layers of a Llama.

Cai et al. 2025, arXiv:2505.22705.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, HiDreamImagePipeline
from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU
from diffusers.pipelines.hidream_image.pipeline_hidream_image import calculate_shift
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=50)
TOKENS = 128


def load(config: ModelConfig) -> HiDream:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP's states.
    """
    refuse_clip_skip(config, "HiDream", pools=True)
    return HiDream(load_pipeline(config, HiDreamImagePipeline, config.model), config)


class HiDream(FamilyPipeline):
    """A frozen HiDream-I1 pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        settings = pipeline.scheduler.config
        if not isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler):
            # UniPC undoes changes between its steps, and the distilled models' solver adds noise
            pipeline.scheduler = FlowMatchEulerDiscreteScheduler(
                shift=settings.get("flow_shift", settings.get("shift", 1.0))
            )
        longest = [
            min(TOKENS, tokenizer.model_max_length)
            for tokenizer in (pipeline.tokenizer_3, pipeline.tokenizer_4)
        ]
        shift = calculate_shift(pipeline.transformer.max_seq)  # whatever the picture's size
        super().__init__(
            pipeline,
            config,
            family="hidream",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders={
                "clip_l": ("tokenizer", pipeline.text_encoder, TOKENS),
                "clip_g": ("tokenizer_2", pipeline.text_encoder_2, TOKENS),
                "t5xxl": ("tokenizer_3", pipeline.text_encoder_3, longest[0]),
                "llama": ("tokenizer_4", pipeline.text_encoder_4, longest[1]),
            },
            noise=Flow(pipeline.scheduler, lambda _: shift),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self._lengths = longest
        self._widths = [
            pipeline.text_encoder_3.config.d_model, pipeline.text_encoder_4.config.hidden_size
        ]  # fmt: skip
        # outside training mode diffusers runs the experts without gradients
        for part in pipeline.transformer.modules():
            if isinstance(part, MOEFeedForwardSwiGLU):
                part.moe_infer = MethodType(_through_experts, part)

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of T5, then of Llama's layers in turn, and the CLIPs' pooled outputs."""
        t5, _, llama, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        parts = [t5, llama.transpose(0, 1).flatten(1, 2)]
        widest = max(self._widths)
        states = [F.pad(part, (0, widest - part.shape[2])) for part in parts]
        return Conditioning(torch.cat(states, dim=1), pooled)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity towards the noise, float32; the transformer's own points to the picture."""
        states = self._states(cond)
        t5 = states[:, : self._lengths[0], : self._widths[0]]
        llama = states[:, self._lengths[0] :, : self._widths[1]].unflatten(
            1, (-1, self._lengths[1])
        )
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timesteps=t * self.pipeline.scheduler.config.num_train_timesteps,
            encoder_hidden_states_t5=t5,
            encoder_hidden_states_llama3=llama.transpose(0, 1),
            pooled_embeds=self._pooled(cond),
        )
        return -output.sample.float()

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        assert sampling.height
        assert sampling.width
        # the pipeline scales every size to this area; slightly larger, because it rounds down
        side = math.sqrt(sampling.height * sampling.width) / self.autoencoder.factor
        self.pipeline.default_sample_size = side * (1 + 1e-9)
        return {}


def _through_experts(layer: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Each token's experts, weighted and added up; differentiable.

    Args:
        layer: The mixture of experts.
        x: (tokens, dim).
        chosen: (tokens x experts of each), which expert.
        weights: (tokens x experts of each, 1).
    """
    found = torch.zeros_like(x)
    for number, expert in enumerate(layer.experts):
        places = (chosen == number).nonzero()[:, 0]
        tokens = places // layer.num_activated_experts
        found = found.index_add(0, tokens, expert(x[tokens]) * weights[places])
    return found
