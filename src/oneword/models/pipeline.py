"""What all families share: loading a diffusers pipeline, its autoencoder, and drawing with it."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
)
from torch import Tensor, nn

from oneword._typing import Latents, Pixels, Timesteps, Uniforms
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.assembly import quiet, unscale
from oneword.models.by_layer import cross_attentions, following, reading_by_layer
from oneword.models.contract import Conditioning, Moments, OnLatents
from oneword.models.memory import shapes, ways
from oneword.models.noise import Diffusion, Flow, TrigFlow
from oneword.models.speed.compiled import Compiled
from oneword.vocabulary.splice import Splice
from oneword.vocabulary.vocabulary import Vocabulary


class FrozenPipeline:
    """A frozen pipeline behind the contract of ``backbones.base``, but for what a family decides.

    A family adds ``encode_prompt`` and ``predict``.
    """

    def __init__(
        self,
        pipeline: Any,
        config: ModelConfig,
        *,
        family: str,
        denoiser: nn.Module,
        vae: nn.Module,
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
            vae: Autoencoder.
            encoders: By the name of the key in concept files: the pipeline's attribute of the
                tokenizer ("tokenizer.tokenizer" inside a processor), the text encoder, and the
                longest prompt where it is not the tokenizer's.
            noise: How the family's pictures are noised.
            resolution: Side of the model's pictures, px.
            sampling: The family's default for drawing.
        """
        self.pipeline, self.config, self.family, self.name = pipeline, config, family, config.model
        self.denoiser: Any = denoiser
        self._layers = cross_attentions(denoiser)
        self.vae: Any = vae
        self._device: torch.device = self.denoiser.device
        self._dtype: torch.dtype = self.denoiser.dtype
        self.pool, self.clip_skip = config.pool, config.clip_skip
        self.noise, self.resolution = noise, resolution
        self.sampling = replace(sampling, height=resolution, width=resolution)
        if noise.prediction_type not in ("epsilon", "v_prediction", "flow", "trigflow"):
            raise ModelError(
                f"The model {self.name} must predict epsilon or v_prediction, got "
                f"{noise.prediction_type!r}."
            )
        self.vocabularies = {}
        for name, (place, encoder, longest) in encoders.items():
            *path, attribute = place.split(".")
            holder = functools.reduce(getattr, path, pipeline)
            self.vocabularies[name] = Vocabulary(name, holder, attribute, encoder, longest)
        for vocabulary in self.vocabularies.values():
            self._check_tokenizer(vocabulary)
        for part in (denoiser, vae, *(v.text_encoder for v in self.vocabularies.values())):
            part.requires_grad_(False).eval()
            if getattr(part.config, "use_cache", False):
                part.config.use_cache = False  # of what decoders have said so far
        if self.vae.dtype == torch.float16 and self.vae.config.get("force_upcast"):
            self.vae.to(torch.float32)
        self.memory = ""
        if shapes.has_shapes_alone():
            return
        if config.gradient_checkpointing:
            if getattr(denoiser, "_supports_gradient_checkpointing", False):
                self.denoiser.enable_gradient_checkpointing()
            else:
                ways.recompute_layers(denoiser)
            for vocabulary in self.vocabularies.values():
                ways.recompute_layers(vocabulary.text_encoder)
            if hasattr(self.vae, "use_slicing"):  # not every class that names the switch has it
                self.vae.enable_slicing()
        whole = config.weights in (None, "full") and config.offload != "all"
        if config.compile == "on" or (
            config.compile == "auto" and whole and self.device.type == "cuda"
        ):
            self.denoiser = Compiled(self.denoiser)

    def _check_tokenizer(self, vocabulary: Vocabulary) -> None:
        known, expected = len(vocabulary.tokenizer), vocabulary.weight.shape[0]
        if 2 * known < expected:
            raise ModelError(
                f"The tokenizer of {self.name} must know the {expected} tokens of its text "
                f"encoder, got {known}; its files are missing or belong to another model."
            )

    def _check_channels(self) -> None:
        """Refuse a UNet that takes more than the picture's latents."""
        channels = self.vae.config.latent_channels
        if self.denoiser.config.in_channels != channels:
            raise ModelError(
                f"The model {self.name} must take {channels} latent channels, got a UNet with "
                f"{self.denoiser.config.in_channels}; inpainting models are not supported."
            )

    @property
    def num_cross_attentions(self) -> int:
        """Layers of a UNet that read prompts; 0: the denoiser is of another kind."""
        return len(self._layers)

    def by_layer(self) -> AbstractContextManager[None] | None:
        """Let each cross-attention layer read prompts of its own, where there are such layers."""
        layers = self._layers
        longest = max(vocabulary.max_length for vocabulary in self.vocabularies.values())
        return reading_by_layer(layers, longest) if layers else None

    def _splices(self) -> list[Splice]:
        """What answers for words that differ from layer to layer, where such are injected."""
        found = [vocabulary.splice for vocabulary in self.vocabularies.values()]
        return [splice for splice in found if splice is not None and splice.varies]

    def _encoded(
        self,
        prompts: Sequence[str],
        t: Timesteps | None,
        encode: Callable[[Sequence[str]], Conditioning],
    ) -> Conditioning:
        """Encode prompts, once for every cross-attention layer where their words differ there."""
        splices = self._splices()
        if not splices:
            return encode(prompts)
        layers = self.num_cross_attentions
        layer = torch.arange(layers, device=self.device).repeat_interleave(len(prompts))
        steps = self.pipeline.scheduler.config.num_train_timesteps
        time = torch.full((len(prompts),), 0.5) if t is None else t.float() / steps
        for splice in splices:
            splice.place = layer, time.to(self.device).repeat(layers)
        try:
            found = encode([*prompts] * layers)
        finally:
            for splice in splices:
                splice.place = None
        states = found.encoder_hidden_states
        assert isinstance(states, Tensor)
        pooled = None if found.pooled is None else found.pooled[: len(prompts)]
        return Conditioning(states.split(len(prompts)), pooled)

    def _states(self, cond: Conditioning) -> Tensor:
        """Hidden states as the denoiser takes them; those of several layers lie side by side."""
        states = cond.encoder_hidden_states
        states = torch.cat(states, dim=1) if isinstance(states, tuple) else states
        return states.to(self.dtype)

    @contextmanager
    def _following(self, prompts: Sequence[str]) -> Iterator[None]:
        """While the pipeline draws prompts, let their words see layer and time."""
        splices = self._splices()
        if not splices:
            yield
            return

        def encode(t: Tensor) -> Tensor:
            times = t.reshape(-1)[:1].expand(len(prompts))
            return self._states(self.encode_prompt(prompts, times))  # type: ignore[attr-defined]

        timed = any(splice.timed for splice in splices)
        with following(self.denoiser, encode, timed=timed):
            yield

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Compute type of the denoiser."""
        return self._dtype

    @property
    def vae_factor(self) -> int:
        """How many pixels wide a cell of the latents is."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the scaled latents."""
        return self.vae.config.latent_channels

    @contextmanager
    def _present(self, *parts: Any) -> Iterator[None]:
        """Parts that wait off the device come to it; with ``offload`` they leave again."""
        leave = self.config.offload not in (None, "none")
        for part in parts if leave else ():
            part.to(self.device)
        yield
        for part in parts if leave else ():
            part.to("cpu")

    def _through_vae(self, run: Callable[[Any], Tensor]) -> Tensor:
        """Run the VAE, in float32 from the first NaN on."""
        vae = self.vae
        with torch.no_grad(), self._present(vae):
            found = run(vae)
            if vae.dtype != torch.float32 and not bool(torch.isfinite(found).all()):
                warnings.warn(
                    f"The VAE of {self.name} gave NaN or infinity in {vae.dtype}; it runs in fp32 "
                    "from here on.",
                    stacklevel=3,
                )
                vae.to(torch.float32)
                found = run(vae)
        return found

    def encode_image(self, pixels: Pixels) -> Moments:
        """Posterior of the VAE, float32, scaled; pixels are float32 in [-1, 1]."""

        def run(vae: Any) -> Tensor:
            found = vae.encode(pixels.to(vae.device, vae.dtype))
            if not hasattr(found, "latent_dist"):  # one answer, without a spread
                latent = found[0].float()
                return torch.stack([latent, torch.zeros_like(latent)])
            return torch.stack([found.latent_dist.mean.float(), found.latent_dist.std.float()])

        mean, std = self._through_vae(run)
        scale, shift = self.vae.config.scaling_factor, self.vae.config.get("shift_factor") or 0.0
        return Moments((mean - shift) * scale, std * scale)

    def decode_latents(self, latents: Latents) -> Pixels:
        """Pictures of scaled latents, clamped to [-1, 1]."""
        unscaled = unscale(self.vae, latents)

        def run(vae: Any) -> Tensor:
            return vae.decode(unscaled.to(vae.device, vae.dtype)).sample.float()

        return self._through_vae(run).clamp(-1, 1)

    def sample_t(self, u: Uniforms, latent_size: tuple[int, int]) -> Timesteps:
        """The noise's own distribution of times."""
        return self.noise.sample_t(u, latent_size).to(self.device)

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """As the family's noise says."""
        return self.noise.add_noise(x0, noise, t)

    def target(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        """What ``predict`` should return."""
        return self.noise.target(x0, noise, t)

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
        """Draw one picture per (prompt, seed) pair through the family's pipeline."""
        chosen = self.sampling.overlaid(sampling)
        assert chosen.height
        assert chosen.width
        size = chosen.height // self.vae_factor, chosen.width // self.vae_factor
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        options: dict[str, Any] = {
            "prompt": list(prompts),
            "guidance_scale": chosen.guidance_scale,
            "num_inference_steps": chosen.num_inference_steps,
            "height": chosen.height,
            "width": chosen.width,
            "output_type": "latent",
        }
        if chosen.negative_prompt:
            options["negative_prompt"] = chosen.negative_prompt
        pipeline = self.pipeline
        if image is None:
            start = self._start(latents, generators, size, on_latents, chosen)
            options["latents"] = self._packed(start)
        else:
            pipeline = self._image_pipeline(mask is not None)
            options |= {"image": (image + 1) / 2, "strength": strength, "generator": generators}
            if mask is not None:
                options["mask_image"] = mask
            if "height" not in _parameters(pipeline):
                options = {k: v for k, v in options.items() if k not in ("height", "width")}
        for name in ("guidance_scale", "latents"):  # which go by another name, or another way
            if name not in _parameters(pipeline):
                options.pop(name, None)
        options |= self._draw_options(chosen)
        if (negative := options.get("negative_prompt")) is not None:
            options["negative_prompt"] = [negative] * len(prompts)
        seen = self._watched(on_latents, size, on_step, chosen.num_inference_steps or 0)
        with torch.no_grad(), self._present(self.vae), self._following(prompts), quiet(), seen:
            drawn = self._run(pipeline, options)
        return self._checked(self.decode_latents(self._drawn(drawn, size)))

    def _checked(self, drawn: Pixels) -> Pixels:
        """Pictures as the model's safety checker, where it has one, leaves them."""
        return drawn

    def _blackened(self, drawn: Pixels, checked: Tensor, flags: Sequence[bool]) -> Pixels:
        """What a safety checker, whose pictures are in [0, 1], leaves of the drawn ones."""
        found = [i for i, bad in enumerate(flags) if bad]
        if not found:
            return drawn
        warnings.warn(
            f"The model's safety checker blackened picture(s) {found}; --no-safety-checker "
            "turns it off.",
            stacklevel=3,
        )
        return checked.to(drawn) * 2 - 1

    def _run(self, pipeline: Any, options: dict[str, Any]) -> Tensor:
        """What the pipeline draws."""
        return pipeline(**options, return_dict=False)[0]

    def _draw_options(self, sampling: SamplingConfig) -> dict[str, Any]:  # noqa: ARG002
        """What the family's pipeline is told besides."""
        return {}

    def _noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Latents:
        """Noise that depends on a picture's own seed only, and not on the compute type."""
        shape = (self.latent_channels, *size)
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return noise.to(self.device, self.dtype)

    def _packed(self, latents: Latents) -> Tensor:
        return latents

    def _unpacked(self, latents: Tensor, size: tuple[int, int]) -> Latents:  # noqa: ARG002
        return latents

    def _in_step(self, latents: Latents) -> Tensor:
        """Latents as the scheduler's steps know them."""
        return self._packed(latents)

    def _start(
        self,
        latents: Latents | None,
        generators: Sequence[torch.Generator],
        size: tuple[int, int],
        on_latents: OnLatents | None,
        sampling: SamplingConfig,
    ) -> Latents:
        """What the first step of a drawing from noise denoises."""
        if latents is None:
            latents = self._noise(generators, size)
        latents = latents.to(self.device, self.dtype)
        if on_latents is None:
            return latents
        first = self.noise.first(self.pipeline.scheduler, sampling.num_inference_steps or 1)
        return on_latents(latents, first).to(latents)

    @contextmanager
    def _watched(
        self,
        on_latents: OnLatents | None,
        size: tuple[int, int],
        on_step: Callable[[int, int], None] | None,
        total: int,
    ) -> Iterator[None]:
        """Be told of each of the scheduler's steps; not every pipeline can call back."""
        scheduler = self.pipeline.scheduler
        patched = vars(scheduler).get("step")  # by someone else
        stock, done = scheduler.step, itertools.count(1)

        @functools.wraps(stock)  # pipelines look at what it takes
        def step(prediction: Tensor, t: Any, latents: Tensor, *rest: Any, **options: Any) -> Any:
            found = stock(prediction, t, latents, *rest, **options)
            if on_latents is not None:
                before, time = self._unpacked(found[0], size), self.noise.after(scheduler, t)
                after = self._in_step(on_latents(before, time).to(before))
                if isinstance(found, tuple):
                    # the finished ones are the expected picture, too, which some pipelines take
                    found = (after, *(found[1:] if time is not None else [after] * len(found[1:])))
                else:
                    found.prev_sample = after
            if on_step is not None:
                on_step(next(done), total)
            return found

        scheduler.step = step
        try:
            yield
        finally:
            del scheduler.step
            if patched is not None:
                scheduler.step = patched

    def _drawn(self, latents: Tensor, size: tuple[int, int]) -> Latents:
        """Scaled latents of what the pipeline returns."""
        return self._unpacked(latents, size)

    def _image_pipeline(self, inpaints: bool) -> Any:
        """The family's pipeline that starts from a picture, over the same parts."""
        auto = AutoPipelineForInpainting if inpaints else AutoPipelineForImage2Image
        try:
            with quiet():
                pipeline: Any = auto.from_pipe(self.pipeline)
        except ValueError as error:
            way = "does not paint inside masks, got a mask"
            if not inpaints:
                way = "draws from noise only, got a picture to start from"
            raise ModelError(
                f"The family {self.family} {way}; diffusers has no such pipeline for it."
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _parameters(pipeline: Any) -> set[str]:
    code = type(pipeline).__call__
    code = getattr(code, "__wrapped__", code).__code__
    return set(code.co_varnames[: code.co_argcount])
