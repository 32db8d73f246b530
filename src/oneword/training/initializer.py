"""The existing word that a new one starts from, chosen by its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.prompts import COMMON_WORDS, fill, of_family
from oneword.training.batches import Batches
from oneword.training.job import JobError
from oneword.training.parts import LossPart, squared_error
from oneword.training.prediction import sample_losses, scoring_chunk
from oneword.training.record import Record
from oneword.training.samples import Batch, spread


_NUM_NOUNS = 12  # initialisers that are tried if none is given


_NOUN_SAMPLES = 4  # samples of the fixed batch that rank them


_AT_ONCE = 64  # words whose samples are in memory at the same time


def nouns_for(backbone: Backbone, name: str, config: ResolvedConfig) -> list[str]:
    """Common nouns to try if a job names no initialiser, in order.

    Raises:
        JobError: the model's vocabulary has none of them.
    """
    vocabularies = backbone.vocabularies.values()
    common = of_family(COMMON_WORDS, backbone.family, config.learnable_property)
    nouns = [n for n in common if all(v.is_word(n) for v in vocabularies)][:_NUM_NOUNS]
    if not nouns:
        raise JobError(
            f"Cannot choose an initializer for job {name!r} because the model's vocabulary has "
            "none of the common nouns; pass --initializer-token."
        )
    return nouns


def word_losses(
    batches: Batches,
    words: Sequence[str],
    scored: Sequence[Batch],
    loss: LossPart = squared_error,
    samples: int | None = None,
) -> dict[str, float]:
    """The mean loss on a job's pictures with each existing word instead of the new one.

    Args:
        batches: The job's batches.
        words: Words of the model's vocabulary.
        scored: The samples, such as the fixed batch.
        loss: Per-sample loss.
        samples: Samples that a training step takes at once; ``None``: by the job's settings.

    Source:
        Gal et al. 2022, arXiv:2208.01618, equation 2, for a word that is not learned.
    """
    backbone = batches.backbone
    own = backbone.micro_batch_size or batches.config.train_batch_size
    chunk = scoring_chunk(own if samples is None else samples)
    losses: list[float] = []
    for first in range(0, len(words), _AT_ONCE):
        asked = [(partial(fill, placeholder_token=w), scored) for w in words[first:][:_AT_ONCE]]
        with torch.no_grad():
            each = [own.mean() for own in sample_losses(backbone, asked, loss, chunk)]
        losses += torch.stack(each).tolist()
    return dict(zip(words, losses, strict=True))


def noun_losses(
    batches: Batches,
    loss: LossPart = squared_error,
    samples: int | None = None,
    *,
    also: Sequence[str] = (),
) -> dict[str, float]:
    """The loss of each common noun on a job's pictures, over a few samples of its fixed batch.

    Args:
        batches: The job's batches.
        loss: Per-sample loss.
        samples: As for :func:`word_losses`.
        also: Other existing words to score.

    Raises:
        JobError: the model's vocabulary has none of the common nouns.
    """
    nouns = nouns_for(batches.backbone, batches.job.name, batches.config)
    words = [*dict.fromkeys([*nouns, *also])]
    return word_losses(batches, words, spread(batches.fixed, _NOUN_SAMPLES), loss, samples)


def best_first(losses: Mapping[str, float]) -> dict[str, float]:
    """Words by their losses, the lowest first; those that are not finite come last."""
    return dict(sorted(losses.items(), key=lambda one: (not math.isfinite(one[1]), one[1])))


def choose_initializer(
    batches: Batches,
    record: Record,
    loss: LossPart = squared_error,
    samples: int | None = None,
) -> tuple[str, dict[str, float]]:
    """The common noun that explains the pictures best, by the denoising loss.

    Args:
        batches: The job's batches.
        record: Gets a message about the choice.
        loss: Per-sample loss.
        samples: As for :func:`word_losses`.

    Returns:
        The noun, and the loss of each candidate.

    Raises:
        JobError: the model's vocabulary has none of the common nouns.
    """
    found = noun_losses(batches, loss, samples)
    noun, least = next(iter(best_first(found).items()))
    record.say(
        f"No initializer token given: chose {noun!r}, which has the lowest loss on the pictures "
        f"({least:.4g}) of {len(found)} common nouns."
    )
    return noun, found
