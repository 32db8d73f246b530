"""Stable Diffusion 1.x and 2.x, and the embedded model, which is one of them in small."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from oneword._typing import Latents, Pixels, Timesteps, Uniforms
from oneword.backbones.base import Conditioning, ModelError, Moments, pick_device, pick_dtype
from oneword.config import ModelConfig, SamplingConfig
from oneword.vocabulary import Vocabulary


DEFAULTS = {
    "microworld": SamplingConfig(guidance_scale=4.0, num_inference_steps=25),
    "stable_diffusion": SamplingConfig(guidance_scale=7.5, num_inference_steps=50),
}
_TEXT_ENCODERS = {768: "clip_l", 1024: "clip_h"}


def load(config: ModelConfig) -> StableDiffusion:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or predicts what the family does not train on.
    """
    device, embedded = pick_device(config.device), config.model == "microworld"
    dtype = pick_dtype(config.dtype, device)
    source = config.model
    if embedded:
        from oneword.microworld.first import weights

        source = str(weights.pipeline_folder())
    options: dict[str, Any] = {"dtype": dtype}
    if not config.safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        with _quiet():
            pipeline = _pipeline(source, config, options, dtype)
    except Exception as error:
        # the loaders raise a dozen kinds of error; the first line says what is missing
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"The model {config.model} must be a whole StableDiffusionPipeline (hub id, folder or "
            f"single file), got: {reason[:300]}"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    family = "microworld" if embedded else "stable_diffusion"
    return StableDiffusion(pipeline.to(device), config.model, family, config.clip_skip)


def _pipeline(
    source: str, config: ModelConfig, options: dict[str, Any], dtype: torch.dtype
) -> StableDiffusionPipeline:
    if config.vae is not None:
        options["vae"] = AutoencoderKL.from_pretrained(config.vae, dtype=dtype)
    if Path(source).is_file():
        if config.single_file_config is not None:
            options["config"] = config.single_file_config
        return StableDiffusionPipeline.from_single_file(source, **options)
    return StableDiffusionPipeline.from_pretrained(
        source, variant=config.variant, revision=config.revision, **options
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the loaders' notices and bars, which a user can do nothing about."""
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    libraries = (diffusers_logging, transformers_logging)
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        for library in libraries:
            library.enable_progress_bar()


class StableDiffusion:
    """A frozen Stable Diffusion pipeline behind the contract of ``backbones.base``."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        family: str = "stable_diffusion",
        clip_skip: int | None = None,
    ) -> None:
        self.pipeline, self.name, self.family, self.clip_skip = pipeline, name, family, clip_skip
        # the paper samples with DDIM; the schedule itself is the model's own
        scheduler: Any = DDIMScheduler.from_config(pipeline.scheduler.config)
        pipeline.scheduler = scheduler
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ModelError(
                f"The model {name} must predict epsilon or v_prediction, got "
                f"{self.prediction_type!r}."
            )
        channels = pipeline.vae.config.latent_channels
        if pipeline.unet.config.in_channels != channels:
            raise ModelError(
                f"The model {name} must take {channels} latent channels, got a UNet with "
                f"{pipeline.unet.config.in_channels}; inpainting models are not supported."
            )
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False).eval()
        encoder, tokens = pipeline.text_encoder, len(pipeline.tokenizer)
        if 2 * tokens < encoder.config.vocab_size:
            raise ModelError(
                f"The tokenizer of {name} must know the {encoder.config.vocab_size} tokens of its "
                f"text encoder, got {tokens}; its files are missing or belong to another model."
            )
        if not hasattr(encoder, "text_model"):
            # clip_skip in diffusers looks for the last norm where transformers 4 had it
            encoder.__dict__["text_model"] = encoder
        width = encoder.config.hidden_size
        key = _TEXT_ENCODERS.get(width, "clip")
        self.vocabularies = {key: Vocabulary(key, pipeline, "tokenizer", pipeline.text_encoder)}
        self.resolution = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self.sampling = replace(DEFAULTS[family], height=self.resolution, width=self.resolution)
        self._alphas_cumprod = scheduler.alphas_cumprod.to(self.device, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.pipeline.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """Compute type of the denoiser."""
        return self.pipeline.unet.dtype

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the VAE, float32, scaled; pixels are float32 in [-1, 1]."""
        vae = self.pipeline.vae
        with torch.no_grad():
            posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        scale, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
        return Moments((posterior.mean.float() - shift) * scale, posterior.std.float() * scale)

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        vae = self.pipeline.vae
        unscaled = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        with torch.no_grad():
            return vae.decode(unscaled.to(vae.device, vae.dtype)).sample.float().clamp(-1, 1)

    def encode_prompt(
        self,
        prompts: Sequence[str],
        t: Timesteps | None = None,  # noqa: ARG002  (part of the contract)
    ) -> Conditioning:
        """Hidden states of CLIP for prompts of any length up to its context; differentiable."""
        states, _ = self.pipeline.encode_prompt(
            list(prompts), self.device, 1, False, clip_skip=self.clip_skip
        )
        return Conditioning(states)

    def sample_t(self, u: Uniforms) -> Timesteps:
        """Timesteps uniform over the whole schedule."""
        count = len(self._alphas_cumprod)
        return (u * count).long().clamp(0, count - 1).to(self.device)

    def _signal_and_noise(self, t: Timesteps) -> tuple[torch.Tensor, torch.Tensor]:
        power = self._alphas_cumprod[t][:, None, None, None]
        return power.sqrt(), (1 - power).sqrt()

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``sqrt(abar_t) x0 + sqrt(1 - abar_t) noise``.

        Source:
            Ho et al. 2020, arXiv:2006.11239, equation 4.
        """
        signal, sigma = self._signal_and_noise(t)
        return signal * x0 + sigma * noise

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """The noise, or ``v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0``.

        Source:
            Salimans and Ho 2022, arXiv:2202.00512, section 4.
        """
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self._signal_and_noise(t)
        return signal * noise - sigma * x0

    def predict(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The UNet's own prediction, float32."""
        states = cond.encoder_hidden_states
        assert isinstance(states, torch.Tensor)
        unet = self.pipeline.unet
        return unet(x_t.to(self.dtype), t, states.to(self.dtype)).sample.float()

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SamplingConfig | None = None,
        *,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Pixels:
        """Draw one picture per (prompt, seed) pair with DDIM."""
        chosen = self.sampling.overlaid(sampling)
        assert chosen.height
        assert chosen.width
        assert chosen.num_inference_steps
        factor = self.pipeline.vae_scale_factor
        shape = (
            self.pipeline.unet.config.in_channels,
            chosen.height // factor,
            chosen.width // factor,
        )
        latents = torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )

        def report(_: Any, step: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
            if on_step is not None:
                on_step(step + 1, chosen.num_inference_steps or 0)
            return values

        with torch.no_grad():
            drawn = self.pipeline(
                prompt=list(prompts),
                negative_prompt=[chosen.negative_prompt] * len(prompts),
                height=chosen.height,
                width=chosen.width,
                guidance_scale=chosen.guidance_scale,
                num_inference_steps=chosen.num_inference_steps,
                latents=latents.to(self.device, self.dtype),
                output_type="pt",
                clip_skip=self.clip_skip,
                callback_on_step_end=report,
            )
        flagged = [i for i, bad in enumerate(drawn.nsfw_content_detected or ()) if bad]
        if flagged:
            warnings.warn(
                f"The model's safety checker blackened picture(s) {flagged}; --no-safety-checker "
                "turns it off.",
                stacklevel=2,
            )
        return (drawn.images.float() * 2 - 1).clamp(-1, 1)
