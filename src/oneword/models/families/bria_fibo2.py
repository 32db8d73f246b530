"""Bria Fibo 2: straight flow on Flux.2's autoencoder, with layers of Qwen3-VL in bundles of three.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import AutoencoderKLFlux2, BriaFibo2Pipeline
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Patch
from oneword.models.contract import Conditioning, Moments
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=5.0, num_inference_steps=30)
_TEXT_ENCODERS = {2560: "qwen3vl_4b", 4096: "qwen3vl_8b"}


def load(config: ModelConfig) -> BriaFibo2:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Bria Fibo 2")
    pipeline = load_pipeline(
        config, BriaFibo2Pipeline, config.model, autoencoder=AutoencoderKLFlux2
    )
    return BriaFibo2(pipeline, config)


class PatchInCells(Patch):
    """Flux.2's autoencoder; the denoiser takes cells and makes the patches itself."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.factor //= 2

    def _channels(self) -> int:
        return self.vae.config.latent_channels

    def _scaled(self, mean: Tensor, std: Tensor) -> Moments:
        """Latents as cells, unpacked from patches of 2 x 2."""
        found = super()._scaled(mean, std)
        return Moments(self._unpatchify(found.mean), self._unpatchify(found.std))

    def _unscaled(self, latents: Latents) -> Tensor:
        return super()._unscaled(self._patchify(latents))


class BriaFibo2(FamilyPipeline):
    """A frozen Bria Fibo 2 pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, _TEXT_ENCODERS, "qwen3vl")
        tokenizer = pipeline.processor.tokenizer
        pipeline.tokenizer_max_length = min(
            pipeline.tokenizer_max_length, tokenizer.model_max_length
        )
        template = len(tokenizer(pipeline.prompt_template_encode.format("")).input_ids)
        super().__init__(
            pipeline,
            config,
            family="bria_fibo2",
            denoiser=pipeline.transformer,
            autoencoder=PatchInCells(pipeline.vae, config.model),
            encoders={
                key: ("processor.tokenizer", encoder, pipeline.tokenizer_max_length - template)
            },
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Bundles of layers side by side in the last axis, and the mask of their tokens."""
        bundles, mask = self.pipeline._get_qwen_prompt_embeds(
            self.pipeline.text_encoder,
            self.pipeline.processor,
            list(prompts),
            device=self.device,
            max_sequence_length=self.pipeline.tokenizer_max_length,
            prompt_template=self.pipeline.prompt_template_encode,
            hidden_states_layers=self.pipeline.text_encoder_out_layers,
        )
        return Conditioning(bundles.transpose(1, 2).flatten(2), extra={"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        bundles = len(self.pipeline.text_encoder_out_layers)
        velocity = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=t,
            encoder_hidden_states=self._states(cond).unflatten(2, (bundles, -1)).transpose(1, 2),
            encoder_attention_mask=cond.extra["mask"],
        ).sample
        return velocity.float()
