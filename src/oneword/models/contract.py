"""The contract that every model family fulfils, and the types of its values.

``oneword/catalog.py`` lists the families and their text encoders; each family's file implements the
contract.

A word that depends on layer or timestep needs no separate path: ``encode_prompt`` receives ``t``,
and ``Conditioning.encoder_hidden_states`` may be a tuple with one tensor per cross-attention layer
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
    """Mean and standard deviation of the VAE's posterior, in scaled latent units.

    Caching moments instead of one sample keeps the paper's training distribution.
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
    """The prompts in the form for the denoiser; every tensor's first axis is the batch."""

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
"""``on_latents(latents, t)``: the latents to continue with, at timestep t; ``None``: finished."""


@runtime_checkable
class Autoencoder(Protocol):
    """Converts between pictures and latents, and between latents and a denoiser's input."""

    vae: Any
    """The frozen network; ``None`` if pictures are their own latents."""
    factor: int
    """Width of a cell of the latents, in px."""
    channels: int
    """Channels of the scaled latents."""

    def encode(self, pixels: Pixels) -> Moments:
        """Posterior, float32, scaled; pixels are float32 in [-1, 1]."""
        ...

    def decode(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, float32, as the network has them: not clamped."""
        ...

    def pack(self, latents: Latents) -> Tensor:
        """Latents in the denoiser's form."""
        ...

    def unpack(self, packed: Tensor, size: tuple[int, int], /) -> Latents:
        """From the denoiser's form back to (height, width) cells."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A model that reads prompts: a text-to-image model, or a CLIP that guides."""

    vocabularies: dict[str, Vocabulary]
    """One per text encoder, by the name of its key in concept files."""
    pool: str
    """Where CLIP's pooled output is taken: "eos", or "legacy" as stock tools do."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen text-to-image model, which hides all differences between families."""

    family: str
    """Name in the registry; "microworld" for the embedded models, whose presets are their own."""
    name: str
    """The user's name for the model: hub id, folder or file."""
    config: ModelConfig
    """The settings that it was loaded with."""
    pipeline: Any
    """The loaded diffusers pipeline, for drawing."""
    autoencoder: Autoencoder
    """Used by ``encode_image`` and ``decode_latents``."""
    vocabularies: dict[str, Vocabulary]
    """One per text encoder, by the name of its key in concept files."""
    pool: str
    """Where CLIP's pooled output is taken: "eos", or "legacy" as stock tools do."""
    resolution: int
    """Side of the model's pictures, in px."""
    step_px: int
    """Sides of pictures must be multiples of this number of px."""
    sampling: SamplingConfig
    """The family's default for drawing; no field is None."""
    memory: str
    """How memory is saved, and the expected peak, in words; empty by default."""
    micro_batch_size: int | None
    """Samples of a training step that pass through the model at once; ``None``: all."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Compute type of the denoiser."""
        ...

    def sampling_for(self, wishes: SamplingConfig | None) -> SamplingConfig:
        """The given settings; unset fields come from their sampler, and then from the family.

        Raises:
            ConfigError: there is no such sampler.
            ModelError: the sampler does not fit the family.
        """
        ...

    def solving(self, sampling: SamplingConfig) -> AbstractContextManager[None]:
        """Inside the context, the pipeline's scheduler is that of the settings' sampler."""
        ...

    def weighing(self, sampling: SamplingConfig) -> AbstractContextManager[None]:
        """Inside the context, weights in prompts are read as the settings say."""
        ...

    def check_prompts(self, prompts: Sequence[str], sampling: SamplingConfig) -> None:
        """Refuse weights in prompts that cannot be read, or that the family does not support.

        Raises:
            PromptError: a weight is out of range, or not written correctly.
            ModelError: the family does not support weights.
        """
        ...

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the VAE, float32, scaled; pixels are float32 in [-1, 1]."""
        ...

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        ...

    def encode_prompt(self, prompts: Sequence[str], t: Timesteps | None = None) -> Conditioning:
        """Conditioning of prompts through the family's own encoding; differentiable.

        Inside ``injected`` the prompts may contain placeholders.
        """
        ...

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """Map draws of U[0, 1) to the family's training distribution of timesteps.

        Some families shift it with the picture's size, here (h, w) in latent cells.
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
            t: Their timesteps.
            cond: Conditioning of the same number of prompts.
            crops: (batch, 4) original height and width, and top and left of the crop in the resized
                picture, in px, for families that use them; ``None``: the whole picture.
        """
        ...

    def check_sampling(self, sampling: SamplingConfig) -> None:
        """Refuse settings that the family cannot draw with, such as a negative prompt.

        Raises:
            ModelError: the family cannot draw with these settings.
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

        A picture depends only on its own prompt and seed, not on the batch.

        Args:
            prompts: May contain placeholders inside ``injected``.
            seeds: One for each prompt.
            sampling: Unset fields take the family's default.
            image: Pictures to start from, one for each prompt, in the size that is drawn.
            mask: (batch, 1, height, width) in [0, 1]; 1 where the picture is redrawn, the rest of
                ``image`` stays.
            strength: How much of ``image`` is drawn over, in (0, 1].
            latents: Latents to denoise, at the first step's noise level, instead of the seeds'
                noise.
            on_latents: May change the input of every step (except the first with ``image``), and
                the finished latents.
            on_step: ``on_step(done, total)`` reports denoising steps.

        Raises:
            ModelError: the family has no pipeline for this.
        """
        ...
