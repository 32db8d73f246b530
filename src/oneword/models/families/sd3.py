"""Stable Diffusion 3 and 3.5: straight flow, with two CLIPs and an optional T5.

Esser et al. 2024, arXiv:2403.03206.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import StableDiffusion3Pipeline

from oneword._files import read_json
from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import Plain
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=7.0, num_inference_steps=28)
T5_TOKENS = 256


def load(config: ModelConfig) -> StableDiffusion3:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded.
    """
    # a folder saved without T5 says so in its index, but diffusers must be told as well
    index = Path(config.model) / "model_index.json"
    entries = read_json(index, dict, error=ModelError) if index.is_file() else {}
    absent: dict[str, Any] = {
        n: None for n in ("text_encoder_3", "tokenizer_3") if entries.get(n) == [None, None]
    }
    return StableDiffusion3(
        load_pipeline(config, StableDiffusion3Pipeline, config.model, **absent), config
    )


class StableDiffusion3(FamilyPipeline):
    """A frozen Stable Diffusion 3 pipeline behind the contract of ``models.contract``."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        encoders: dict[str, tuple[str, Any, int | None]] = {
            "clip_l": ("tokenizer", pipeline.text_encoder, None),
            "clip_g": ("tokenizer_2", pipeline.text_encoder_2, None),
        }
        if pipeline.text_encoder_3 is not None:
            encoders["t5xxl"] = ("tokenizer_3", pipeline.text_encoder_3, T5_TOKENS)
        super().__init__(
            pipeline,
            config,
            family="sd3",
            denoiser=pipeline.transformer,
            autoencoder=Plain(pipeline.vae, config.model),
            encoders=encoders,
            noise=Flow(pipeline.scheduler),
            resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"clip_skip": self.clip_skip, "max_sequence_length": T5_TOKENS}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of the CLIPs, then of T5, and the CLIPs' pooled outputs."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **self.prompt_options,
        )
        return Conditioning(states, pooled)

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=t * self.pipeline.scheduler.config.num_train_timesteps,
            encoder_hidden_states=self._states(cond),
            pooled_projections=self._pooled(cond),
        )
        return output.sample.float()
