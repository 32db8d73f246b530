"""Autoencoders of pictures: films, patches, packed latents, and none at all."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, FluxPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from torch import Tensor

from oneword._typing import Latents, Pixels
from oneword.models.contract import Moments
from oneword.models.drawing import Family


class PackedLatents(Family):
    """A family whose denoiser takes latents as a row of patches of 2 x 2 cells, as Flux does."""

    def _packed(self, latents: Latents) -> Tensor:
        count, channels, height, width = latents.shape
        return FluxPipeline._pack_latents(latents, count, channels, height, width)

    def _unpacked(self, latents: Tensor, size: tuple[int, int]) -> Latents:
        height, width = (side * self.vae_factor for side in size)
        return FluxPipeline._unpack_latents(latents, height, width, self.vae_factor)


class FilmAutoencoder(Family):
    """A family with Qwen-Image's autoencoder, which takes films and is scaled by channel."""

    @property
    def vae_factor(self) -> int:
        """How many pixels wide a cell of the latents is."""
        return self.pipeline.vae_scale_factor

    @property
    def latent_channels(self) -> int:
        """Channels of the scaled latents."""
        return self.vae.config.z_dim

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the VAE's latents."""
        config = self.vae.config
        means, stds = (like.new_tensor(v) for v in (config.latents_mean, config.latents_std))
        return means[:, None, None], stds[:, None, None]

    def _film(self, pixels: Pixels) -> Tensor:
        """A film of one frame, as the VAE takes it."""
        return pixels[:, :, None]

    def _picture(self, film: Tensor) -> Pixels:
        """The picture in [-1, 1] that such a film shows."""
        return film[:, :, 0].clamp(-1, 1)

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the VAE, which takes films: a picture is a film of one frame."""

        def run(vae: Any) -> Tensor:
            posterior = vae.encode(self._film(pixels).to(vae.device, vae.dtype)).latent_dist
            return torch.stack([posterior.mean.float(), posterior.std.float()])[:, :, :, 0]

        mean, std = self._through_vae(run)
        means, stds = self._scales(mean)
        return Moments((mean - means) / stds, std / stds)

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        means, stds = self._scales(latents)
        unscaled = (latents * stds + means)[:, :, None]

        def run(vae: Any) -> Tensor:
            return vae.decode(unscaled.to(vae.device, vae.dtype)).sample.float()

        return self._picture(self._through_vae(run))


class PatchAutoencoder(Family):
    """A family with Flux.2's autoencoder: patches of 2 x 2 cells, scaled by its batch norm."""

    @property
    def vae_factor(self) -> int:
        """How many pixels wide a patch of the latents is."""
        return 2 * super().vae_factor

    @property
    def latent_channels(self) -> int:
        """Channels of a patch of 2 x 2 cells."""
        return 4 * super().latent_channels

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of a patch."""
        norm = self.vae.bn
        mean, variance = (v.to(like)[:, None, None] for v in (norm.running_mean, norm.running_var))
        return mean, (variance + self.vae.config.batch_norm_eps).sqrt()

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the VAE in patches, scaled as its batch norm scales them."""

        def run(vae: Any) -> Tensor:
            posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
            return torch.stack([posterior.mean.float(), posterior.std.float()])

        mean, std = (self.pipeline._patchify_latents(part) for part in self._through_vae(run))
        means, stds = self._scales(mean)
        return Moments((mean - means) / stds, std / stds)

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        means, stds = self._scales(latents)
        unscaled = self.pipeline._unpatchify_latents(latents * stds + means)

        def run(vae: Any) -> Tensor:
            return vae.decode(unscaled.to(vae.device, vae.dtype)).sample.float()

        return self._through_vae(run).clamp(-1, 1)


class NoAutoencoder(ModelMixin, ConfigMixin):
    """Where other families have an autoencoder: pictures are their own latents."""

    @register_to_config
    def __init__(
        self,
        scaling_factor: float = 1.0,  # noqa: ARG002  (read from its configuration)
        block_out_channels: tuple[int] = (3,),  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.register_buffer("place", torch.empty(0))

    def encode(self, x: Pixels) -> EncoderOutput:
        """The picture itself."""
        return EncoderOutput(latent=x)

    def decode(self, z: Latents) -> DecoderOutput:
        """The picture itself."""
        return DecoderOutput(sample=z)
