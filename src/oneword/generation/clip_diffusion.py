"""CLIP-guided diffusion: each step is moved towards where CLIP sees more of a text.

The paper's comparison (Gal et al. 2022, arXiv:2208.01618, figure 5) uses the notebooks of Crowson
2021 on the unconditional pixel model of Dhariwal and Nichol 2021, arXiv:2105.05233, who also
describe the sampler. On latent models we do the same with the decoded prediction of their own
denoiser, which gets an empty prompt; this variant is ours, and is marked as such.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Latents, PerSample, Pixels
from oneword._version import __version__
from oneword.concepts.concept import Concept
from oneword.config.baselines import INIT_SKIP, ClipDiffusionConfig
from oneword.errors import ModelError
from oneword.generation.generate import Drawing, OnPicture, check_words
from oneword.generation.guide import Cutouts, Guide, Pictures, spherical_distance
from oneword.models.contract import Backbone
from oneword.models.noise import Diffusion
from oneword.training.draws import generator


LEAST_CUT = 0.75
"""Shortest cutout of pictures that are no larger than the guide's input, as a share of their side;
ours, because otherwise every cutout would be the whole picture."""
MOST_BLUR, BLUR = 24.0, 0.25
"""From the older script: px, and px for each unit of noise over signal."""
SHIFT = 8 / 224
"""From the older script: the largest shift of a picture, as a share of its side."""
_CUTS, _TARGETS = 130, 131  # streams of draws: cutouts at each step, and of image prompts


@runtime_checkable
class Denoiser(Protocol):
    """A diffusion model, with its latents and noise schedule."""

    name: str
    resolution: int
    """Side of its pictures, in px."""
    channels: int
    factor: int
    """Width of a cell of the latents, in px."""
    is_of_pixels: bool
    """Whether latents are the pictures themselves."""
    alphas_cumprod: Tensor
    """Share of the signal's variance at each timestep, (timesteps,), float64."""

    @property
    def device(self) -> torch.device: ...

    def predict(self, x_t: Latents, time: int) -> tuple[Latents, Latents | None]:
        """The noise in latents, and where the variance is between its bounds; differentiable.

        The latter is for the logarithm, in [-1, 1]; ``None`` if the model has not learned a
        variance.
        """
        ...

    def encode(self, pixels: Pixels) -> Latents:
        """Latents of pictures in [-1, 1]."""
        ...

    def decode(self, latents: Latents) -> Pixels:
        """Pictures of latents, not clamped; differentiable."""
        ...


class LatentDenoiser:
    """A text-to-image model's own denoiser with the empty caption."""

    is_of_pixels = False

    def __init__(self, backbone: Backbone) -> None:
        """Take a model.

        Args:
            backbone: A model of a family with a diffusion noise schedule.

        Raises:
            ModelError: the model is of another family.
        """
        noise: Any = getattr(backbone, "noise", None)
        if not isinstance(noise, Diffusion):
            raise ModelError(
                f"Cannot use CLIP-guided diffusion with {backbone.name} of the family "
                f"{backbone.family} because it predicts neither epsilon nor v; use another model, "
                "or pass a pixel model with --checkpoint."
            )
        self.backbone, self.name, self.resolution = backbone, backbone.name, backbone.resolution
        self.channels, self.factor = backbone.autoencoder.channels, backbone.autoencoder.factor
        self.is_of_pixels = backbone.autoencoder.vae is None
        self.alphas_cumprod = noise.alphas_cumprod.cpu().double()
        self._predicts_v = noise.prediction_type != "epsilon"
        with torch.no_grad():
            self._nothing = backbone.encode_prompt([""])

    @property
    def device(self) -> torch.device:
        """The device that it runs on."""
        return self.backbone.device

    def predict(self, x_t: Latents, time: int) -> tuple[Latents, None]:
        """The noise in latents; from a prediction of v: ``sqrt(abar) v + sqrt(1 - abar) x_t``.

        Source:
            Salimans and Ho 2022, arXiv:2202.00512, appendix D.
        """
        times = torch.full((len(x_t),), time, device=x_t.device)
        found = self.backbone.predict(x_t, times, self._nothing[[0] * len(x_t)])
        if not self._predicts_v:
            return found, None
        power = float(self.alphas_cumprod[time])
        return math.sqrt(power) * found + math.sqrt(1 - power) * x_t, None

    def encode(self, pixels: Pixels) -> Latents:
        """Mean of the autoencoder's posterior."""
        return self.backbone.encode_image(pixels).mean

    def decode(self, latents: Latents) -> Pixels:
        """Pictures of latents, not clamped; differentiable."""
        return self.backbone.autoencoder.decode(latents)


