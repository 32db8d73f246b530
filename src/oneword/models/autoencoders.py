"""Autoencoders of families: plain, for video, in patches, and none at all.

Each has a packing: the form in which the family's denoiser takes latents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import Flux2Pipeline, FluxPipeline
from torch import Tensor

from oneword._typing import Latents, Pixels
from oneword.models.contract import Moments


# --- how a denoiser takes latents


@runtime_checkable
class Packing(Protocol):
    """Latents in the form that a denoiser takes, and back to a number of cells."""

    def pack(self, latents: Latents, /) -> Tensor: ...

    def unpack(self, packed: Tensor, size: tuple[int, int], /) -> Latents: ...


class Unpacked:
    """Unchanged latents."""

    def pack(self, latents: Latents) -> Tensor:
        """The latents."""
        return latents

    def unpack(self, packed: Tensor, _size: tuple[int, int]) -> Latents:
        """The latents."""
        return packed


class CellsInRow:
    """Latents as a row of cells, (batch, cells, channels)."""

    def pack(self, latents: Latents) -> Tensor:
        """Row by row."""
        return latents.flatten(2).transpose(1, 2)

    def unpack(self, packed: Tensor, size: tuple[int, int]) -> Latents:
        """The way back."""
        return packed.transpose(1, 2).unflatten(2, size)


class PatchesInRow:
    """Latents as a row of patches of 2 x 2 cells, (batch, patches, 4 channels), as Flux's."""

    def pack(self, latents: Latents) -> Tensor:
        """Row by row."""
        count, channels, height, width = latents.shape
        return FluxPipeline._pack_latents(latents, count, channels, height, width)

    def unpack(self, packed: Tensor, size: tuple[int, int]) -> Latents:
        """The way back."""
        return FluxPipeline._unpack_latents(packed, *size, 1)


UNPACKED, CELLS_IN_ROW, PATCHES_IN_ROW = Unpacked(), CellsInRow(), PatchesInRow()


# --- autoencoders


