"""Everything that decides the weights of an embedded model."""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass, replace

from oneword.microworld.making.sizes import SIZES, Sizes
from oneword.microworld.world.sets import FIRST_WORLD


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of the recipe."""

    num_samples: int
    """Pictures seen in all."""
    batch_size: int
    """Pictures per step, all processes together."""
    learning_rate: float
    """Peak rate of AdamW, which trains what is no matrix of hidden layers."""
    matrix_learning_rate: float
    """Peak rate of Muon, which trains the matrices of hidden layers."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_fraction: float = 0.3
    """Last part of the stage, over which the rate falls to zero."""
    weight_decay: float = 0.01
    """Of both optimisers."""
    ema: float = 0.0
    """Decay of the averaged weights; 0: none."""

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.num_samples // self.batch_size

    def rate_factor(self, step: int) -> float:
        """Part of the peak rates: linear warm-up, constant, linear decay to zero."""
        left = (self.num_steps - step) / max(1.0, self.num_steps * self.decay_fraction)
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, left))


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides the weights."""

    model: str = "microworld"
    """Which of ``sizes.SIZES``."""
    world: int = FIRST_WORLD
    """Version of the world whose pictures the oracle and the guide learn to read."""
    seed: int = 0
    """Seed of initialisation and of every batch."""
    vae: Stage = Stage(
        num_samples=96_000,
        batch_size=16,
        learning_rate=2e-3,
        matrix_learning_rate=4e-3,
        weight_decay=0.0,
        ema=0.998,
    )
    clip: Stage = Stage(
        num_samples=128_000, batch_size=128, learning_rate=1.2e-3, matrix_learning_rate=2e-3
    )
    judge: Stage = Stage(
        num_samples=96_000, batch_size=128, learning_rate=1e-3, matrix_learning_rate=2e-3
    )
    oracle: Stage = Stage(
        num_samples=320_000, batch_size=64, learning_rate=1.5e-3, matrix_learning_rate=3e-3
    )
    denoiser: Stage = Stage(
        num_samples=960_000,
        batch_size=64,
        learning_rate=1e-3,
        matrix_learning_rate=4e-3,
        warmup_steps=200,
        ema=0.998,
    )
    guide: Stage = Stage(
        num_samples=128_000, batch_size=128, learning_rate=1.2e-3, matrix_learning_rate=2e-3
    )
    num_pictures: int = 65_536
    """Drawn pictures whose latents are made once for the denoiser; captions are new each time."""
    shard_size: int = 4096
    """Pictures whose latents share a file; it divides num_pictures."""
    num_calibration: int = 8
    """Drawings of each thing, in whose middle the second world's oracle has its prototype."""
    num_check_pictures: int = 1024
    """Unseen drawings on which the VAE, the oracle, judge and guide are measured for the card."""
    text_rate_factor: float = 0.3
    """The text encoder's rate in units of the denoiser's."""
    caption_dropout: float = 0.1
    """Fraction of samples trained without a caption, for guidance."""

    @property
    def sizes(self) -> Sizes:
        """Widths and depths of the model that is made."""
        return SIZES[self.model]


def recipe_for(model: str, seed: int = 0, world: int = FIRST_WORLD) -> Recipe:
    """Return the recipe of an embedded model; the tiny one sees fewer pictures.

    The second world's oracle and guide see more, for thirty times as many things.
    """
    recipe = Recipe(model=model, seed=seed, world=world)
    if world != FIRST_WORLD:
        recipe = replace(
            recipe,
            oracle=replace(recipe.oracle, num_samples=640_000),
            guide=replace(recipe.guide, num_samples=256_000),
        )
    if model == "microworld":
        return recipe
    return replace(
        recipe,
        vae=replace(recipe.vae, num_samples=64_000),
        clip=replace(recipe.clip, num_samples=48_000),
        judge=replace(recipe.judge, num_samples=48_000),
        guide=replace(recipe.guide, num_samples=48_000),
        oracle=replace(recipe.oracle, num_samples=64_000),
        denoiser=replace(recipe.denoiser, num_samples=192_000),
        num_pictures=16_384,
    )
