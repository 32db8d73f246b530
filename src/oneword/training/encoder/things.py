"""Training data of an encoder: pictures of many things, and the sets drawn at each step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Latents, Pixels, Uniforms
from oneword.models.contract import Backbone, Moments
from oneword.prompts import TEMPLATES
from oneword.training.draws import EVALUATION_SPAN, balanced, generator
from oneword.training.encoder.files import EncoderError
from oneword.training.encoder.towers import Tower


_STREAM, _UNSEEN, _ORDER = 31, 32, 33  # for draws that differ from the loop's own
_TEMPLATES = {"object": TEMPLATES["release27"], "style": TEMPLATES["style19"]}
_UNSEEN_SHARE = 20  # one thing in this many is held out of the training
_FEWEST = 10  # number of things from which one can be held out


@dataclass(frozen=True, slots=True)
class Thing:
    """Pictures of one thing."""

    name: str
    kind: str
    """What they have in common: "object" or "style"."""
    pixels: Pixels
    """Two or more, at the model's resolution."""


@dataclass(frozen=True, slots=True)
class Things:
    """Pictures of many things in the form that encoder and denoiser take, on the CPU."""

    features: Tensor
    """(pictures, dim), float32; mirrored ones count as pictures."""
    moments: Moments
    """Posterior of each picture, in half precision."""
    places: tuple[Tensor, ...]
    """For each thing, the indices of its pictures: (views, pictures), with mirrored ones as the
    second view."""
    kinds: tuple[str, ...]
    """As ``Thing.kind``."""
    sha256: str
    """Hash of all pictures."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latents of one sample."""
        return tuple(self.moments.mean.shape[1:])

    def parted(self, seed: int) -> tuple[Tensor, Tensor]:
        """The things to train on, and those held out for scoring (none if there are few)."""
        order = torch.randperm(len(self.places), generator=generator(seed, _ORDER))
        spared = len(order) // _UNSEEN_SHARE or 1 if len(order) >= _FEWEST else 0
        return order[spared:], order[:spared]


def gathered(
    backbone: Backbone,
    tower: Tower,
    things: Iterable[Thing],
    *,
    random_flip: bool,
    on_thing: Callable[[int], None] | None = None,
) -> Things:
    """Encode the pictures of all things, once.

    Args:
        backbone: The model.
        tower: Turns pictures into features.
        things: Two or more things.
        random_flip: Also use mirror images.
        on_thing: Called with the number of things done.

    Raises:
        EncoderError: there are fewer than two things, or one has fewer than two pictures.
    """
    digest = hashlib.sha256()
    features, means, stds, places, kinds = [], [], [], [], []
    count = 0
    for number, thing in enumerate(things):
        pixels = thing.pixels
        if len(pixels) < 2:
            raise EncoderError(
                f"Cannot train on {thing.name} with {len(pixels)} pictures because a thing needs "
                "two or more: one is denoised, the others are encoded; add some, or remove it."
            )
        digest.update(pixels.contiguous().numpy().tobytes())
        views = torch.cat([pixels, pixels.flip(-1)] if random_flip else [pixels])
        features.append(tower(views))
        moments = backbone.encode_image(views)
        means.append(moments.mean.half().cpu())
        stds.append(moments.std.half().cpu())
        places.append(torch.arange(count, count + len(views)).view(-1, len(pixels)))
        kinds.append(thing.kind)
        count += len(views)
        if on_thing is not None:
            on_thing(number + 1)
    if len(places) < 2:
        raise EncoderError(f"An encoder must learn from two or more things, got {len(places)}.")
    return Things(
        torch.cat(features),
        Moments(torch.cat(means), torch.cat(stds)),
        tuple(places),
        tuple(kinds),
        digest.hexdigest(),
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """Things of a step: for each a set of pictures, and another picture to denoise."""

    shown: list[Tensor]
    """Indices of the pictures of each set."""
    targets: Tensor
    """Index of each one's denoised picture, which is not in its set in any view."""
    sentences: list[str]
    """A sentence for each, with "{}" for the word."""
    times: Uniforms
    """Diffusion time, before the family's own map."""
    posterior_noise: Latents
    noise: Latents
    offsets: Float[Tensor, "batch channels 1 1"]
    """Standard normal; what an offset adds to the noise."""

    def of(self, keep: range) -> Drawn:
        """Some of them."""
        part = slice(keep.start, keep.stop)
        return Drawn(
            self.shown[part],
            self.targets[part],
            self.sentences[part],
            self.times[part],
            self.posterior_noise[part],
            self.noise[part],
            self.offsets[part],
        )


def step_sets(things: Things, among: Tensor, seed: int, step: int, batch: int, most: int) -> Drawn:
    """The sets of a step, which depend only on its number; all things occur equally often.

    Args:
        things: All of them.
        among: Indices of the things to draw from.
        seed: Seed of the training.
        step: The step, from 0.
        batch: Number of sets.
        most: Most pictures of a set.
    """
    g = generator(seed, _STREAM, step)
    chosen = among[balanced(seed, step * batch, batch, len(among))]
    return _drawn(things, chosen, torch.rand(batch, generator=g), most, g)


def unseen_sets(things: Things, among: Tensor, seed: int, most: int) -> Drawn:
    """The fixed sets for scoring an encoder: each thing four times, at evenly spread times."""
    chosen = among.repeat(4)
    low, high = EVALUATION_SPAN
    times = low + (high - low) * (torch.arange(len(chosen)) + 0.5) / len(chosen)
    return _drawn(things, chosen, times, most, generator(seed, _UNSEEN))


def _drawn(things: Things, chosen: Tensor, times: Tensor, most: int, g: torch.Generator) -> Drawn:
    shown, targets, sentences = [], [], []
    for place in chosen.tolist():
        views, count = things.places[place].shape
        size, sentence = torch.rand(2, generator=g).tolist()
        order = torch.randperm(count, generator=g)
        view = torch.randint(views, (count,), generator=g)
        own = things.places[place][view, order]
        targets.append(own[0])
        shown.append(own[1 : 2 + int(size * min(most, count - 1))])
        choices: Sequence[str] = _TEMPLATES[things.kinds[place]]
        sentences.append(choices[int(sentence * len(choices))])
    shape = (len(chosen), *things.latent_shape)
    return Drawn(
        shown,
        torch.stack(targets),
        sentences,
        times,
        torch.randn(shape, generator=g),
        torch.randn(shape, generator=g),
        torch.randn(*shape[:2], 1, 1, generator=g),
    )
