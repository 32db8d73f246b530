"""Widths and depths of the embedded models; numbers only, so that nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Widths and depths of one embedded model."""

    size_px: int
    """Side of a picture."""
    latent_channels: int
    vae_channels: tuple[int, ...]
    """From the pixels inwards; the picture shrinks by 2 between two of them."""
    unet_channels: tuple[int, ...]
    text_dim: int
    """Width of the text encoder, of its rows and of the CLIP pairs' common space."""
    text_layers: int
    clip_width: int
    """Vision width of the pair that the text encoder comes from."""
    clip_layers: int
    judge_width: int
    judge_layers: int
    oracle_width: int
    """First width of the oracle."""

    @property
    def factor(self) -> int:
        """How many pixels wide a cell of the latents is."""
        return 2 ** (len(self.vae_channels) - 1)

    @property
    def latent_size(self) -> int:
        """Side of a picture's latents, cells."""
        return self.size_px // self.factor


MICROWORLD = Sizes(
    size_px=128,
    latent_channels=8,
    vae_channels=(16, 32, 64, 96),
    unet_channels=(64, 128, 192),
    text_dim=128,
    text_layers=4,
    clip_width=128,
    clip_layers=3,
    judge_width=128,
    judge_layers=4,
    oracle_width=32,
)
NANO = Sizes(
    size_px=64,
    latent_channels=8,
    vae_channels=(8, 16, 24, 32),
    unet_channels=(32, 48),
    text_dim=48,
    text_layers=2,
    clip_width=48,
    clip_layers=2,
    judge_width=48,
    judge_layers=2,
    oracle_width=8,
)
SIZES = {"microworld": MICROWORLD, "microworld-nano": NANO}
WIDE = {
    "microworld": replace(MICROWORLD, unet_channels=(64, 160, 256), text_dim=256),
    "microworld-nano": replace(NANO, unet_channels=(32, 64), text_dim=96),
}
"""What the landed models grow to for the second world; their autoencoders stay."""
PAIRS = {"microworld": MICROWORLD, "microworld-nano": replace(NANO, text_dim=20)}
"""Sizes of the second world's CLIP pairs, whose text towers have five times as many rows."""