# --- steps


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a shortened schedule."""

    time: int
    """The timestep that the model gets."""
    abar: float
    """Share of the signal's variance at the step's start."""
    before: float
    """The same at the step's end; 1 at the picture."""
    least_log_variance: float
    """Logarithm of the posterior's variance; at the last step, that of the step before."""

    @property
    def beta(self) -> float:
        """Variance that this step of the noising process adds."""
        return 1 - self.abar / self.before

    @property
    def variance(self) -> float:
        """Variance of the posterior; 0 at the last step."""
        return self.beta * (1 - self.before) / (1 - self.abar)


def steps_of(alphas_cumprod: Float[Tensor, " times"], num_steps: int) -> list[Step]:
    """Evenly spaced steps through a schedule; the one that leads to the picture comes first.

    Args:
        alphas_cumprod: The model's, float64.
        num_steps: From 1 to the number of timesteps.

    Source:
        Nichol and Dhariwal 2021, arXiv:2102.09672, section 4, and their code for the rounding.
    """
    stride = (len(alphas_cumprod) - 1) / (num_steps - 1) if num_steps > 1 else 1.0
    times = [round(stride * place) for place in range(num_steps)]
    powers = [1.0, *(float(alphas_cumprod[time]) for time in times)]
    plain = [
        Step(t, abar, before, 0.0)
        for t, before, abar in zip(times, powers, powers[1:], strict=False)
    ]
    variances = [step.variance for step in plain]
    # the first is 0, and without a second one it is not used
    variances[0] = variances[1] if num_steps > 1 else plain[0].beta
    return [
        Step(step.time, step.abar, step.before, math.log(variance))
        for step, variance in zip(plain, variances, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Posterior:
    """A model's prediction for the latents at a step's end."""

    x0: Latents
    """The predicted picture."""
    mean: Latents
    variance: Latents
    log_variance: Latents


def posterior(
    x_t: Latents, step: Step, noise: Latents, share: Latents | None, *, clamps: bool = False
) -> Posterior:
    """Mean and variance of a step, from a model's prediction.

    Args:
        x_t: Noised latents.
        step: The step.
        noise: The noise that the model sees in them.
        share: Position of the logarithm of the variance between its bounds, in [-1, 1]; ``None``:
            at the lower one.
        clamps: Whether the predicted picture is clamped to [-1, 1].

    Source:
        Ho et al. 2020, arXiv:2006.11239, equation 7; Nichol and Dhariwal 2021, arXiv:2102.09672,
        equation 15.
    """
    x0 = picture_in(x_t, step, noise)
    x0 = x0.clamp(-1, 1) if clamps else x0
    of_picture = math.sqrt(step.before) * step.beta / (1 - step.abar)
    of_latents = math.sqrt(1 - step.beta) * (1 - step.before) / (1 - step.abar)
    mean = of_picture * x0 + of_latents * x_t
    if share is None:
        variance = torch.full_like(mean, step.variance)
        return Posterior(x0, mean, variance, torch.full_like(mean, step.least_log_variance))
    part = (share + 1) / 2
    log_variance = part * math.log(step.beta) + (1 - part) * step.least_log_variance
    return Posterior(x0, mean, log_variance.exp(), log_variance)


def picture_in(x_t: Latents, step: Step, noise: Latents) -> Latents:
    """The picture in noised latents, given the noise."""
    return x_t / math.sqrt(step.abar) - math.sqrt(1 / step.abar - 1) * noise


def noise_in(x_t: Latents, step: Step, x0: Latents) -> Latents:
    """The noise in noised latents, given the picture."""
    return (x_t / math.sqrt(step.abar) - x0) / math.sqrt(1 / step.abar - 1)


def moved_mean(found: Posterior, gradient: Latents) -> Latents:
    """A step's mean under a condition: ``mean + variance * gradient``.

    Args:
        found: The model's own posterior.
        gradient: Gradient of the logarithm of the condition's probability.

    Source:
        Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 1.
    """
    return found.mean + found.variance * gradient


def moved_noise(noise: Latents, step: Step, gradient: Latents) -> Latents:
    """The predicted noise under a condition: ``noise - sqrt(1 - abar) * gradient``.

    Source:
        Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 2.
    """
    return noise - math.sqrt(1 - step.abar) * gradient


Loss = Callable[[Latents, Latents, Step], PerSample]
"""``loss(x_t, x0, step)``: loss of each picture, differentiable in ``x_t``, ``x0`` or both."""


def walk(
    denoiser: Denoiser,
    x_t: Latents,
    steps: Sequence[Step],
    noises: Sequence[torch.Generator],
    *,
    loss: Loss | None = None,
    sampler: str = "ddpm",
    of_noised: bool = False,
    clamps: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> Latents:
    """Latents of pictures, sampled from those at the last of the steps.

    Args:
        denoiser: The model.
        x_t: Noised latents.
        steps: In the order of ``steps_of``; the last is taken first.
        noises: A generator for each picture, for the noise that "ddpm" adds.
        loss: What each step reduces; ``None``: the model draws without guidance.
        sampler: "ddpm" moves the mean and adds noise, "ddim" moves the noise and adds none.
        of_noised: Whether the loss depends on ``x_t`` itself, not on the model's prediction.
        clamps: Whether the predicted pictures are clamped to [-1, 1].
        on_step: ``on_step(done, total)``.
    """
    for done, step in enumerate(reversed(steps), start=1):
        with torch.set_grad_enabled(loss is not None and not of_noised):
            x = x_t.detach().requires_grad_(loss is not None)
            found = posterior(x, step, *denoiser.predict(x, step.time), clamps=clamps)
        gradient = None
        if loss is not None:
            with torch.enable_grad():
                total = loss(x, found.x0, step).sum()
            gradient = -torch.autograd.grad(total, x)[0]
        with torch.no_grad():
            x_t = _next(x, found, step, gradient, noises, sampler).detach()
        if on_step is not None:
            on_step(done, len(steps))
    return x_t


def _next(
    x_t: Latents,
    found: Posterior,
    step: Step,
    gradient: Latents | None,
    noises: Sequence[torch.Generator],
    sampler: str,
) -> Latents:
    if sampler == "ddim":
        noise = noise_in(x_t, step, found.x0)
        if gradient is not None:
            noise = moved_noise(noise, step, gradient)
        x0 = picture_in(x_t, step, noise)
        return math.sqrt(step.before) * x0 + math.sqrt(1 - step.before) * noise
    mean = found.mean if gradient is None else moved_mean(found, gradient)
    if step.before == 1:
        return mean
    return mean + (found.log_variance / 2).exp() * drawn(noises, x_t)


def drawn(noises: Sequence[torch.Generator], like: Latents) -> Latents:
    """Standard normal noise, from each picture's own generator."""
    shape = like.shape[1:]
    return torch.stack([torch.randn(shape, generator=g) for g in noises]).to(like)


# --- what is made smaller


def total_variation(pictures: Pixels) -> PerSample:
    """Mean of the squared differences to the right and lower neighbour, summed over both.

    The last row and column have no difference.
    """
    padded = F.pad(pictures, (0, 1, 0, 1), "replicate")
    right = padded[..., :-1, 1:] - padded[..., :-1, :-1]
    down = padded[..., 1:, :-1] - padded[..., :-1, :-1]
    return (right.square() + down.square()).mean(dim=(1, 2, 3))


def beyond_range(pictures: Pixels) -> PerSample:
    """Mean square of what is outside [-1, 1]."""
    return (pictures - pictures.clamp(-1, 1)).square().mean(dim=(1, 2, 3))


def mixed(x_t: Latents, x0: Latents, step: Step) -> Latents:
    """What CLIP sees of pixels: the prediction at high noise, the latents at low noise."""
    share = math.sqrt(1 - step.abar)
    return x0 * share + x_t * (1 - share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """Distance from targets in CLIP's space, with terms that keep pictures smooth and in range.

    Source:
        Crowson 2021, the published notebooks.
    """

    denoiser: Denoiser
    guide: Guide
    targets: Float[Tensor, "batch targets dim"]
    """Features that each picture is drawn towards."""
    weights: Float[Tensor, " targets"]
    """Weights of the targets; their sum is 1."""
    cutouts: Cutouts
    draws: Sequence[torch.Generator]
    """A generator for each picture, for its cutouts or shifts."""
    clip_scale: float
    tv_scale: float
    range_scale: float

    def of_prediction(self, x_t: Latents, x0: Latents, step: Step) -> PerSample:
        """Loss of each picture for the model's prediction; a ``Loss``."""
        if self.denoiser.is_of_pixels:
            pictures, whole = mixed(x_t, x0, step), x0
        else:
            pictures = whole = self.denoiser.decode(x0)
        seen = [
            self.cutouts((picture[None] + 1) / 2, draws)
            for picture, draws in zip(pictures, self.draws, strict=True)
        ]
        return (
            self.clip_scale * self._distances(torch.cat(seen))
            + self.tv_scale * total_variation(pictures)
            + self.range_scale * beyond_range(whole)
        )

    def of_noised(self, x_t: Latents, _x0: Latents, step: Step, /) -> PerSample:
        """Loss of each picture for the blurred pixels before the step; a ``Loss``."""
        deviation = min(MOST_BLUR, BLUR * math.sqrt((1 - step.abar) / step.abar))
        moved = shifted((blurred(x_t, deviation) + 1) / 2, self.draws)
        size = (self.guide.size, self.guide.size)
        seen = F.interpolate(moved, size, mode="bilinear", align_corners=False)
        return self.clip_scale * self._distances(seen)

    def _distances(self, seen: Pictures) -> PerSample:
        """Weighted distance of each picture, whose cutouts come one after the other."""
        features = self.guide.image_features(seen).unflatten(0, (len(self.targets), -1))
        apart = spherical_distance(features[:, :, None], self.targets[:, None])
        return (apart * self.weights).sum(dim=2).mean(dim=1)


def blurred(pictures: Pixels, deviation: float) -> Pixels:
    """Pictures blurred by a Gaussian, in px; the outside is mirrored."""
    reach = max(math.ceil((6 * deviation + 1) / 2) - 1, 1)
    reach = min(reach, min(pictures.shape[-2:]) - 1)
    at = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = (-(at**2) / (2 * deviation**2)).exp()
    kernel = (kernel / kernel.sum()).expand(pictures.shape[1], 1, -1)
    padded = F.pad(pictures, (reach,) * 4, "reflect")
    down = F.conv2d(padded, kernel[..., None], groups=pictures.shape[1])
    return F.conv2d(down, kernel[:, :, None], groups=pictures.shape[1])


def shifted(pictures: Pixels, draws: Sequence[torch.Generator]) -> Pixels:
    """Pictures shifted slightly, each by its own draw; their border is extended."""
    most = 2 * SHIFT  # in coordinates in which a side has length 2
    by = torch.stack([(2 * torch.rand(2, generator=g) - 1) * most for g in draws]).to(pictures)
    unmoved = torch.eye(2, dtype=by.dtype, device=by.device).expand(len(by), -1, -1)
    grid = F.affine_grid(
        torch.cat([unmoved, by[..., None]], dim=2), list(pictures.shape), align_corners=False
    )
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


# --- drawing


def draw(
    denoiser: Denoiser,
    guide: Guide,
    config: ClipDiffusionConfig,
    *,
    concepts: Sequence[Concept] = (),
    init: Float[Tensor, "1 3 height width"] | None = None,
    image_prompts: Pixels | None = None,
    on_picture: OnPicture | None = None,
) -> Drawing:
    """Draw every prompt with every seed.

    Args:
        denoiser: The model.
        guide: The CLIP that guides.
        config: The settings.
        concepts: Words with rows for the guide, which prompts may use.
        init: Picture to start from, of the model's size, in [-1, 1].
        image_prompts: Pictures to draw towards, of the model's size, in [-1, 1].
        on_picture: Called with the progress of drawing.

    Raises:
        PromptError: no prompt uses one of the concepts.
        PlaceholderError: a word is not one of the guide.
        ModelError: the settings are for a pixel model, and this is not one.
    """
    plain = config.preset_name == "plain"
    if plain and not denoiser.is_of_pixels:
        raise ModelError(
            f"Cannot use the preset plain with {denoiser.name} because it guides by noised pixels "
            "and this is a latent model; use latent."
        )
    check_words(guide, config.prompts, concepts)
    with torch.no_grad():
        texts = guide.text_features(config.prompts, concepts)
    side, shortest = denoiser.resolution, None
    if guide.size >= side:
        shortest = round(LEAST_CUT * side)
    cutouts = Cutouts(
        number=config.settled("num_cutouts"),
        size=guide.size,
        power=config.settled("cut_power"),
        min_size=shortest,
    )
    images, weights = _image_targets(guide, cutouts, image_prompts, config.seed)
    every = steps_of(denoiser.alphas_cumprod, config.settled("num_inference_steps"))
    skip = 0 if init is None else INIT_SKIP if config.skip is None else config.skip
    first = len(denoiser.alphas_cumprod) * (1000 - skip) / 1000
    steps = [step for step in every if step.time < first] or every[:1]
    scales = {n: config.settled(n) for n in ("clip_scale", "tv_scale", "range_scale")}
    pairs = [(i, seed) for i in range(len(config.prompts)) for seed in config.drawn_seeds]
    batches = []
    for start in range(0, len(pairs), config.batch_size):
        batch = pairs[start : start + config.batch_size]
        noises = [torch.Generator().manual_seed(seed) for _, seed in batch]
        guidance = Guidance(
            denoiser=denoiser,
            guide=guide,
            targets=torch.stack([torch.cat([texts[i : i + 1], images]) for i, _ in batch]),
            weights=weights,
            cutouts=cutouts,
            draws=[generator(seed, _CUTS) for _, seed in batch],
            **scales,
        )
        loss = guidance.of_noised if plain else guidance.of_prediction

        def report(step: int, steps: int, first: int = start, size: int = len(batch)) -> None:
            if on_picture is not None:
                on_picture(first + size * step / steps, len(pairs))

        latents = walk(
            denoiser,
            _start(denoiser, init, steps[-1], noises),
            steps,
            noises,
            loss=loss if any(scales.values()) else None,
            sampler=config.settled("sampler"),
            of_noised=plain,
            clamps=plain,
            on_step=report,
        )
        with torch.no_grad():
            batches.append(denoiser.decode(latents).clamp(-1, 1).float().cpu())
    return Drawing(
        pixels=torch.cat(batches),
        prompts=tuple(config.prompts[i] for i, _ in pairs),
        seeds=tuple(seed for _, seed in pairs),
        settings=_settings(
            denoiser, guide, config, concepts, cutouts, skip=skip, num_steps=len(steps)
        ),
    )


def _image_targets(
    guide: Guide, cutouts: Cutouts, pictures: Pixels | None, seed: int
) -> tuple[Tensor, Tensor]:
    """Features of the target pictures' cutouts, (targets, dim), and weights of text and them."""
    if pictures is None:
        empty = torch.empty(0, guide.dim, device=guide.device)
        return empty, torch.ones(1, device=guide.device)
    draws = generator(seed, _TARGETS)
    with torch.no_grad():
        seen = cutouts((pictures.to(guide.device) + 1) / 2, draws)
        features = guide.image_features(seen)
    weights = torch.full((1 + len(features),), 1 / cutouts.number, device=guide.device)
    weights[0] = 1.0
    return features, weights / weights.sum()


def _start(
    denoiser: Denoiser,
    init: Float[Tensor, "1 3 height width"] | None,
    step: Step,
    noises: Sequence[torch.Generator],
) -> Latents:
    """Latents before the first step: noise, or a picture with the step's noise."""
    side = denoiser.resolution // denoiser.factor
    noise = drawn(noises, torch.empty(len(noises), denoiser.channels, side, side))
    noise = noise.to(denoiser.device)
    if init is None:
        return noise
    with torch.no_grad():
        x0 = denoiser.encode(init.to(denoiser.device))
    return math.sqrt(step.abar) * x0 + math.sqrt(1 - step.abar) * noise


def _settings(
    denoiser: Denoiser,
    guide: Guide,
    config: ClipDiffusionConfig,
    concepts: Sequence[Concept],
    cutouts: Cutouts,
    *,
    skip: int,
    num_steps: int,
) -> dict[str, str]:
    """Settings of a set of pictures, as text for their files."""
    backbone = getattr(denoiser, "backbone", None)
    where = "diffusion" if denoiser.is_of_pixels else "latent diffusion, ours"
    sides = cutouts.sides(denoiser.resolution, denoiser.resolution)
    names = ("num_inference_steps", "sampler", "clip_scale", "tv_scale", "range_scale")
    return {
        "model": denoiser.name,
        "family": "guided-diffusion" if backbone is None else backbone.family,
        "method": f"clip-guided {where}",
        "concepts": json.dumps({c.placeholder_token: c.sha256() for c in concepts}),
        "preset": config.preset_name,
        "guide": guide.name,
        **{name: str(config.settled(name)) for name in names},
        "num_cutouts": str(cutouts.number),
        "cut_power": str(cutouts.power),
        "cutout_sides_px": f"{sides[0]} to {sides[1]}",
        "skip": str(skip),
        "steps_taken": str(num_steps),
        "image_prompts": str(len(config.image_prompts)),
        "guidance_scale": "1",  # the denoiser gets an empty prompt
        "solver": f"CLIP-guided {config.settled('sampler').upper()}",
        "negative_prompt": "",
        "emphasis": "none",
        "software": f"oneword {__version__}",
    }
