"""Kandinsky 3: a UNet with the encoder of FLAN-UL2 (a T5), and MoVQ without its codebook.

Arkhipkin et al. 2023, arXiv:2312.03511.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from diffusers import DDIMScheduler, Kandinsky3Pipeline
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline, refuse_vae, reschedule
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning, Moments
from oneword.models.noise import Diffusion
from oneword.models.reading import OneLength, refuse_clip_skip


# the defaults of diffusers' pipeline, where guidance 0 means none
DEFAULTS = SamplingConfig(guidance_scale=3.0, num_inference_steps=25)
T5_TOKENS = 128
RESOLUTION = 1024


def load(config: ModelConfig) -> Kandinsky3:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or its prediction type is not the family's.
    """
    refuse_clip_skip(config, "Kandinsky 3")
    refuse_vae(config)
    return Kandinsky3(load_pipeline(config, Kandinsky3Pipeline, config.model), config)


class MoVQ(Plain):
    """The family's autoencoder, whose latents are neither scaled nor quantised."""

    decode_options: Mapping[str, Any] = MappingProxyType({"force_not_quantize": True})

    def _scaled(self, mean: Tensor, std: Tensor) -> Moments:
        return Moments(mean, std)

    def _unscaled(self, latents: Latents) -> Tensor:
        return latents


class Kandinsky3(OneLength):
    """A frozen Kandinsky 3 pipeline behind the contract of ``models.contract``.

    The denoiser averages over all tokens, including a masked one of padding.
    """

    scales_latents: ClassVar[bool] = False

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        # the family's own solver adds noise in every step
        reschedule(pipeline, DDIMScheduler)
        cut = pipeline.process_embeds  # it writes into its arguments
        pipeline.process_embeds = lambda states, *rest: cut(states.clone(), *rest)
        super().__init__(
            pipeline,
            config,
            family="kandinsky3",
            denoiser=pipeline.unet,
            autoencoder=MoVQ(pipeline.movq, config.model),
            encoders={"flan_ul2": ("tokenizer", pipeline.text_encoder, T5_TOKENS)},
            noise=Diffusion(pipeline.scheduler, pipeline.unet.device),
            resolution=RESOLUTION,
            sampling=DEFAULTS,
        )

    def _read_alike(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of T5 and one token of padding, and the mask without that token."""
        # bypasses the decorator that turns gradients off
        encode = type(self.pipeline).encode_prompt.__wrapped__
        states, _, mask, _ = encode(
            self.pipeline,
            list(prompts),
            do_classifier_free_guidance=False,
            device=self.device,
            _cut_context=True,
        )
        return Conditioning(states, extra={"mask": mask})

    def _denoise_alike(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The noise that the UNet predicts, float32."""
        output = self.denoiser(
            x_t.to(self.dtype),
            t,
            encoder_hidden_states=self._states(cond),
            encoder_attention_mask=cond.extra["mask"],
        )
        return output.sample.float()
