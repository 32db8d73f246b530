"""The samples and sentences of a training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from oneword._typing import Latents, PerSample, Timesteps
from oneword.training.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Information for the loss about the samples of a job."""

    job: Job
    pictures: Int[Tensor, " batch"]
    """Index of each sample's picture in ``job.pictures``."""
    flips: Bool[Tensor, " batch"]
    """Whether the picture was mirrored; a mask must be mirrored with it."""
    t: Timesteps
    x0: Latents
    noise: Latents
    x_t: Latents
    crops: Int[Tensor, "batch 4"]
    """As ``Job.crops``, for each sample's picture."""
    mask: Float[Tensor, "batch 1 h w"] | None = None
    """As ``Job.masks``, averaged over each latent cell, and mirrored if the picture is."""
    huber_c: PerSample | None = None
    """Error above which the loss is linear; ``None``: the squared error is used."""
    weight: PerSample | None = None
    """Weight of each sample in the loss; ``None``: all count the same."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Noised samples of one job, ready for the denoiser."""

    sentences: list[str]
    """One per sample, with "{}" for the word and "{name}" for an extra one."""
    target: Latents
    samples: Samples
    against: list[str] | None = None
    """Sentences that the prediction is guided away from, one per sample."""
    guidance: float = 1.0
    """Scale of that guidance."""

    def part(self, keep: range) -> Batch:
        """The samples of a range; the batch itself if these are all."""
        return self if len(keep) == len(self.sentences) else self.only(keep)

    def only(self, keep: Sequence[int]) -> Batch:
        """The samples at these indices."""
        s, keep = self.samples, list(keep)
        return Batch(
            [self.sentences[i] for i in keep],
            target=self.target[keep],
            samples=Samples(
                job=s.job,
                pictures=s.pictures[keep],
                flips=s.flips[keep],
                t=s.t[keep],
                x0=s.x0[keep],
                noise=s.noise[keep],
                x_t=s.x_t[keep],
                crops=s.crops[keep],
                mask=None if s.mask is None else s.mask[keep],
                huber_c=None if s.huber_c is None else s.huber_c[keep],
                weight=None if s.weight is None else s.weight[keep],
            ),
            against=None if self.against is None else [self.against[i] for i in keep],
            guidance=self.guidance,
        )


def spread(batches: Sequence[Batch], count: int) -> list[Batch]:
    """``count`` samples of some batches, spread so that they differ in picture and time."""
    places = [(b, i) for b, batch in enumerate(batches) for i in range(len(batch.sentences))]
    size = len(places)
    count = min(count, size)
    chosen = [places[i * (size // count + 1) % size] for i in range(count)]
    kept = [[i for at, i in chosen if at == b] for b in range(len(batches))]
    return [batch.only(own) for batch, own in zip(batches, kept, strict=True) if own]


@dataclass(frozen=True, slots=True)
class Choices:
    """The sentences of one picture."""

    sentences: tuple[str, ...]
    """Each with "{}" for the word, and with the same probability."""
    dual: tuple[str, ...] = ()
    """Sentences that also contain an extra word, as "{name}"; never in the fixed batch."""
    share: float = 0.0
    """Probability of ``dual``, in [0, 1]."""

    def __iter__(self) -> Iterator[str]:
        yield from self.sentences
        yield from self.dual

    def at(self, u: float, *, alone: bool = False) -> str:
        """The sentence of a draw from U[0, 1); with ``alone``, one without extra words."""
        if not self.dual or alone:
            return self.sentences[int(u * len(self.sentences))]
        if u < self.share:
            return self.dual[min(int(u / self.share * len(self.dual)), len(self.dual) - 1)]
        rest = (u - self.share) / (1 - self.share)
        return self.sentences[min(int(rest * len(self.sentences)), len(self.sentences) - 1)]
