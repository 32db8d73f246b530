"""How well a denoiser in training takes new words: rows are fitted to things that it never saw.

Everything is frozen but the rows. Pictures that are drawn with them are read by their nearest
neighbour in latent space among drawings of all things; no other model takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Words(Protocol):
    """Turns texts into ids; the word "*7" is the learned row 7, behind those of the table."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids (texts, tokens)."""
        ...

    def first_row(self, noun: str) -> int:
        """The row of the table from which a thing's rows start, by the noun that fits it best."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a reading is taken."""

    seed: int = 0
    """Of the fits and of the drawn pictures."""
    fit_steps: int = 60
    """Steps of a fit."""
    fit_pictures: int = 4
    """Pictures of each thing that a step of a fit sees."""
    fit_rate: float = 0.01
    """Rate at its beginning; it falls to zero."""
    num_nouns: int = 8
    """Known nouns from which the best one is chosen for each thing, the nearest to look at."""
    guidance_scale: float = 3.0
    """Of the drawn pictures."""
    num_inference_steps: int = 15
    """Of the drawn pictures."""


def sampled(moments: Tensor, generator: torch.Generator) -> Tensor:
    """Latents from their moments."""
    mean, std = moments.float().chunk(2, dim=1)
    return mean + std * torch.randn(mean.shape, generator=generator)


def stratified(num: int, generator: torch.Generator) -> Tensor:
    """Times of a batch, evenly spread."""
    u = (torch.arange(num) + torch.rand(num, generator=generator)) / num
    return (u[torch.randperm(num, generator=generator)] * 1000).long()


