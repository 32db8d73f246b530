"""A frozen diffusers pipeline behind the contract, except for drawing (see ``drawing.py``)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from oneword._devices import sent
from oneword._typing import Latents, Pixels, Timesteps, Uniforms
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.by_layer import cross_attentions, read_by_layer, reading_by_layer
from oneword.models.contract import Autoencoder, Conditioning, Moments
from oneword.models.memory import shapes, ways
from oneword.models.noise import Diffusion, Flow, TrigFlow
from oneword.models.speed.compiled import Compiled
from oneword.vocabulary.splice import Splice
from oneword.vocabulary.vocabulary import Vocabulary


class FrozenPipeline:
    """A frozen pipeline that encodes, reads and predicts as ``models.contract`` says.

    A family supplies ``_read`` and ``_denoise``.
    """

    tells_sizes: ClassVar[bool] = False
    """Whether the denoiser takes a picture's size before and after cropping."""
    original_px: ClassVar[tuple[int, int] | None] = None
    """Default height and width before the crop; ``None``: the picture's own."""

    def __init__(
        self,
        pipeline: Any,
        config: ModelConfig,
        *,
        family: str,
        denoiser: nn.Module,
        autoencoder: Autoencoder,
        encoders: Mapping[str, tuple[str, Any, int | None]],
        noise: Diffusion | Flow | TrigFlow,
        resolution: int,
        sampling: SamplingConfig,
    ) -> None:
        """Freeze the parts.

        Args:
            pipeline: The loaded diffusers pipeline.
            config: How it was asked for.
            family: Name in the registry.
            denoiser: UNet or transformer.
            autoencoder: Between pictures and latents.
            encoders: By the name of the key in concept files: the pipeline's attribute of the
                tokenizer ("tokenizer.tokenizer" inside a processor), the text encoder, and the
                longest prompt where it is not the tokenizer's.
            noise: How the family's pictures are noised.
            resolution: Side of the model's pictures, px.
            sampling: The family's default for drawing.
        """
        self.pipeline, self.config, self.family, self.name = pipeline, config, family, config.model
        self.denoiser: Any = denoiser
        self.autoencoder, self.noise = autoencoder, noise
        self._own_solver = type(pipeline.scheduler)
        self._layers = cross_attentions(denoiser)
        self._device: torch.device = self.denoiser.device
        self._dtype: torch.dtype = self.denoiser.dtype
        self.pool, self.clip_skip = config.pool, config.clip_skip
        self.resolution = resolution
        self.step_px = autoencoder.factor * _cells(denoiser.config)
        self.sampling = replace(
            sampling,
            height=resolution,
            width=resolution,
            sampler=sampling.sampler or "model",
            emphasis=sampling.emphasis or "numbers",
        )
        if noise.prediction_type not in ("epsilon", "v_prediction", "flow", "trigflow"):
            raise ModelError(
                f"The model {self.name} must predict epsilon or v_prediction, got "
                f"{noise.prediction_type!r}."
            )
        # each text encoder with its tokenizer, wherever in the pipeline that lies
        self.vocabularies = {}
        for name, (place, encoder, longest) in encoders.items():
            *path, attribute = place.split(".")
            holder = functools.reduce(getattr, path, pipeline)
            self.vocabularies[name] = Vocabulary(name, holder, attribute, encoder, longest)
            self._check_tokenizer(self.vocabularies[name])
            self._check_clip_skip(encoder)
        # frozen, whatever a run learns
        frozen: list[Any] = [denoiser, *(v.text_encoder for v in self.vocabularies.values())]
        for part in frozen:
            part.requires_grad_(False).eval()
            if getattr(part.config, "use_cache", False):
                part.config.use_cache = False  # of what decoders have said so far
        # ways to save memory and time, which a count of shapes does not need
        self.memory = ""
        self.micro_batch_size = config.micro_batch_size
        if not shapes.has_shapes_alone():
            self._economise()

    def _check_clip_skip(self, encoder: Any) -> None:
        """Refuse to skip more layers than a CLIP has."""
        layers = getattr(encoder.config, "num_hidden_layers", None)
        is_clip = str(getattr(encoder.config, "model_type", "")).startswith("clip")
        if self.clip_skip is not None and is_clip and layers and self.clip_skip >= layers:
            raise ModelError(
                f"clip_skip must be below the {layers} layers of {self.name}'s text encoder, got "
                f"{self.clip_skip}."
            )

    def _economise(self) -> None:
        """Recompute layers in the backward pass and compile the denoiser, where that is asked."""
        config = self.config
        if config.gradient_checkpointing:
            if getattr(self.denoiser, "_supports_gradient_checkpointing", False):
                self.denoiser.enable_gradient_checkpointing()
            else:
                ways.recompute_layers(self.denoiser)
            for vocabulary in self.vocabularies.values():
                ways.recompute_layers(vocabulary.text_encoder)
            vae = self.autoencoder.vae
            if hasattr(vae, "use_slicing"):  # not every class that names the switch has it
                vae.enable_slicing()
        whole = config.weights in (None, "full") and config.offload != "all"
        if config.compile == "on" or (
            config.compile == "auto" and whole and self.device.type == "cuda"
        ):
            self.denoiser = Compiled(self.denoiser)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Compute type of the denoiser."""
        return self._dtype

    # --- pictures

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the autoencoder, float32, scaled; pixels are float32 in [-1, 1]."""
        with torch.no_grad(), self._present(self.autoencoder.vae):
            return self.autoencoder.encode(pixels)

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        with torch.no_grad(), self._present(self.autoencoder.vae):
            return self.autoencoder.decode(latents).clamp(-1, 1)

    @contextmanager
    def _present(self, *parts: Any) -> Iterator[None]:
        """Move parts to the device; with ``offload`` they leave it again."""
        away = self.config.offload not in (None, "none")
        visitors = [p for p in parts if p is not None and p.device != self.device] if away else []
        try:
            for part in visitors:
                part.to(self.device)
            yield
        finally:
            for part in visitors:
                part.to("cpu")

    # --- prompts

    def encode_prompt(self, prompts: Sequence[str], t: Timesteps | None = None) -> Conditioning:
        """Conditioning of prompts, encoded once for each layer if their words differ by layer."""
        splices = self._splices()
        if not splices:
            return self._read(prompts)
        steps = self.pipeline.scheduler.config.num_train_timesteps
        time = torch.full((len(prompts),), 0.5) if t is None else t.float() / steps
        return read_by_layer(
            self._read, prompts, splices, self.num_cross_attentions, time.to(self.device)
        )

    @property
    def num_cross_attentions(self) -> int:
        """Number of a UNet's layers that read prompts; 0 for other denoisers."""
        return len(self._layers)

    def by_layer(self) -> AbstractContextManager[None] | None:
        """Let each cross-attention layer read its own prompts, if there are such layers."""
        layers = self._layers
        longest = max(vocabulary.max_length for vocabulary in self.vocabularies.values())
        return reading_by_layer(layers, longest) if layers else None

    def _splices(self) -> list[Splice]:
        """What answers for words that differ from layer to layer, where such are injected."""
        found = [vocabulary.splice for vocabulary in self.vocabularies.values()]
        return [splice for splice in found if splice is not None and splice.varies]

    # --- noise

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """The noise's own distribution of times."""
        return self.noise.sample_t(u, latent_size).to(self.device)

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """As the family's noise says."""
        return self.noise.add_noise(x0, noise, t)

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What ``predict`` should return."""
        return self.noise.target(x0, noise, t)

    # --- predictions

    def predict(
        self, x_t: Latents, t: Timesteps, cond: Conditioning, crops: Tensor | None = None
    ) -> Latents:
        """The denoiser's own prediction, float32."""
        if self.tells_sizes:
            cond = replace(cond, extra=cond.extra | {"sizes": self._sizes(x_t, crops)})
        return self._denoise(x_t, t, cond)

    def _sizes(self, x_t: Latents, crops: Tensor | None) -> Tensor:
        """Sizes of each picture, (batch, 6), px.

        Height and width before the crop, the crop's top and left, and height and width after it.
        """
        size_px = [side * self.autoencoder.factor for side in x_t.shape[-2:]]
        size = torch.tensor([size_px] * len(x_t))
        if crops is None:
            original = size if self.original_px is None else torch.tensor([self.original_px])
            crops = torch.cat([original.expand_as(size), torch.zeros_like(size)], dim=1)
        return sent(torch.cat([crops.cpu(), size], dim=1).to(self.dtype), self.device)

    # --- what a family supplies

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Conditioning of prompts through the family's own encoding; differentiable."""
        raise NotImplementedError

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The denoiser's own prediction, float32; if it takes sizes, they are in ``extra``."""
        raise NotImplementedError

    # --- what it may ask for in them

    def _states(self, cond: Conditioning) -> Tensor:
        """Hidden states in the denoiser's form; those of several layers are side by side."""
        states = cond.encoder_hidden_states
        states = torch.cat(states, dim=1) if isinstance(states, tuple) else states
        return states.to(self.dtype)

    def _pooled(self, cond: Conditioning) -> Tensor:
        """The pooled output as the denoiser takes it, of a family that has one."""
        assert cond.pooled is not None
        return cond.pooled.to(self.dtype)

    def _guidance(self, count: int) -> Tensor | None:
        """The guidance that pictures are drawn with, for a denoiser that takes it as input."""
        if not self.denoiser.config.guidance_embeds:
            return None
        return torch.full((count,), self.sampling.guidance_scale or 0.0, device=self.device)

    # --- what it may check

    def _check_tokenizer(self, vocabulary: Vocabulary) -> None:
        known, expected = len(vocabulary.tokenizer), vocabulary.weight.shape[0]
        if 2 * known < expected:
            raise ModelError(
                f"The tokenizer of {self.name} must know the {expected} tokens of its text "
                f"encoder, got {known}; its files are missing or belong to another model."
            )

    def _check_channels(self) -> None:
        """Refuse a UNet that takes more than the picture's latents."""
        channels = self.autoencoder.channels
        if self.denoiser.config.in_channels != channels:
            raise ModelError(
                f"The model {self.name} must take {channels} latent channels, got a UNet with "
                f"{self.denoiser.config.in_channels}; inpainting models are not supported."
            )


def _cells(config: Any) -> int:
    """How many latent cells the layers divide by: a UNet halves them, others take patches."""
    if "block_out_channels" in config:
        return 2 ** (len(config["block_out_channels"]) - 1)
    patch = config.get("patch_size") or 1
    return math.lcm(2, patch if isinstance(patch, int) else patch[-1])
