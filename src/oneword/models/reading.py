"""What several families share, though not all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, FluxPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oneword._typing import Latents, Pixels, Timesteps
from oneword.config.inversion import SamplingConfig
from oneword.models.contract import Conditioning, ModelError, Moments, OnLatents, sent
from oneword.models.pipeline import FrozenPipeline


class OneEncoder(FrozenPipeline):
    """A family whose prompts one text encoder reads, token by token.

    A family sets ``prompt_options`` and adds ``predict``.
    """

    prompt_options: dict[str, Any]
    """What the pipeline is told of prompts, when it encodes them and when it draws."""
    mask_at: ClassVar[int | None] = 1
    """Where the mask of the prompt's own tokens is in what the pipeline returns, if anywhere."""
    unguided: ClassVar[dict[str, Any]] = {"do_classifier_free_guidance": False}
    """How the pipeline is told to encode no negative prompt, if it knows one."""

    def encode_prompt(
        self,
        prompts: Sequence[str],
        t: Timesteps | None = None,  # noqa: ARG002  (part of the contract)
    ) -> Conditioning:
        """Hidden states of the text encoder, and its mask in ``extra``; differentiable."""
        found = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            **self.unguided,
            **self.prompt_options,
        )
        extra = {} if self.mask_at is None else {"mask": found[self.mask_at]}
        return Conditioning(found[0], extra=extra)

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:  # noqa: ARG002
        return self.prompt_options


class InParts(FrozenPipeline):
    """A family whose pipeline draws some prompts otherwise where others stand beside them."""

    alike: ClassVar[str]
    """What prompts have in common that may be drawn together, in words."""

    def _alike(self, prompts: Sequence[str]) -> list[list[int]]:
        """Places of the prompts that may be drawn together."""
        raise NotImplementedError

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
        """Draw as every family does, prompts that are alike at a time.

        Raises:
            ModelError: ``on_latents`` is to see several kinds of prompts at once.
        """
        groups = self._alike(prompts)
        if len(groups) == 1:
            return super().draw(
                prompts, seeds, sampling, image=image, mask=mask, strength=strength,
                latents=latents, on_latents=on_latents, on_step=on_step,
            )  # fmt: skip
        if on_latents is not None:
            raise ModelError(
                f"The family {self.family} must be given prompts {self.alike} where latents are "
                f"watched, got {len(groups)} kinds; pass them one by one."
            )
        total = len(groups) * (self.sampling.overlaid(sampling).num_inference_steps or 0)
        found: dict[int, Tensor] = {}
        done = 0

        def count(*_: int) -> None:
            nonlocal done
            done += 1
            if on_step is not None:
                on_step(done, total)

        for places in groups:
            drawn = super().draw(
                [prompts[i] for i in places],
                [seeds[i] for i in places],
                sampling,
                image=None if image is None else image[places],
                mask=None if mask is None else mask[places],
                strength=strength,
                latents=None if latents is None else latents[places],
                on_step=count,
            )
            found |= dict(zip(places, drawn, strict=True))
        return torch.stack([found[i] for i in range(len(prompts))])


class OneLength(InParts):
    """A family whose prompts are read with their padding: each is padded as if it were alone.

    Prompts of several lengths are encoded, denoised and drawn in parts. A family adds ``_encode``
    and ``_predict``, which are given prompts of one length, and ``_lengths`` where it has several
    text encoders or puts prompts into a template.
    """

    block: ClassVar[int] = 1
    """Prompts are padded to multiples of so many tokens."""
    alike = "of one length in tokens"

    def encode_prompt(
        self,
        prompts: Sequence[str],
        t: Timesteps | None = None,  # noqa: ARG002  (part of the contract)
    ) -> Conditioning:
        """States of the prompts and their padding; in ``extra``, how many where that differs."""
        groups = self._alike(prompts)
        if len(groups) == 1:
            return self._encode(prompts)
        found: dict[int, Conditioning] = {}
        for places in groups:
            cond = self._encode([prompts[i] for i in places])
            found |= {place: cond[i] for i, place in enumerate(places)}
        parts = [found[i] for i in range(len(prompts))]
        states = [part.encoder_hidden_states for part in parts]
        extra = {
            name: pad_sequence([part.extra[name] for part in parts], batch_first=True)
            for name in parts[0].extra
        }
        extra["lengths"] = torch.tensor([len(one) for one in states], device=self.device)
        pooled = None
        if parts[0].pooled is not None:
            pooled = torch.stack([part.pooled for part in parts])
        return Conditioning(pad_sequence(states, batch_first=True), pooled, extra)

    def predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None = None
    ) -> Latents:
        """The denoiser's own prediction, float32, for prompts of one length after another."""
        if "lengths" not in cond.extra:
            return self._predict(x_t, t, cond, crops)
        lengths = cond.extra["lengths"].tolist()
        found: dict[int, Tensor] = {}
        for length in sorted(set(lengths)):
            places = [i for i, own in enumerate(lengths) if own == length]
            part = Conditioning(
                self._states(cond)[places, :length],
                None if cond.pooled is None else cond.pooled[places],
                {n: x[places, :length] for n, x in cond.extra.items() if n != "lengths"},
            )
            of_part = None if crops is None else crops[places]
            drawn = self._predict(x_t[places], t[places], part, of_part)
            found |= dict(zip(places, drawn, strict=True))
        return torch.stack([found[i] for i in range(len(x_t))])

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        """States of prompts of one length, which is the second axis of all but pooled tensors."""
        raise NotImplementedError

    def _predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None
    ) -> Latents:
        raise NotImplementedError

    def _alike(self, prompts: Sequence[str]) -> list[list[int]]:
        """Places of the prompts that are padded to one length, by length."""
        blocks = [math.ceil(length / self.block) for length in self._lengths(prompts)]
        order = sorted(range(len(prompts)), key=blocks.__getitem__)
        return [list(places) for _, places in groupby(order, key=blocks.__getitem__)]

    def _lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens that are read of each prompt, without padding."""
        (vocabulary,) = self.vocabularies.values()
        found = vocabulary.tokenizer(
            list(prompts), max_length=vocabulary.max_length, truncation=True
        )
        return [len(ids) for ids in found.input_ids]


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


class PatchAutoencoder(FrozenPipeline):
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


class SizedUNet(FrozenPipeline):
    """A family with SDXL's UNet, which is told a pooled prompt, the picture's size and its crop."""

    def predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None = None
    ) -> Latents:
        """The UNet's own prediction, float32, told the picture's size and the crop's place."""
        pooled = cond.pooled
        assert pooled is not None
        size = torch.tensor([[side * self.vae_factor for side in x_t.shape[-2:]]] * len(x_t))
        if crops is None:
            crops = torch.cat([size, torch.zeros_like(size)], dim=1)
        sizes = torch.cat([crops.to(size.dtype).cpu(), size], dim=1)
        time_ids = sent(sizes.to(self.dtype), self.device)
        output = self.denoiser(
            x_t.to(self.dtype),
            t,
            encoder_hidden_states=self._states(cond),
            added_cond_kwargs={"text_embeds": pooled.to(self.dtype), "time_ids": time_ids},
        )
        return output.sample.float()
