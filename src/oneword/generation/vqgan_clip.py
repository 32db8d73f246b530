"""VQGAN-CLIP: a picture's codes are optimised until a CLIP finds the picture close to its targets.

Crowson et al. 2022, arXiv:2204.08583; the formulas are those of the notebook "VQGAN+CLIP
(z+quantize method)" (Crowson 2021) and of nerdyrodent/VQGAN-CLIP at 07a2489.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Latents, Pixels
from oneword._version import __version__
from oneword.concepts.concept import Concept
from oneword.config.vqgan_clip import VQGANCLIPConfig, VQGANConstants
from oneword.errors import require
from oneword.generation.augmentations import Augmented
from oneword.generation.generate import Drawing, check_words
from oneword.generation.guide import Cutouts, Features, Guide, Pictures, spherical_distance
from oneword.models.quantised import Quantised
from oneword.prompts import PromptError, named
from oneword.vocabulary.word import Word


OnStep = Callable[[int, int], None]
"""``on_step(done, total)``: steps taken so far."""
METHOD = "VQGAN-CLIP"
_SMALLEST = 0.75  # side of a cutout, if the guide's input is no smaller than the picture: ours
_NUMBERED = re.compile(r"(.+):\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|-?inf)\s*", re.DOTALL)
"""A text that ends in a colon and a number."""


class _StraightThrough(torch.autograd.Function):
    """One tensor in the forward pass; the gradient goes to another of the same shape."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, to: Tensor) -> Tensor:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:  # noqa: ARG004
        return None, gradients[0]


def straight_through(value: Tensor, to: Tensor) -> Tensor:
    """``value``, bit for bit, with its gradient passed to ``to``.

    Source:
        Bengio et al. 2013, arXiv:1308.3432.
    """
    found: Any = _StraightThrough.apply(value, to)
    return found


class _Clamp(torch.autograd.Function):
    """A clamp that passes a gradient where a step against it leads back inside."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.range = (low, high)
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        outside = value - value.clamp(*ctx.range)
        return gradients[0] * (gradients[0] * outside >= 0), None, None


def clamp_with_grad(value: Tensor, low: float, high: float) -> Tensor:
    """``value`` in [low, high]; outside, a gradient is kept where descent leads back inside."""
    found: Any = _Clamp.apply(value, low, high)
    return found


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text to draw towards, or away from if its weight is below 0."""

    text: str
    weight: float = 1.0
    stop: float = -math.inf
    """Distances below this count as this."""


def phrases(prompt: str) -> list[Phrase]:
    """The phrases of a prompt: ``text``, ``text:weight`` or ``text:weight:stop``, with "|" between.

    Raises:
        PromptError: a phrase is empty, or its weight is 0 or infinite.
    """
    return [_phrase(part.strip(), prompt) for part in prompt.split("|")]


def _phrase(part: str, prompt: str) -> Phrase:
    text, numbers = part, []
    while len(numbers) < 2 and (found := _NUMBERED.fullmatch(text)):
        text, numbers = found[1].strip(), [float(found[2]), *numbers]
    if not text:
        raise PromptError(f"Each text of a prompt must be non-empty, got {prompt!r}.")
    phrase = Phrase(text, *numbers)
    if not math.isfinite(phrase.weight) or not phrase.weight:
        raise PromptError(
            f"The weight of a text must be finite and not 0, got {phrase.weight} in {prompt!r}."
        )
    return phrase


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A target in the guide's space."""

    features: Features
    """Features of a text, or of a picture's cutouts."""
    weight: float = 1.0
    """Below 0: the picture is drawn away from it."""
    stop: float = -math.inf
    """Distances below this count as this."""

    def loss(self, seen: Features) -> Float[Tensor, ""]:
        """``|w| mean(max(sign(w) d, stop))`` over the cutouts seen and the target's features.

        d is the spherical distance. As published, the gradient is that of d below ``stop``, too.

        Args:
            seen: Features of the picture's cutouts.
        """
        apart = spherical_distance(seen[:, None], self.features[None])
        apart = math.copysign(1.0, self.weight) * apart
        return abs(self.weight) * straight_through(apart.clamp_min(self.stop), apart).mean()


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A picture, and the course of the guide's loss."""

    pixels: Pixels
    """One picture."""
    codes: Latents
    """Its codes, before they are replaced by the nearest rows."""
    losses: tuple[float, ...]
    """The loss before each step."""


