"""The contract that every model family fulfils, and the values that cross it.

``oneword/catalog.py`` says which families there are and what reads their prompts; each family's
file says how it fits.

A word that depends on layer or time needs no second road: ``encode_prompt`` receives ``t``, and
``Conditioning.encoder_hidden_states`` may be a tuple with one tensor per cross-attention layer
(``by_layer.py``; the older families with a UNet).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from oneword._typing import Latents, Pixels, Timesteps, Uniforms
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of the VAE's posterior, in scaled latent units, shape as Latents.

    Caching moments rather than one sample keeps the training distribution of the paper.
    """

    mean: Latents
    std: Latents

    def sample(self, noise: Latents) -> Latents:
        """``mean + std * noise``."""
        return self.mean + self.std * noise

    def __getitem__(self, index: Any) -> Moments:
        return Moments(self.mean[index], self.std[index])


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the denoiser knows of the prompts; every tensor's first axis is the batch."""

    encoder_hidden_states: Tensor | tuple[Tensor, ...]
    """(batch, tokens, dim), or one such tensor per cross-attention layer."""
    pooled: Tensor | None = None
    """(batch, dim), for families that use one."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Further inputs of the family's denoiser, such as masks or time ids."""

    def __getitem__(self, index: Any) -> Conditioning:
        states = self.encoder_hidden_states
        return Conditioning(
            tuple(s[index] for s in states) if isinstance(states, tuple) else states[index],
            None if self.pooled is None else self.pooled[index],
            {name: value[index] for name, value in self.extra.items()},
        )


OnLatents = Callable[[Latents, float | None], Latents]
"""``on_latents(latents, t)``: what to go on with, at the family's time t; ``None``: finished."""


@runtime_checkable
class Autoencoder(Protocol):
    """Between pictures and latents, and between latents and what a denoiser takes."""

    vae: Any
    """The frozen network; ``None`` where pictures are their own latents."""
    factor: int
    """How many pixels wide a cell of the latents is."""
    channels: int
    """Channels of the scaled latents."""

    def encode(self, pixels: Pixels) -> Moments:
        """Posterior, float32, scaled; pixels are float32 in [-1, 1]."""
        ...

    def decode(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, float32, as the network has them: not clamped."""
        ...

    def pack(self, latents: Latents) -> Tensor:
        """Latents as the denoiser takes them."""
        ...

    def unpack(self, packed: Tensor, size: tuple[int, int], /) -> Latents:
        """The way back, to (height, width) cells."""
        ...


@runtime_checkable
class Reader(Protocol):
    """What reads prompts: a text-to-image model, or a CLIP that guides."""

    vocabularies: dict[str, Vocabulary]
    """One per text encoder, by the name of its key in concept files."""
    pool: str
    """Where CLIP's pooled output is taken: "eos", or "legacy" as stock tools do."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen text-to-image model: everything that differs between families hides here."""

    family: str
    """Name in the registry; "microworld" for the embedded models, whose presets are their own."""
    name: str
    """What the user called the model: hub id, folder or file."""
    config: ModelConfig
    """How it was asked for."""
    pipeline: Any
    """The loaded diffusers pipeline, for drawing."""
    autoencoder: Autoencoder
    """What ``encode_image`` and ``decode_latents`` go through."""
    vocabularies: dict[str, Vocabulary]
    """One per text encoder, by the name of its key in concept files."""
    pool: str
    """Where CLIP's pooled output is taken: "eos", or "legacy" as stock tools do."""
    resolution: int
    """Side of the model's pictures, px."""
    step_px: int
    """Sides of pictures that its latents and layers divide are multiples of this, px."""
    sampling: SamplingConfig
    """The family's default for drawing; no field is None."""
    memory: str
    """How memory is saved, and the expected peak, in words; empty where nothing was asked."""
    micro_batch_size: int | None
    """Samples of a training step that go through the model at once; ``None``: all."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Compute type of the denoiser."""
        ...

    def sampling_for(self, wishes: SamplingConfig | None) -> SamplingConfig:
        """Wishes, where they say nothing their sampler's settings, and then the family's.

        Raises:
            ConfigError: there is no such sampler.
            ModelError: it does not draw the family.
        """
        ...

    def solving(self, sampling: SamplingConfig) -> AbstractContextManager[None]:
        """While it lasts, the pipeline's scheduler is the one of the settings' sampler."""
        ...

    def weighing(self, sampling: SamplingConfig) -> AbstractContextManager[None]:
        """While it lasts, weights in prompts are read as the settings say."""
        ...

    def check_prompts(self, prompts: Sequence[str], sampling: SamplingConfig) -> None:
        """Refuse weights in prompts that cannot be read, or that the family does not take.

        Raises:
            PromptError: a weight is out of range, or not written as one.
            ModelError: the family takes no weights.
        """
        ...

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the VAE, float32, scaled; pixels are float32 in [-1, 1]."""
        ...

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        ...

    def encode_prompt(self, prompts: Sequence[str], t: Timesteps | None = None) -> Conditioning:
        """Conditioning of prompts through the family's own road; differentiable.

        Inside ``injected`` the prompts may hold placeholders.
        """
        ...

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """Map draws of U[0, 1) to the family's training distribution of timesteps.

        Some families shift it with the size of the picture, here (h, w) in latent cells.
        """
        ...

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents: ...

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What ``predict`` should return: noise, v or flow, as the model was trained."""
        ...

    def predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None = None
    ) -> Latents:
        """The denoiser's own prediction, float32.

        Args:
            x_t: Noised latents.
            t: Their times.
            cond: Conditioning of as many prompts.
            crops: (batch, 4) original height and width, and top and left of the crop in the
                resized picture, px, for families that are told; ``None``: the whole picture.
        """
        ...

    def check_sampling(self, sampling: SamplingConfig) -> None:
        """Refuse settings that the family cannot draw with, such as a negative prompt.

        Raises:
            ModelError: it is so.
        """
        ...

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
        """Draw one picture per (prompt, seed) pair through the family's pipeline.

        A picture depends on its own prompt and seed only, not on the batch.

        Args:
            prompts: May hold placeholders inside ``injected``.
            seeds: As many.
            sampling: Unset fields take the family's default.
            image: Pictures to start from, as many, in the size that is drawn.
            mask: (batch, 1, height, width) in [0, 1]; what is 1 is drawn again, the rest of
                ``image`` stays.
            strength: How much of ``image`` is drawn over, in (0, 1].
            latents: What to denoise, at the first step's noise, in place of the seeds' noise.
            on_latents: May change what goes into every step but an ``image``'s first, and the
                finished latents.
            on_step: ``on_step(done, total)`` reports denoising steps.

        Raises:
            ModelError: the family has no such pipeline.
        """
        ...
