"""Cosmos-Predict2 text-to-image: T5 reads the prompt; its pipeline has the flow in other units.

The pipeline adds noise of levels up to 80 to a picture that is not scaled down. Divided by 1 +
level, this is straight flow with a noise share of level / (1 + level). The model was trained on
that, and it is used here.

NVIDIA 2025, arXiv:2501.03575, for the first version.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKLWan, Cosmos2TextToImagePipeline, FlowMatchEulerDiscreteScheduler
from diffusers.utils import is_torchvision_available
from torch import Tensor

from oneword._typing import Latents, Pixels, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import load_pipeline, quiet, reschedule
from oneword.models.autoencoders import Film
from oneword.models.contract import Conditioning
from oneword.models.drawing import Request
from oneword.models.memory import shapes
from oneword.models.noise import Flow
from oneword.models.reading import OneEncoder, refuse_clip_skip


# the defaults of diffusers' pipeline, where guidance 0 means none
DEFAULTS = SamplingConfig(guidance_scale=7.0, num_inference_steps=35)
T5_TOKENS = 512
RESOLUTION = 1024  # a square with about the area of the pipeline's default, 1360 x 768 px


def load(config: ModelConfig) -> Cosmos2:
    """Load a pipeline of this family.

    Raises:
        ModelError: it cannot be loaded, a library is missing, or a setting applies only to CLIP.
    """
    refuse_clip_skip(config, "Cosmos 2")
    is_checked = config.safety_checker and not shapes.has_shapes_alone()
    unchecked = {} if is_checked else {"safety_checker": _Unchecked()}
    try:
        pipeline = load_pipeline(
            config,
            Cosmos2TextToImagePipeline,
            config.model,
            autoencoder=AutoencoderKLWan,
            **unchecked,
        )
    except ModelError as error:
        if "cosmos_guardrail" not in str(error):
            raise
        raise ModelError(
            "Cannot load Cosmos 2 with its safety checker because cosmos_guardrail is not "
            "installed; pip install cosmos_guardrail, or pass --no-safety-checker. NVIDIA's "
            "licence then requires another guardrail."
        ) from error
    if pipeline.transformer.config.concat_padding_mask and not is_torchvision_available():
        raise ModelError(
            "Cannot load the transformer of Cosmos 2 because torchvision is not installed; pip "
            "install torchvision."
        )
    return Cosmos2(pipeline, config)


class _Unchecked:
    """Replaces the safety checker and lets everything pass."""

    def to(self, device: Any) -> None: ...

    def check_text_safety(self, _prompt: str) -> bool:
        return True


class OneFrame:
    """Handles latents as a film of one frame."""

    def pack(self, latents: Latents) -> Tensor:
        """Add the frame axis."""
        return latents[:, :, None]

    def unpack(self, packed: Tensor, _size: tuple[int, int]) -> Latents:
        """Take the single frame."""
        return packed[:, :, 0]


class Cosmos2(OneEncoder):
    """A frozen Cosmos-Predict2 pipeline behind the contract of ``models.contract``."""

    mask_at = None  # the states of padding are zeros, and the denoiser reads them

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        with quiet():  # about the levels, which diffusers keeps outside the scheduler's settings
            reschedule(pipeline, Shares)
        # otherwise diffusers would not take the last step
        pipeline.scheduler.register_to_config(final_sigmas_type="zero")
        super().__init__(
            pipeline,
            config,
            family="cosmos2",
            denoiser=pipeline.transformer,
            autoencoder=Film(
                pipeline.vae, config.model, pipeline.vae_scale_factor_spatial, OneFrame()
            ),
            encoders={"t5xxl": ("tokenizer", pipeline.text_encoder, T5_TOKENS)},
            noise=Flow(pipeline.scheduler),
            resolution=RESOLUTION,
            sampling=DEFAULTS,
        )
        self.prompt_options = {"max_sequence_length": T5_TOKENS}

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The transformer's own velocity, float32."""
        height, width = x_t.shape[-2:]
        output = self.denoiser(
            hidden_states=self.autoencoder.pack(x_t.to(self.dtype)),
            timestep=t,
            encoder_hidden_states=self._states(cond),
            padding_mask=torch.zeros(1, 1, height, width, device=self.device, dtype=self.dtype),
        )
        return self.autoencoder.unpack(output.sample, (height, width)).float()

    def _checked(self, drawn: Pixels) -> Pixels:
        """Pictures after the safety checker, which turns those that it refuses black."""
        if not self.config.safety_checker:
            return drawn
        checker = self.pipeline.safety_checker
        films = ((drawn.float() + 1) * 127.5).byte().permute(0, 2, 3, 1)[:, None].cpu().numpy()
        checker.to(self.device)
        passed = [checker.check_video_safety(film) for film in films]
        checker.to("cpu")
        found = drawn.clone()
        for i, (film, left) in enumerate(zip(films, passed, strict=True)):
            if left is None:
                found[i] = -1
            elif (left != film).any():
                found[i] = torch.as_tensor(left[0]).permute(2, 0, 1).to(drawn) / 127.5 - 1
        changed = [i for i in range(len(drawn)) if not torch.equal(found[i], drawn[i])]
        if changed:
            warnings.warn(
                f"The model's safety checker changed picture(s) {changed}; to turn it off, pass "
                "--no-safety-checker.",
                stacklevel=3,
            )
        return found

    def _noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Latents:
        """The first step's share of noise, as in every family."""
        return super()._noise(generators, size) * self._first

    @property
    def _first(self) -> float:
        level = self.pipeline.scheduler.config.sigma_max
        return level / (1 + level)

    def _given(self, latents: Latents) -> Tensor:
        # the pipeline multiplies by the highest level
        return self.autoencoder.pack(latents) / self._first

    def _returned(self, latents: Tensor, _size: tuple[int, int]) -> Latents:
        return latents  # the pipeline has already removed the frame axis

    @contextmanager
    def _watched(self, request: Request, size: tuple[int, int]) -> Iterator[None]:
        """Use steps as in every family, although the pipeline counts in levels."""
        shares = self.pipeline.scheduler
        levels = _Levels(shares, self.pipeline)
        hook = self.denoiser.register_forward_hook(levels.hear)
        with super()._watched(request, size):
            self.pipeline.scheduler = levels
            try:
                yield
            finally:
                self.pipeline.scheduler = shares
                hook.remove()