def draw_all(
    vq: Quantised,
    guide: Guide,
    config: VQGANCLIPConfig,
    prompts: Sequence[str],
    *,
    concepts: Sequence[Concept] = (),
    pictures: Pixels | None = None,
    image: Pixels | None = None,
    on_step: OnStep | None = None,
) -> Drawing:
    """Draw every prompt with every seed of the settings.

    Args:
        vq: The model that decodes codes.
        guide: The CLIP that guides.
        config: The settings.
        prompts: The settings' prompts, with words and lists inserted.
        concepts: Words with rows for the guide's text tower; each prompt may name some of them.
        pictures: The settings' pictures, at the drawn size.
        image: The settings' start picture, at the drawn size.
        on_step: Called with the steps done, for all pictures together.

    Raises:
        ConfigError: the pictures' side is not a multiple of a code's.
        PromptError: a prompt cannot be read, or a word is in none of them.
        PlaceholderError: a word is not one of the guide.
    """
    constants = config.constants(vq.resolution)
    check_words(guide, prompts, concepts)
    for prompt in prompts:
        phrases(prompt)
    pairs = [(prompt, seed) for prompt in prompts for seed in config.drawn_seeds]
    total, found = len(pairs) * constants.num_steps, []
    for number, (prompt, seed) in enumerate(pairs):

        def report(done: int, steps: int, before: int = number) -> None:
            if on_step is not None:
                on_step(before * steps + done, total)

        drawn = draw(
            vq,
            guide,
            prompt,
            seed,
            constants,
            concepts=[c for c in concepts if named(prompt, [c.placeholder_token])],
            pictures=pictures,
            image_share=config.image_share,
            image=image,
            init_weight=config.init_weight,
            on_step=report,
        )
        found.append(drawn)
    return Drawing(
        pixels=torch.cat([drawn.pixels for drawn in found]),
        prompts=tuple(prompt for prompt, _ in pairs),
        seeds=tuple(seed for _, seed in pairs),
        settings=_settings(vq, guide, config, constants, concepts, pictures),
        facts=tuple(
            {"guide_loss": f"{drawn.losses[0]:.4f} to {drawn.losses[-1]:.4f}"} for drawn in found
        ),
    )


def _settings(
    vq: Quantised,
    guide: Guide,
    config: VQGANCLIPConfig,
    constants: VQGANConstants,
    concepts: Sequence[Concept],
    pictures: Pixels | None,
) -> dict[str, str]:
    cutouts, side = cutouts_of(constants, guide), constants.resolution
    sides = "augmented"
    if isinstance(cutouts, Cutouts):
        sides = "{} to {} px".format(*cutouts.sides(side, side))
    targets = {} if pictures is None else {
        "target_pictures": str(len(pictures)), "image_share": str(config.image_share)
    }  # fmt: skip
    return {
        "method": METHOD,
        "model": vq.name,
        "family": "vqgan-clip",
        **vq.facts,
        "guide": guide.name,
        "preset": config.preset,
        "concepts": json.dumps({c.placeholder_token: c.sha256() for c in concepts}),
        **targets,
        "num_inference_steps": str(constants.num_steps),
        "learning_rate": str(constants.learning_rate),
        "weight_decay": str(constants.weight_decay),
        "num_cutouts": str(constants.num_cutouts),
        "cutouts": sides,
        "start": "a picture" if config.init_image is not None else constants.start,
        "init_weight": str(config.init_weight),
        # other tools expect this for every picture; there is no such guidance here
        "guidance_scale": "1",
        "negative_prompt": "",
        "sampler": METHOD,
        "solver": METHOD,
        "software": f"oneword {__version__}",
    }


