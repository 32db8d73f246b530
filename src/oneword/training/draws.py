"""All random numbers of training: a pure function of (job's seed, own step, sample).

They do not depend on slots, queues or neighbours, and there is no state to save: a resumed run
draws the same numbers as an unbroken one. All draws are made on the CPU, so that every device sees
the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oneword._typing import Latents, Uniforms


_TRAINING, _EVALUATION, _PERMUTATION, _GROUNDS, _TRICKS = range(5)
EVALUATION_SPAN = (0.1, 0.95)
"""Range of times that the fixed evaluation batch covers, as fractions."""


@dataclass(frozen=True, slots=True)
class Draws:
    """The draws of one concept for one step; sample ``i`` owns index ``i`` of each tensor."""

    pictures: Int[Tensor, " batch"]
    """Index of the picture."""
    flips: Bool[Tensor, " batch"]
    """Whether the picture is mirrored."""
    sentences: Uniforms
    """Chooses among the picture's sentences: ``floor(u * count)``."""
    times: Uniforms
    """Time, before the family's own mapping to timesteps."""
    posterior_noise: Latents
    """Standard normal; chooses the sample of the VAE's posterior."""
    noise: Latents
    """Standard normal; the noise that the denoiser has to remove."""
    grounds: Int[Tensor, " batch"]
    """Index of the background behind a picture with transparency."""
    offsets: Float[Tensor, "batch channels 1 1"]
    """Standard normal; the offset added to the noise, before its factor."""
    wordings: Int[Tensor, " batch"]
    """Seeds for changes of the sentences, in [0, 2**62)."""
    views: Int[Tensor, " batch"]
    """Index of the picture's view: 0 is the picture itself."""


def generator(seed: int, stream: int, index: int = 0) -> torch.Generator:
    """A CPU generator that depends only on (seed, stream, index).

    Neighbouring seeds and steps give unrelated draws, because the triple is hashed.
    """
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=(stream, index))
    high, low = (int(word) for word in sequence.generate_state(2))
    return torch.Generator().manual_seed((high << 32 | low) & (2**63 - 1))


def balanced(seed: int, first: int, count: int, num_pictures: int) -> Int[Tensor, " batch"]:
    """Pictures ``first .. first + count - 1`` of an endless sequence of shuffled decks."""
    positions = range(first, first + count)
    decks = {
        deck: torch.randperm(num_pictures, generator=generator(seed, _PERMUTATION, deck))
        for deck in {position // num_pictures for position in positions}
    }
    return torch.stack([decks[p // num_pictures][p % num_pictures] for p in positions])


def step_draws(
    seed: int,
    step: int,
    batch: int,
    num_pictures: int,
    latent_shape: tuple[int, ...],
    *,
    random_flip: bool,
    num_grounds: int = 1,
    num_views: int = 1,
) -> Draws:
    """Draws of a concept's own step.

    Every picture is used equally often, because indices come from shuffled decks.

    Args:
        seed: The job's seed.
        step: The concept's own step, 0 or more.
        batch: Number of samples of this concept.
        num_pictures: Number of pictures to choose from.
        latent_shape: (channels, h, w) of one sample.
        random_flip: Mirror half of the samples.
        num_grounds: Number of backgrounds to choose from.
        num_views: Number of views of each picture to choose from.
    """
    g = generator(seed, _TRAINING, step)
    uniforms = torch.rand(3, batch, generator=g)
    noise = torch.randn(2, batch, *latent_shape, generator=g)
    grounds = torch.zeros(batch, dtype=torch.long)
    if num_grounds > 1:
        grounds = torch.randint(num_grounds, (batch,), generator=generator(seed, _GROUNDS, step))
    tricks = generator(seed, _TRICKS, step)
    return Draws(
        pictures=balanced(seed, step * batch, batch, num_pictures),
        flips=(uniforms[0] < 0.5) if random_flip else torch.zeros(batch, dtype=torch.bool),
        sentences=uniforms[1],
        times=uniforms[2],
        posterior_noise=noise[0],
        noise=noise[1],
        grounds=grounds,
        offsets=torch.randn(batch, latent_shape[0], 1, 1, generator=tricks),
        wordings=torch.randint(2**62, (batch,), generator=tricks),
        views=torch.randint(num_views, (batch,), generator=tricks),
    )


def evaluation_draws(
    seed: int, batch: int, num_pictures: int, latent_shape: tuple[int, ...], num_grounds: int = 1
) -> Draws:
    """Draws of the fixed evaluation batch: no mirroring or tricks, times at the centres of strata.

    Source:
        The fixed batch is DVAR's (Voronov et al. 2023, arXiv:2302.04841); the strata are ours.
    """
    g = generator(seed, _EVALUATION)
    low, high = EVALUATION_SPAN
    centres = low + (high - low) * (torch.arange(batch) + 0.5) / batch
    noise = torch.randn(2, batch, *latent_shape, generator=g)
    return Draws(
        # Neighbouring strata see different pictures, so that each picture meets every noise level.
        pictures=torch.arange(batch) % num_pictures,
        flips=torch.zeros(batch, dtype=torch.bool),
        sentences=torch.rand(batch, generator=g),
        times=centres,
        posterior_noise=noise[0],
        noise=noise[1],
        grounds=torch.arange(batch) // num_pictures % num_grounds,
        offsets=torch.zeros(batch, latent_shape[0], 1, 1),
        wordings=torch.zeros(batch, dtype=torch.long),
        views=torch.zeros(batch, dtype=torch.long),
    )
