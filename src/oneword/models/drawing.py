"""Drawing through a family's diffusers pipeline: from noise, over a picture, inside a mask."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from oneword._typing import Latents, Pixels
from oneword.catalog import FAMILIES
from oneword.config.drawing import SamplingConfig
from oneword.config.presets import PUBLISHED_DDIM, SAMPLERS
from oneword.errors import ModelError
from oneword.models import emphasis, samplers
from oneword.models.assembly import quiet, reschedule
from oneword.models.by_layer import following
from oneword.models.contract import OnLatents
from oneword.models.noise import Diffusion
from oneword.models.pipeline import FrozenPipeline
from oneword.models.samplers import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The arguments of ``draw``, with the family's settings where the caller gave none."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    sampling: SamplingConfig
    """No field is None."""
    image: Pixels | None
    mask: Tensor | None
    strength: float
    latents: Latents | None
    on_latents: OnLatents | None
    on_step: Callable[[int, int], None] | None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the pictures, px."""
        assert self.sampling.height
        assert self.sampling.width
        return self.sampling.height, self.sampling.width

    @property
    def num_steps(self) -> int:
        """Denoising steps from noise."""
        return self.sampling.num_inference_steps or 1

    @property
    def generators(self) -> list[torch.Generator]:
        """One per picture, from its own seed."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def part(self, places: list[int], on_step: Callable[[int, int], None]) -> Request:
        """Some of the pictures, without ``on_latents``."""
        return replace(
            self,
            prompts=[self.prompts[i] for i in places],
            seeds=[self.seeds[i] for i in places],
            image=None if self.image is None else self.image[places],
            mask=None if self.mask is None else self.mask[places],
            latents=None if self.latents is None else self.latents[places],
            on_step=on_step,
        )


class FamilyPipeline(FrozenPipeline):
    """Base class of every family: the whole contract, in public methods.

    A family overrides none of these. It supplies ``_read``, ``_denoise`` and those of the hooks
    below that its pipeline needs.
    """

    prompt_options: Mapping[str, Any] = MappingProxyType({})
    """Arguments of the pipeline about prompts, for encoding and for drawing."""
    draw_options: Mapping[str, Any] = MappingProxyType({})
    """Further arguments for drawing."""
    scales_latents: ClassVar[bool] = True
    """Whether the pipeline scales latents for solvers that need it, from the noise on."""
    weighs: ClassVar[bool] = False
    """Whether prompts may have weights: the pipeline encodes them with CLIP alone, and its
    ``encode_prompt`` returns the hidden states first."""
    alike: ClassVar[str] = ""
    """What prompts that can be drawn together have in common, in words; see ``_alike``."""

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

        Raises:
            ConfigError: there is no such sampler.
            ModelError: the family has no such pipeline, its solver is not the requested one or
                cannot do this number of steps, or ``on_latents`` would see prompts that are not
                drawn together, or latents of another solver than DDIM.
        """
        image, mask = self._picture_and_mask(image, mask)
        settings = self.sampling_for(sampling)
        self.check_prompts(prompts, settings)
        if not self.weighs:
            settings, prompts = self._plain(prompts, settings)
        request = Request(
            prompts=prompts,
            seeds=seeds,
            sampling=settings,
            image=image,
            mask=mask,
            strength=strength,
            latents=latents,
            on_latents=on_latents,
            on_step=on_step,
        )
        with self.solving(request.sampling):
            self._check_steps(request.num_steps)
            if (on_latents or latents is not None) and not self._has_our_latents:
                raise ModelError(
                    "Cannot edit inside a mask or invert with the sampler "
                    f"{request.sampling.sampler!r} because only DDIM can; leave it out."
                )
            return self._draw_alike(request)

    def check_prompts(self, prompts: Sequence[str], sampling: SamplingConfig) -> None:
        """Refuse weights in prompts that cannot be read, or that the family does not take.

        Raises:
            PromptError: a weight is out of range, or not written as one.
            ModelError: the family takes no weights.
        """
        kind = self.sampling_for(sampling).emphasis or "numbers"
        for text in (*prompts, sampling.negative_prompt):
            if emphasis.is_weighted(emphasis.parts_of(text, kind)) and not self.weighs:
                raise ModelError(
                    f"Cannot use weights in the prompt {text!r} with {self.name} of the family "
                    f"{self.family} because they need a model that only CLIP reads for (Stable "
                    "Diffusion 1, 2 and XL); leave them out, or pass --emphasis none if the "
                    "brackets are text."
                )

    def _plain(
        self, prompts: Sequence[str], sampling: SamplingConfig
    ) -> tuple[SamplingConfig, list[str]]:
        """Settings and prompts without escapes of brackets."""
        kind = sampling.emphasis or "numbers"
        negative = emphasis.plain(sampling.negative_prompt, kind)
        return (
            replace(sampling, negative_prompt=negative),
            [emphasis.plain(text, kind) for text in prompts],
        )

    def weighing(
        self, sampling: SamplingConfig, pipeline: Any = None
    ) -> AbstractContextManager[None]:
        """While it lasts, weights in prompts are read as the settings say."""
        kind = self.sampling_for(sampling).emphasis or "numbers"
        if not self.weighs or kind == "none":
            return nullcontext()
        others = [] if pipeline is None or pipeline is self.pipeline else [pipeline]
        return emphasis.weighing([self.pipeline, *others], self.vocabularies, kind)

    @property
    def _has_our_latents(self) -> bool:
        """Whether the current solver uses the same latents as ``noise``."""
        kind = type(self.pipeline.scheduler)
        return kind is self._own_solver or kind is DDIMScheduler

    def sampling_for(self, wishes: SamplingConfig | None) -> SamplingConfig:
        """Wishes, where they say nothing their sampler's settings, and then the family's.

        Raises:
            ConfigError: there is no such sampler.
            ModelError: it does not draw the family.
        """
        name = (wishes and wishes.sampler) or self.sampling.sampler or "model"
        if name not in SAMPLERS:
            sampler = samplers.find(name)
            self._solver(sampler)
            wishes = replace(wishes or SamplingConfig(), sampler=sampler.name)
            return self.sampling.overlaid(wishes)
        record = FAMILIES.get(self.family)
        if name != "model" and (record is None or not record.inverts):
            raise ModelError(
                f"sampler must be 'model' for the family {self.family}, which DDIM cannot draw, "
                f"got {name!r}; leave it out."
            )
        by_family = SAMPLERS[name]
        own = by_family.get(self.family, by_family["*"])
        return replace(self.sampling, **own, sampler=name).overlaid(wishes)

    @contextmanager
    def solving(self, sampling: SamplingConfig) -> Iterator[None]:
        """While it lasts, the pipeline's scheduler is the one of the settings' sampler."""
        stock, way = self.pipeline.scheduler, nullcontext()
        if sampling.sampler in ("paper", "release"):
            reschedule(self.pipeline, DDIMScheduler, **PUBLISHED_DDIM)
        elif sampling.sampler not in (None, "model"):
            self.pipeline.scheduler = self._solver(samplers.find(sampling.sampler))
            way = samplers.without_notices()
        try:
            with way:
                yield
        finally:
            self.pipeline.scheduler = stock

    def _solver(self, sampler: Sampler) -> Any:
        """The solver of a sampler for this model.

        Raises:
            ModelError: the sampler does not fit the model.
        """
        # about settings that only the model's own solver has
        with quiet(), samplers.without_notices():
            return samplers.fitting(
                sampler,
                self.pipeline.scheduler,
                self.noise,
                own=self._own_solver,
                scales=self.scales_latents,
                model=f"the family {self.family}",
            )

    def _check_steps(self, num_steps: int) -> None:
        """Refuse a number of steps for which the solver has no timesteps."""
        if not isinstance(self.noise, Diffusion):
            return
        scheduler = self.pipeline.scheduler
        count = scheduler.config.num_train_timesteps
        try:
            scheduler.set_timesteps(num_steps)
            last = float(scheduler.timesteps.max())
        except ValueError:
            last = math.inf
        if last >= count or num_steps > count:
            most = count - scheduler.config.get("steps_offset", 0)
            raise ModelError(
                f"num_inference_steps must be at most {most} on {self.name}, which has {count} "
                f"timesteps, got {num_steps}."
            )

    def _draw_alike(self, request: Request) -> Pixels:
        """Draw prompts, in groups that may be drawn together."""
        prompts, on_latents, on_step = request.prompts, request.on_latents, request.on_step
        groups = self._alike(prompts)
        if len(groups) == 1:
            return self._draw(request)
        # prompts that the pipeline would draw differently next to others: kind by kind
        if on_latents is not None:
            raise ModelError(
                f"The family {self.family} must get prompts {self.alike} to edit inside a mask or "
                f"invert, got {len(groups)} kinds; pass them one by one."
            )
        done, total = itertools.count(1), len(groups) * request.num_steps

        def count(*_: int) -> None:
            if on_step is not None:
                on_step(next(done), total)

        found: dict[int, Tensor] = {}
        for places in groups:
            found |= dict(zip(places, self._draw(request.part(places, count)), strict=True))
        return torch.stack([found[i] for i in range(len(prompts))])

    def check_sampling(self, sampling: SamplingConfig) -> None:
        """Refuse settings that the family's pipeline cannot draw with.

        Raises:
            ModelError: the family has no negative prompt, the sampler is DDIM, which does not fit
                it, or its solver cannot do this number of steps.
        """
        asked = self.sampling_for(sampling)
        self._draw_options(asked)
        with self.solving(asked):
            self._check_steps(asked.num_inference_steps or 1)

    def _draw(self, request: Request) -> Pixels:
        """Draw prompts that may be drawn together."""
        sampling, (height, width) = request.sampling, request.size_px
        size = height // self.autoencoder.factor, width // self.autoencoder.factor
        options: dict[str, Any] = {
            "prompt": list(request.prompts),
            "guidance_scale": sampling.guidance_scale,
            "num_inference_steps": sampling.num_inference_steps,
            "height": height,
            "width": width,
            "output_type": "latent",
        }
        if sampling.negative_prompt:
            options["negative_prompt"] = sampling.negative_prompt
        # from noise, or from a picture, for which diffusers has a separate pipeline
        pipeline = self.pipeline
        if request.image is None:
            options["latents"] = self._given(self._start(request, size))
        else:
            pipeline = self._image_pipeline(request.mask is not None)
            options |= {
                "image": (request.image + 1) / 2,
                "strength": request.strength,
                "generator": request.generators,
            }
            if request.mask is not None:
                options["mask_image"] = request.mask
            if "height" not in _parameters(pipeline):
                options = {k: v for k, v in options.items() if k not in ("height", "width")}
        # arguments that this pipeline names or passes differently
        for name in ("guidance_scale", "latents"):
            if name not in _parameters(pipeline):
                options.pop(name, None)
        options |= {**self.prompt_options, **self.draw_options, **self._draw_options(sampling)}
        if (negative := options.get("negative_prompt")) is not None:
            options["negative_prompt"] = [negative] * len(request.prompts)
        # the drawing itself
        seen = self._watched(request, size)
        with (
            torch.no_grad(),
            self._present(self.autoencoder.vae),
            self.weighing(sampling, pipeline),
            self._following(request.prompts),
            quiet(),
            seen,
        ):
            returned = self._run(pipeline, options)
        return self._checked(self._pictures(returned, size))

    # --- what is asked

    def _picture_and_mask(
        self, image: Pixels | None, mask: Tensor | None
    ) -> tuple[Pixels | None, Tensor | None]:
        """Picture and mask that the pipeline starts from."""
        return image, mask

    def _alike(self, prompts: Sequence[str]) -> list[list[int]]:
        """Indices of prompts that may be drawn together; by default all."""
        return [list(range(len(prompts)))]

    def _draw_options(self, _sampling: SamplingConfig, /) -> dict[str, Any]:
        """Further arguments of the pipeline that depend on the settings."""
        return {}

    # --- where it starts

    def _noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Latents:
        """Noise that depends only on a picture's own seed, not on the compute type."""
        shape = (self.autoencoder.channels, *size)
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return noise.to(self.device, self.dtype)

    def _start(self, request: Request, size: tuple[int, int]) -> Latents:
        """Input of the first step when drawing from noise."""
        latents = request.latents
        if latents is None:
            latents = self._noise(request.generators, size)
        latents = latents.to(self.device, self.dtype)
        if request.on_latents is None:
            return latents
        first = self.noise.first(self.pipeline.scheduler, request.num_steps)
        return request.on_latents(latents, first).to(latents)

    def _given(self, latents: Latents) -> Tensor:
        """Latents in the form of the pipeline's argument."""
        return self.autoencoder.pack(latents)

    def _image_pipeline(self, inpaints: bool, /) -> Any:
        """The family's pipeline that starts from a picture, with the same parts."""
        # here, because they load the pipelines of all families
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

        auto = AutoPipelineForInpainting if inpaints else AutoPipelineForImage2Image
        try:
            with quiet():
                pipeline: Any = auto.from_pipe(self.pipeline)
        except ValueError as error:
            way = "cannot draw inside masks"
            if not inpaints:
                way = "can draw only from noise, not from a picture"
            raise ModelError(
                f"The family {self.family} {way} because diffusers has no such pipeline for it; "
                "use another model."
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    # --- while it runs

    def _run(self, pipeline: Any, options: dict[str, Any]) -> Tensor:
        """Run the pipeline."""
        return pipeline(**options, return_dict=False)[0]

    @contextmanager
    def _following(self, prompts: Sequence[str]) -> Iterator[None]:
        """While the pipeline draws prompts, pass layer and timestep to their words."""
        splices = self._splices()
        if not splices:
            yield
            return

        def encode(t: Tensor) -> Tensor:
            times = t.reshape(-1)[:1].expand(len(prompts))
            return self._states(self.encode_prompt(prompts, times))

        timed = any(splice.timed for splice in splices)
        with following(self.denoiser, encode, timed=timed):
            yield

    @contextmanager
    def _watched(self, request: Request, size: tuple[int, int]) -> Iterator[None]:
        """Watch each of the scheduler's steps; not every pipeline has a callback."""
        scheduler = self.pipeline.scheduler
        patched = vars(scheduler).get("step")  # by someone else
        stock, done = scheduler.step, itertools.count(1)
        named = request.sampling.sampler not in SAMPLERS
        takes_noise = named and "generator" in inspect.signature(stock).parameters
        fresh = [torch.Generator().manual_seed(_another(seed)) for seed in request.seeds]

        @functools.wraps(stock)  # pipelines inspect its signature
        def step(prediction: Tensor, t: Any, latents: Tensor, *rest: Any, **options: Any) -> Any:
            if takes_noise:  # not every pipeline hands it on
                options["generator"] = fresh
            elif named:  # and some always do
                options.pop("generator", None)
            found = stock(prediction, t, latents, *rest, **options)
            if request.on_latents is not None:
                before, time = self._from_step(found[0], size), self.noise.after(scheduler, t)
                after = self._in_step(request.on_latents(before, time).to(before))
                if isinstance(found, tuple):
                    # the finished latents are also the expected picture, which some pipelines use
                    found = (after, *(found[1:] if time is not None else [after] * len(found[1:])))
                else:
                    found.prev_sample = after
            if request.on_step is not None:
                # some solvers split a step in two
                request.on_step(min(next(done), request.num_steps), request.num_steps)
            return found

        scheduler.step = step
        try:
            yield
        finally:
            del scheduler.step
            if patched is not None:
                scheduler.step = patched

    def _in_step(self, latents: Latents) -> Tensor:
        """Latents in the form of the scheduler's steps."""
        return self.autoencoder.pack(latents)

    def _from_step(self, latents: Tensor, size: tuple[int, int], /) -> Latents:
        """The way back."""
        return self.autoencoder.unpack(latents, size)

    # --- what comes back

    def _returned(self, latents: Tensor, size: tuple[int, int], /) -> Latents:
        """Scaled latents of what the pipeline returns."""
        return self.autoencoder.unpack(latents, size)

    def _pictures(self, returned: Tensor, size: tuple[int, int], /) -> Pixels:
        """Pictures of what the pipeline returns."""
        return self.decode_latents(self._returned(returned, size))

    def _checked(self, drawn: Pixels) -> Pixels:
        """Pictures after the model's safety checker, if it has one."""
        return drawn

    def _blackened(self, drawn: Pixels, checked: Tensor, flags: Sequence[bool]) -> Pixels:
        """The drawn pictures after a safety checker that takes pictures in [0, 1]."""
        found = [i for i, bad in enumerate(flags) if bad]
        if not found:
            return drawn
        warnings.warn(
            f"The model's safety checker blackened picture(s) {found}; to turn it off, pass "
            "--no-safety-checker.",
            stacklevel=3,
        )
        return checked.to(drawn) * 2 - 1


def _another(seed: int) -> int:
    """A seed for the noise of the steps, which must differ from that of the start."""
    return int.from_bytes(hashlib.sha256(f"steps {seed}".encode()).digest()[:8], "little")


def _parameters(pipeline: Any) -> set[str]:
    code = type(pipeline).__call__
    code = getattr(code, "__wrapped__", code).__code__
    return set(code.co_varnames[: code.co_argcount])