def draw(
    vq: Quantised,
    guide: Guide,
    prompt: str,
    seed: int,
    constants: VQGANConstants,
    *,
    concepts: Sequence[Word] = (),
    pictures: Pixels | None = None,
    image_share: float = 0.5,
    image: Pixels | None = None,
    init_weight: float = 0.0,
    on_step: OnStep | None = None,
) -> Drawn:
    """Draw one picture, which depends only on its own arguments.

    Args:
        vq: The model that decodes codes.
        guide: The CLIP that guides.
        prompt: Texts, as :func:`phrases` reads them; may contain the concepts' placeholders.
        seed: Seed of the first codes and of the cutouts.
        constants: The settings.
        concepts: Words with rows for the guide's text tower.
        pictures: Any number of further targets, at the drawn size.
        image_share: Share of the total weight that the pictures get together, in (0, 1); the texts
            get the rest.
        image: Picture to start from, at the drawn size; ``None``: random codes.
        init_weight: Weight of ``mean((z - z0)^2) / 2``.
        on_step: Called with the progress.

    Raises:
        ConfigError: the picture's side is not a multiple of a code's.
        PromptError: the prompt cannot be read.
        PlaceholderError: a word is not one of the guide.
    """
    side, factor = constants.resolution, vq.factor
    require(
        side % factor == 0,
        f"resolution must be a multiple of {factor} px, the width of a code, got {side}.",
    )
    generator = torch.Generator().manual_seed(seed)
    cutouts = cutouts_of(constants, guide)
    targets = _targets(guide, prompt, concepts, pictures, image_share, cutouts, generator)
    z = _start(vq, constants, image, generator).requires_grad_()
    origin = z.detach().clone()
    low, high = (edge[:, None, None] for edge in vq.codebook.aminmax(dim=0))
    # without decay this is Adam
    optimiser = torch.optim.AdamW(
        [z], lr=constants.learning_rate, weight_decay=constants.weight_decay
    )
    losses = []
    for step in range(constants.num_steps):
        with torch.enable_grad():
            seen = guide.image_features(cutouts(shown(vq, z), generator))
            loss = torch.stack([target.loss(seen) for target in targets]).sum()
            losses.append(float(loss.detach()))
            if init_weight:
                loss = loss + init_weight * (z - origin).square().mean() / 2
            (z.grad,) = torch.autograd.grad(loss, z)
        optimiser.step()
        with torch.no_grad():
            z.copy_(z.maximum(low).minimum(high))
        if on_step is not None:
            on_step(step + 1, constants.num_steps)
    with torch.no_grad():
        return Drawn(shown(vq, z).cpu() * 2 - 1, z.detach().cpu(), tuple(losses))


def shown(vq: Quantised, z: Latents) -> Pictures:
    """The picture of codes: their nearest rows, decoded; the gradient passes through both steps.

    Args:
        vq: The model that decodes codes.
        z: Codes, which need not be rows.

    Returns:
        The picture, in [0, 1].
    """
    rows = straight_through(vq.nearest(z.detach()), z)
    return clamp_with_grad((vq.decode(rows) + 1) / 2, 0.0, 1.0)


def cutouts_of(constants: VQGANConstants, guide: Guide) -> Cutouts | Augmented:
    """The cutouts of a picture that the guide sees.

    If the guide's input has as many pixels as the picture, every published cutout would be the
    whole picture. In that case they are at least three quarters as wide, enlarged (ours).
    """
    number, size, side = constants.num_cutouts, guide.size, constants.resolution
    if constants.cutouts == "augmented":
        return Augmented(number=number, size=size)
    least = None if side > size else int(_SMALLEST * side)
    return Cutouts(number=number, size=size, min_size=least, resize="resample")


@torch.no_grad()
def _targets(
    guide: Guide,
    prompt: str,
    concepts: Sequence[Word],
    pictures: Pixels | None,
    image_share: float,
    cutouts: Cutouts | Augmented,
    generator: torch.Generator,
) -> list[Target]:
    said = phrases(prompt)
    share = 0.0 if pictures is None else image_share
    total = sum(abs(phrase.weight) for phrase in said)
    features = guide.text_features([phrase.text for phrase in said], concepts)
    found = [
        Target(own[None], (1 - share) * phrase.weight, phrase.stop)
        for phrase, own in zip(said, features, strict=True)
    ]
    if pictures is None:
        return found
    values = (pictures.to(guide.device) + 1) / 2
    return found + [
        Target(guide.image_features(cutouts(one[None], generator)), share * total / len(values))
        for one in values
    ]


@torch.no_grad()
def _start(
    vq: Quantised, constants: VQGANConstants, image: Pixels | None, generator: torch.Generator
) -> Latents:
    if image is not None:
        return vq.encode(image).to(vq.codebook)
    cells = constants.resolution // vq.factor
    rows, channels = vq.codebook.shape
    if constants.start == "uniform":
        return 2 * torch.rand(1, channels, cells, cells, generator=generator).to(vq.codebook)
    chosen = torch.randint(rows, (1, cells, cells), generator=generator)
    return vq.codebook[chosen.to(vq.codebook.device)].movedim(-1, 1).contiguous()
