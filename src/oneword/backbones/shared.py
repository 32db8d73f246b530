"""What several families share, though not all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import FluxPipeline
from torch import Tensor

from oneword._typing import Latents, Pixels, Timesteps
from oneword.backbones.base import Conditioning, Moments, sent
from oneword.backbones.frozen import FrozenPipeline
from oneword.config import SamplingConfig


class OneEncoder(FrozenPipeline):
    """A family whose prompts one text encoder reads, token by token.

    A family sets ``prompt_options`` and adds ``predict``.
    """

    prompt_options: dict[str, Any]
    """What the pipeline is told of prompts, when it encodes them and when it draws."""
    mask_at: ClassVar[int | None] = 1
    """Where the mask of the prompt's own tokens is in what the pipeline returns, if anywhere."""

    def encode_prompt(
        self,
        prompts: Sequence[str],
        t: Timesteps | None = None,  # noqa: ARG002  (part of the contract)
    ) -> Conditioning:
        """Hidden states of the text encoder, and its mask in ``extra``; differentiable."""
        found = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            device=self.device,
            **self.prompt_options,
        )
        extra = {} if self.mask_at is None else {"mask": found[self.mask_at]}
        return Conditioning(found[0], extra=extra)

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:  # noqa: ARG002
        return self.prompt_options


class PackedLatents(FrozenPipeline):
    """A family whose denoiser takes latents as a row of patches of 2 x 2 cells, as Flux does."""

    def _packed(self, latents: Latents) -> Tensor:
        count, channels, height, width = latents.shape
        return FluxPipeline._pack_latents(latents, count, channels, height, width)

    def _unpacked(self, latents: Tensor, size: tuple[int, int]) -> Latents:
        height, width = (side * self.vae_factor for side in size)
        return FluxPipeline._unpack_latents(latents, height, width, self.vae_factor)


class FilmAutoencoder(FrozenPipeline):
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


class ToldSizes(FrozenPipeline):
    """A family whose denoiser is told the picture's size before and after it was cropped."""

    def _sizes(self, x_t: Latents, crops: Tensor | None) -> dict[str, Tensor]:
        """What it is told, px: height and width, and the crop's top and left, of each picture."""
        target = torch.tensor([[side * self.vae_factor for side in x_t.shape[-2:]]] * len(x_t))
        if crops is None:
            crops = torch.cat([target, torch.zeros_like(target)], dim=1)
        told = torch.cat([crops.cpu(), target], dim=1).to(self.dtype)
        original, corner, target = sent(told, self.device).split(2, dim=1)
        return {"original_size": original, "target_size": target, "crop_coords": corner}