class Plain:
    """An autoencoder whose latents have one scale, and a shift if one is configured.

    The others below differ in their network's input and in the scale.
    """

    decode_options: Mapping[str, Any] = MappingProxyType({})
    """Further arguments of the network for decoding."""

    def __init__(
        self, vae: Any, name: str, factor: int | None = None, packing: Packing = UNPACKED
    ) -> None:
        """Freeze the network.

        Args:
            vae: Autoencoder of diffusers.
            name: The user's name for the model.
            factor: Width of a cell in px, if the network's levels do not give it.
            packing: The form in which the denoiser takes latents.
        """
        self.vae, self.name, self.packing = vae, name, packing
        self.factor = factor or 2 ** (len(vae.config.block_out_channels) - 1)
        self.channels: int = self._channels()
        vae.requires_grad_(False).eval()
        if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
            vae.to(torch.float32)

    def encode(self, pixels: Pixels) -> Moments:
        """Posterior, float32, scaled; without a spread if the network is deterministic."""
        taken = self._taken(pixels)

        def run(vae: Any) -> Tensor:
            found = vae.encode(taken.to(vae.device, vae.dtype))
            if hasattr(found, "latent_dist"):
                return torch.stack([found.latent_dist.mean.float(), found.latent_dist.std.float()])
            latent = found[0].float()
            return torch.stack([latent, torch.zeros_like(latent)])

        return self._scaled(*self._sound(run))

    def decode(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, float32, not clamped."""
        unscaled = self._unscaled(latents)

        def run(vae: Any) -> Tensor:
            decoded = vae.decode(unscaled.to(vae.device, vae.dtype), **self.decode_options)
            return decoded.sample.float()

        return self._shown(self._sound(run))

    def pack(self, latents: Latents) -> Tensor:
        """Latents as the denoiser takes them."""
        return self.packing.pack(latents)

    def unpack(self, packed: Tensor, size: tuple[int, int]) -> Latents:
        """The way back, to (height, width) cells."""
        return self.packing.unpack(packed, size)

    def _sound(self, run: Callable[[Any], Tensor]) -> Tensor:
        """The network's output, computed in float32 from the first NaN on."""
        vae = self.vae
        found = run(vae)
        if vae.dtype != torch.float32 and not bool(torch.isfinite(found).all()):
            warnings.warn(
                f"The VAE of {self.name} gave NaN or infinity in {vae.dtype}; it will run in fp32 "
                "from now on.",
                stacklevel=4,
            )
            vae.to(torch.float32)
            found = run(vae)
        return found

    def _channels(self) -> int:
        """Channels of the scaled latents."""
        return self.vae.config.latent_channels

    def _taken(self, pixels: Tensor) -> Tensor:
        """Pictures as the network takes them."""
        return pixels

    def _shown(self, decoded: Tensor) -> Tensor:
        """Pictures of what the network gives."""
        return decoded

    def _scaled(self, mean: Tensor, std: Tensor) -> Moments:
        scale, shift = self.vae.config.scaling_factor, self.vae.config.get("shift_factor") or 0.0
        return Moments((mean - shift) * scale, std * scale)

    def _unscaled(self, latents: Latents) -> Tensor:
        config = self.vae.config
        return latents / config.scaling_factor + (config.get("shift_factor") or 0.0)


class Film(Plain):
    """Qwen-Image's autoencoder, which takes video and is scaled by channel.

    A picture is a video of one frame.
    """

    def _channels(self) -> int:
        return self.vae.config.z_dim

    def _taken(self, pixels: Tensor) -> Tensor:
        return pixels[:, :, None]

    def _shown(self, decoded: Tensor) -> Tensor:
        return decoded[:, :, 0]

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the network's latents."""
        config = self.vae.config
        means, stds = (like.new_tensor(v) for v in (config.latents_mean, config.latents_std))
        return means[:, None, None], stds[:, None, None]

    def _scaled(self, mean: Tensor, std: Tensor) -> Moments:
        means, stds = self._scales(mean)
        return Moments((mean[:, :, 0] - means) / stds, std[:, :, 0] / stds)

    def _unscaled(self, latents: Latents) -> Tensor:
        means, stds = self._scales(latents)
        return (latents * stds + means)[:, :, None]


class Patch(Plain):
    """Flux.2's autoencoder: latents are patches of 2 x 2 cells, scaled by its batch norm."""

    def __init__(
        self,
        vae: Any,
        name: str,
        packing: Packing = UNPACKED,
        patchify: Callable[[Tensor], Tensor] = Flux2Pipeline._patchify_latents,
        unpatchify: Callable[[Tensor], Tensor] = Flux2Pipeline._unpatchify_latents,
    ) -> None:
        """Freeze the network.

        Args:
            vae: Autoencoder of diffusers.
            name: The user's name for the model.
            packing: The form in which the denoiser takes latents.
            patchify: Brings cells into patches, in the family's order of channels.
            unpatchify: The way back.
        """
        super().__init__(vae, name, packing=packing)
        self.factor *= 2
        self._patchify, self._unpatchify = patchify, unpatchify

    def scaled(self, cells: Tensor) -> Latents:
        """Latents of cells as the network has them."""
        patches = self._patchify(cells)
        means, stds = self._scales(patches)
        return (patches - means) / stds

    def _channels(self) -> int:
        return 4 * self.vae.config.latent_channels

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of a patch."""
        norm = self.vae.bn
        mean, variance = (v.to(like)[:, None, None] for v in (norm.running_mean, norm.running_var))
        return mean, (variance + self.vae.config.batch_norm_eps).sqrt()

    def _scaled(self, mean: Tensor, std: Tensor) -> Moments:
        _, stds = self._scales(mean)
        return Moments(self.scaled(mean), self._patchify(std) / stds)

    def _unscaled(self, latents: Latents) -> Tensor:
        means, stds = self._scales(latents)
        return self._unpatchify(latents * stds + means)


class NoAutoencoder:
    """Where other families have an autoencoder: pictures are their own latents."""

    vae = None
    factor = 1

    def __init__(self, channels: int, device: torch.device) -> None:
        self.channels, self.device = channels, device

    def encode(self, pixels: Pixels) -> Moments:
        """The picture itself."""
        mean = pixels.to(self.device, torch.float32)
        return Moments(mean, torch.zeros_like(mean))

    def decode(self, latents: Latents) -> Pixels:
        """The picture itself."""
        return latents.to(self.device, torch.float32)

    def pack(self, latents: Latents) -> Tensor:
        """The picture itself."""
        return latents

    def unpack(self, packed: Tensor, _size: tuple[int, int]) -> Latents:
        """The picture itself."""
        return packed
