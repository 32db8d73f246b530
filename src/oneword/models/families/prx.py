"""PRX: straight flow; the encoder of a T5-Gemma reads the cleaned prompt.

PRXPixel works on pixels without an autoencoder, predicts the picture, and reads with Qwen3-VL.

There is no paper; this follows diffusers' pipeline.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline, PRXPixelPipeline
from diffusers.pipelines.prx import pipeline_prx, pipeline_prx_pixel
from torch import Tensor

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline
from oneword.models.autoencoders import NoAutoencoder, Plain
from oneword.models.by_layer import telling
from oneword.models.contract import Autoencoder, Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.models.noise import Flow
from oneword.models.reading import key_of, refuse_clip_skip, sparing


# the defaults of diffusers' pipeline
DEFAULTS = SamplingConfig(guidance_scale=4.0, num_inference_steps=28)
_TEXT_ENCODERS = {2304: "t5gemma_2b"}
_QWEN = {2048: "qwen3vl_2b", 2560: "qwen3vl_4b", 4096: "qwen3vl_8b"}


def load(config: ModelConfig) -> PRX:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, or the library that cleans its prompts is not installed.
    """
    refuse_clip_skip(config, "PRX")
    if not hasattr(pipeline_prx, "ftfy"):
        raise ModelError(
            "Cannot use PRX because ftfy, which cleans its prompts, is not installed; pip install "
            "ftfy."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about a base class of the pipeline
        pipeline = load_pipeline(config, DiffusionPipeline, config.model)
    if isinstance(pipeline, PRXPixelPipeline):
        if config.vae is not None:
            raise ModelError(
                f"Cannot use --vae {config.vae} with PRXPixel because it draws pixels and has no "
                "autoencoder; leave it out."
            )
        return PRXPixel(pipeline, config)
    # lower-cased, and without addresses, file names and most punctuation
    cleaner = pipeline.text_preprocessor
    cleaner.clean_text = sparing(pipeline, cleaner.clean_text)
    return PRX(
        pipeline,
        config,
        keys=_TEXT_ENCODERS,
        other_key="t5gemma",
        autoencoder=Plain(pipeline.vae, config.model, pipeline.vae_scale_factor),
        noise=Flow(pipeline.scheduler),
    )


class PRX(FamilyPipeline):
    """A frozen PRX pipeline behind the contract of ``models.contract``."""

    def __init__(
        self,
        pipeline: Any,
        config: ModelConfig,
        *,
        keys: Mapping[int, str],
        other_key: str,
        autoencoder: Autoencoder,
        noise: Flow,
    ) -> None:
        encoder = pipeline.text_encoder
        key = key_of(encoder, keys, other_key)
        super().__init__(
            pipeline,
            config,
            family="prx",
            denoiser=pipeline.transformer,
            autoencoder=autoencoder,
            encoders={key: ("tokenizer", encoder, pipeline.config.get("prompt_max_tokens"))},
            noise=noise,
            resolution=pipeline.config.default_sample_size,
            sampling=DEFAULTS,
        )
        self.draw_options = {"use_resolution_binning": False}

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of the text encoder, and its mask in ``extra``; differentiable."""
        # from here on the pipeline's own method has no gradients
        ids, mask = self.pipeline._tokenize_prompts(list(prompts), self.device)
        states = self.pipeline.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return Conditioning(states, extra={"mask": mask})

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        output = self.denoiser(
            hidden_states=x_t.to(self.dtype),
            timestep=t,
            encoder_hidden_states=self._states(cond),
            attention_mask=cond.extra["mask"],
        )
        return output.sample.float()

    @contextmanager
    def _following(self, prompts: Sequence[str]) -> Iterator[None]:
        """While the pipeline draws, give the transformer the time of every picture."""

        def told(_: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
            # with guidance it is given two equal times, however many pictures there are
            t, pictures = kwargs["timestep"], kwargs["hidden_states"]
            return {"timestep": t[:1].expand(len(pictures))}

        with telling(self.denoiser, told), super()._following(prompts):
            yield


class PixelFlow(Flow):
    """Straight flow from scaled noise, with the velocity of a predicted picture as the target."""

    least_time = 0.05  # below this time the pipeline divides by it instead of by the time

    def __init__(self, scheduler: Any, noise_scale: float) -> None:
        super().__init__(scheduler)
        self.noise_scale = noise_scale

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``(1 - t) x0 + t noise_scale noise``."""
        return super().add_noise(x0, self.noise_scale * noise, t)

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """``noise_scale noise - x0``; near t = 0 reduced like ``velocity``."""
        way = (t / t.clamp(min=self.least_time))[:, None, None, None]
        return super().target(x0, self.noise_scale * noise, t) * way

    def velocity(self, x_t: Latents, x0: Latents, t: Timesteps) -> Latents:
        """``(x_t - x0) / t``; near t = 0 divided by ``least_time`` instead."""
        return (x_t - x0) / t.clamp(min=self.least_time)[:, None, None, None]


class PRXPixel(PRX):
    """A frozen PRXPixel pipeline behind the contract of ``models.contract``."""

    noise: PixelFlow

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        super().__init__(
            pipeline,
            config,
            keys=_QWEN,
            other_key="qwen3vl",
            autoencoder=NoAutoencoder(
                pipeline.transformer.config.in_channels, pipeline.transformer.device
            ),
            noise=PixelFlow(pipeline.scheduler, pipeline.config.noise_scale),
        )
        clean = sparing(pipeline, pipeline_prx_pixel._basic_clean)

        def tokenize(prompts: Sequence[str], device: Any, **_: Any) -> tuple[Tensor, Tensor]:
            # the pipeline's own offers no way to clean all but placeholders
            tokens = pipeline.tokenizer(
                [clean(prompt) for prompt in prompts],
                padding="max_length",
                max_length=pipeline.config.prompt_max_tokens,
                truncation=True,
                return_tensors="pt",
            )
            return tokens.input_ids.to(device), tokens.attention_mask.bool().to(device)

        pipeline._tokenize_prompts = tokenize

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The velocity towards the picture that the transformer predicts, float32."""
        return self.noise.velocity(x_t.float(), super()._denoise(x_t, t, cond), t)

    def _noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Latents:
        return super()._noise(generators, size) * self.noise.noise_scale
