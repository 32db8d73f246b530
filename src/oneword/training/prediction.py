"""The denoiser's predictions for samples of several words at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from oneword._devices import sent
from oneword._typing import Latents, PerSample
from oneword.models.contract import Backbone
from oneword.training.samples import Batch, Samples


SCORING_CHUNK = 32  # most samples per forward pass without gradients


def scoring_chunk(samples: int) -> int:
    """Samples per forward pass without gradients, so that memory is no more than a training step's.

    Args:
        samples: Samples of one training step.
    """
    return min(SCORING_CHUNK, 4 * samples)


def passes(shares: Sequence[range], most: int | None) -> list[list[tuple[int, range]]]:
    """Divide the samples of a step into passes through the model.

    Args:
        shares: Samples of each word.
        most: Most samples of a pass; ``None``: all in one pass. A word with more samples is divided
            and alone in its passes; other words share a pass if they fit.

    Returns:
        For each pass, the words by index, with their samples.
    """
    whole = [(place, own) for place, own in enumerate(shares) if own]
    if most is None:
        return [whole] if whole else []
    found: list[list[tuple[int, range]]] = []
    room = 0
    for place, own in whole:
        if len(own) > most:
            found += [[(place, own[i : i + most])] for i in range(0, len(own), most)]
            room = 0
        elif len(own) <= room:
            found[-1].append((place, own))
            room -= len(own)
        else:
            found.append([(place, own)])
            room = most - len(own)
    return found


def by_size(batches: Iterable[tuple[int, Batch]]) -> list[list[tuple[int, Batch]]]:
    """Batches with their words' indices, grouped by the size of their latents."""
    found: dict[tuple[int, ...], list[tuple[int, Batch]]] = {}
    for place, batch in batches:
        found.setdefault(tuple(batch.target.shape[1:]), []).append((place, batch))
    return list(found.values())


def sample_losses(
    backbone: Backbone,
    words: Sequence[tuple[Callable[[str], str], Sequence[Batch]]],
    loss: Callable[[Latents, Latents, Samples], PerSample],
    chunk: int | None = None,
) -> list[PerSample]:
    """The loss of every sample of each word, in the order of its batches.

    Args:
        backbone: The model.
        words: For each word, the function that inserts it into sentences, and its batches.
        loss: Per-sample loss.
        chunk: As for :func:`predictions`.
    """
    found: list[list[PerSample]] = [[] for _ in words]
    for group in by_size((place, b) for place, (_, own) in enumerate(words) for b in own):
        asked = [(words[place][0], batch) for place, batch in group]
        for (place, batch), made in zip(group, predictions(backbone, asked, chunk), strict=True):
            found[place].append(loss(made, batch.target, batch.samples))
    return [torch.cat(each) for each in found]


def predictions(
    backbone: Backbone,
    words: Sequence[tuple[Callable[[str], str], Batch]],
    chunk: int | None = None,
) -> tuple[Latents, ...]:
    """Predictions for each batch with its word inserted; equal prompts are encoded once.

    Args:
        backbone: The model.
        words: For each word, the function that inserts it into sentences, and its batch; all
            latents have the same size.
        chunk: Samples of a pass; ``None``: all in one pass.
    """
    asked = [(fill, batch.sentences, batch.samples) for fill, batch in words]
    guided = [place for place, (_, batch) in enumerate(words) if batch.against is not None]
    asked += [
        (fill, batch.against, batch.samples) for fill, batch in words if batch.against is not None
    ]
    prompts = [fill(s) for fill, sentences, _ in asked for s in sentences]
    x_t = torch.cat([samples.x_t for *_, samples in asked])
    crops = torch.cat([samples.crops for *_, samples in asked])
    t = torch.cat([samples.t for *_, samples in asked])
    timed = any(v.splice and v.splice.timed for v in backbone.vocabularies.values())
    parts = []
    for first in range(0, len(prompts), chunk or len(prompts)):
        part = slice(first, first + (chunk or len(prompts)))
        if timed:
            conditioning = backbone.encode_prompt(prompts[part], t[part])
        else:
            places = {p: place for place, p in enumerate(dict.fromkeys(prompts[part]))}
            index = sent(torch.tensor([places[p] for p in prompts[part]]), x_t.device)
            conditioning = backbone.encode_prompt(list(places))[index]
        parts.append(backbone.predict(x_t[part], t[part], conditioning, crops[part]))
    found = list(torch.cat(parts).split([len(sentences) for _, sentences, _ in asked]))
    for place, away in zip(guided, found[len(words) :], strict=True):
        found[place] = away + words[place][1].guidance * (found[place] - away)
    return tuple(found[: len(words)])