class Shares(FlowMatchEulerDiscreteScheduler):
    """Straight flow with the family's noise levels as shares of noise, level / (1 + level)."""

    def set_timesteps(self, *given: Any, **options: Any) -> None:
        """As the stock scheduler, whose steps are the same: both follow the same line."""
        super().set_timesteps(*given, **options)
        self.levels = torch.as_tensor(self.sigmas)
        self.sigmas = self.levels / (1 + self.levels)
        self.timesteps = self.sigmas[:-1] * self.config["num_train_timesteps"]


class _Levels:
    """Presents a scheduler of shares to the pipeline in levels: ``x0 + level noise``."""

    order = 1

    def __init__(self, shares: Shares, pipeline: Any) -> None:
        self.shares: Any = shares
        self.config, self.pipeline = shares.config, pipeline
        self._velocities: list[Tensor] = []

    def hear(self, _module: Any, _args: Any, output: Any) -> None:
        """Record the transformer's output with the prompt and then, with guidance, without it."""
        self._velocities.append(output[0].float())

    def set_timesteps(self, *counts: Any, sigmas: Any = None, device: Any = None) -> None:
        self.shares.set_timesteps(*counts, device=device, sigmas=sigmas)
        self.sigmas, self.timesteps = self.shares.levels, self.shares.timesteps
        self._done = 0

    def step(self, _noise: Tensor, t: Any, x: Tensor, **_: Any) -> tuple[Tensor]:
        """One step of the scheduler of shares, given the velocity.

        The pipeline's noise is the same velocity divided by the level, which magnifies rounding
        errors: in bf16 nothing would be left of it at the last step.
        """
        velocity, *others = self._velocities
        if others:
            velocity = velocity + self.pipeline.guidance_scale * (velocity - others[0])
        self._velocities.clear()
        now, after = 1 + self.sigmas[self._done : self._done + 2]
        self._done += 1
        found = self.shares.step(velocity, t, x / now, return_dict=False)[0]
        return (found * after,)