class Model:
    """A denoiser of v with its text encoder and words, as a reading uses it.

    Args:
        words: Its words.
        denoise: From noisy latents, times and the text's states to v.
        text: Its text encoder.
        scheduler: diffusers' DDIM scheduler, with which pictures are drawn.
        amp: Context in which is computed.
    """

    def __init__(
        self,
        words: Words,
        denoise: Callable[[Tensor, Tensor, Tensor], Tensor],
        text: nn.Module,
        scheduler: Any,
        amp: Any = None,
    ) -> None:
        self.words, self.denoise, self.text, self.scheduler = words, denoise, text, scheduler
        self.amp: Any = amp or nullcontext()

    @property
    def table(self) -> Tensor:
        """Rows of the known words."""
        embeddings: Any = self.text
        return embeddings.get_input_embeddings().weight

    def read(self, texts: Sequence[str], rows: Tensor | None = None) -> Tensor:
        """Hidden states (texts, tokens, width)."""
        ids = self.words(texts)
        with self.amp:
            if rows is None:
                return self.text(ids).last_hidden_state
            key = next(n for n, p in self.text.named_parameters() if p is self.table)
            table = {key: torch.cat([self.table.detach(), rows])}
            return torch.func.functional_call(self.text, table, (ids,)).last_hidden_state

    def errors(self, x0: Tensor, noise: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """Squared errors of the predicted velocity, (pictures,)."""
        alphas = self.scheduler.alphas_cumprod[t][:, None, None, None]
        a, s = alphas.sqrt(), (1 - alphas).sqrt()
        x_t = (a * x0 + s * noise).contiguous(memory_format=torch.channels_last)
        with self.amp:
            predicted = self.denoise(x_t, t, states).float()
        return (predicted - (a * noise - s * x0)).square().flatten(1).mean(1)

    @torch.inference_mode()
    def draw(
        self,
        texts: Sequence[str],
        settings: Settings,
        shape: tuple[int, int, int],
        rows: Tensor | None = None,
    ) -> Tensor:
        """Latents of one picture a text, (texts, *shape)."""
        generator = torch.Generator().manual_seed(settings.seed)
        found = []
        for start in range(0, len(texts), 40):
            some = texts[start : start + 40]
            states = torch.cat([self.read(some, rows), self.read([""]).expand(len(some), -1, -1)])
            x = torch.randn((len(some), *shape), generator=generator)
            self.scheduler.set_timesteps(settings.num_inference_steps)
            for t in self.scheduler.timesteps:
                both = torch.cat([x, x]).contiguous(memory_format=torch.channels_last)
                with self.amp:
                    predicted = self.denoise(both, t.expand(len(both)), states).float()
                told, free = predicted.chunk(2)
                guided = free + settings.guidance_scale * (told - free)
                x = self.scheduler.step(guided, t, x).prev_sample
            found.append(x)
        return torch.cat(found)


@dataclass(frozen=True, slots=True)
class Examples:
    """Pictures of each held-out thing, by their latents' moments and what is written of them."""

    moments: Tensor
    """(things, pictures, 2 * channels, cells, cells)."""
    texts: list[list[str]]
    """Of each picture; "{}" stands for the thing."""


class Near:
    """Drawings of all things, among which the nearest one is sought.

    Args:
        means: Of their latents, (drawings, channels, cells, cells).
        slugs: Which thing each shows.
    """

    def __init__(self, means: Tensor, slugs: Sequence[str]) -> None:
        self.means, self.slugs = means.flatten(1), list(slugs)

    def top1(self, drawn: Tensor, slugs: Sequence[str]) -> float:
        """Share of pictures whose nearest drawing is their thing."""
        nearest = torch.cdist(drawn.flatten(1), self.means).argmin(1)
        hits = [self.slugs[i] == slug for i, slug in zip(nearest.tolist(), slugs, strict=True)]
        return sum(hits) / len(hits)

    def nearest(self, moments: Tensor, own: set[str], num: int) -> list[str]:
        """The things of a set that are nearest to some pictures, the nearest first.

        Args:
            moments: Of the pictures' latents.
            own: Slugs.
            num: How many things.
        """
        columns = [i for i, slug in enumerate(self.slugs) if slug in own]
        means = moments.float().chunk(2, dim=1)[0].flatten(1)
        far = torch.cdist(means, self.means[columns]).min(0).values
        return list(dict.fromkeys(self.slugs[columns[i]] for i in far.argsort().tolist()))[:num]


@torch.inference_mode()
def losses(
    model: Model, shown: Examples, words: Sequence[str | None], rows: Tensor | None = None
) -> Tensor:
    """Mean loss of each thing's pictures (things,), at the same times and noise every time.

    Args:
        model: Frozen.
        shown: Pictures.
        words: What stands for each thing; None: no caption at all.
        rows: Learned rows.
    """
    num = shown.moments.shape[1]
    generator = torch.Generator().manual_seed(0)
    # the same for every thing, so that words are compared on equal terms
    x0 = shown.moments.float().chunk(2, dim=2)[0].flatten(0, 1)
    noise = torch.randn(x0[:num].shape, generator=generator)
    t = stratified(num, generator)
    texts = [
        "" if word is None else text.format(word)
        for own, word in zip(shown.texts, words, strict=True)
        for text in own
    ]
    found = []
    for start in range(0, len(texts), 8 * num):
        part = slice(start, start + 8 * num)
        times = len(x0[part]) // num
        states = model.read(texts[part], rows)
        found.append(model.errors(x0[part], noise.repeat(times, 1, 1, 1), t.repeat(times), states))
    return torch.cat(found).view(-1, num).mean(1)


def best_nouns(
    model: Model, shown: Examples, near: Near, nouns: dict[str, str], settings: Settings
) -> list[str]:
    """The known noun of each held-out thing with the least loss on its pictures.

    Tried are those whose drawings are nearest in latent space.

    Args:
        model: Frozen.
        shown: Pictures of the things.
        near: Drawings.
        nouns: What known things are called, by slug.
        settings: ``num_nouns`` are tried.
    """
    num = settings.num_nouns
    tried = [
        nouns[slug] for moments in shown.moments for slug in near.nearest(moments, set(nouns), num)
    ]
    every = Examples(
        shown.moments.repeat_interleave(num, dim=0),
        [own for own in shown.texts for _ in range(num)],
    )
    best = losses(model, every, tried).view(-1, num).argmin(1).tolist()
    return [tried[num * i + k] for i, k in enumerate(best)]


def fit(
    model: Model, shown: Examples, num_rows: int, nouns: Sequence[str], settings: Settings
) -> tuple[Tensor, list[str]]:
    """Fit rows to every held-out thing at once, from the best noun's own.

    Args:
        model: Frozen.
        shown: Pictures to fit to.
        num_rows: Of each thing.
        nouns: The best noun of each.
        settings: Steps, pictures and rate.

    Returns:
        The rows (things * num_rows, width), and what stands for each thing in a text.
    """
    ids = torch.tensor([model.words.first_row(noun) for noun in nouns])
    rows = model.table.detach()[ids].repeat_interleave(num_rows, dim=0).clone()
    generator = torch.Generator().manual_seed(settings.seed)
    rows += 0.1 * model.table.detach().std() * torch.randn(rows.shape, generator=generator)
    rows.requires_grad_()
    words = [" ".join(f"*{num_rows * i + k}" for k in range(num_rows)) for i in range(len(nouns))]
    optimizer = torch.optim.Adam([rows], betas=(0.9, 0.99))
    num = shown.moments.shape[1]
    for step in range(settings.fit_steps):
        optimizer.param_groups[0]["lr"] = settings.fit_rate * (1 - step / settings.fit_steps)
        picks = torch.randint(num, (len(nouns), settings.fit_pictures), generator=generator)
        moments = torch.cat([own[p] for own, p in zip(shown.moments, picks, strict=True)])
        texts = [
            shown.texts[i][k].format(words[i]) for i, own in enumerate(picks.tolist()) for k in own
        ]
        x0 = sampled(moments, generator)
        noise = torch.randn(x0.shape, generator=generator)
        errors = model.errors(x0, noise, stratified(len(x0), generator), model.read(texts, rows))
        optimizer.zero_grad()
        # every thing's rows see the mean over its own pictures
        (errors.sum() / settings.fit_pictures).backward()
        optimizer.step()
    return rows.detach(), words


def spread(model: Model, rows: Tensor) -> float:
    """Deviation of learned rows in units of the table's."""
    return (rows.std() / model.table.detach().std()).item()
