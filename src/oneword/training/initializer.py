"""The existing word that a new one starts from, ranked by its loss."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import torch

from oneword.models.contract import Backbone
from oneword.prompts import COMMON_WORDS, fill, of_family
from oneword.training.job import JobError
from oneword.training.learner import Learner
from oneword.training.parts import LossPart, squared_error
from oneword.training.prediction import predictions, scoring_chunk


_NUM_NOUNS = 12  # initialisers that are tried where none is given


_NOUN_SAMPLES = 4  # samples of the fixed batch that rank them


def choose_initializer(
    backbone: Backbone, learner: Learner, loss: LossPart = squared_error
) -> None:
    """Take the common noun that explains the pictures best, by the denoising loss.

    Raises:
        JobError: the model's vocabulary holds none of the common nouns.
    """
    vocabularies = backbone.vocabularies.values()
    kind = learner.config.learnable_property
    common = of_family(COMMON_WORDS, backbone.family, kind)
    nouns = [n for n in common if all(v.is_word(n) for v in vocabularies)][:_NUM_NOUNS]
    if not nouns:
        raise JobError(
            f"No initializer could be chosen for job {learner.job.name!r}, since the model's "
            "vocabulary holds none of the common nouns; pass --initializer-token."
        )
    batch = learner.fixed.spread(_NOUN_SAMPLES)
    with torch.no_grad():
        found = predictions(
            backbone,
            [(partial(fill, placeholder_token=noun), batch) for noun in nouns],
            scoring_chunk([learner]),
        )
        losses = torch.stack([loss(p, batch.target, batch.samples).mean() for p in found]).tolist()
    finite = [one if math.isfinite(one) else math.inf for one in losses]
    noun = nouns[finite.index(min(finite))]
    learner.ranking = dict(zip(nouns, losses, strict=True))
    learner.config = dataclasses.replace(learner.config, initializer_token=noun)
    learner.say(
        f"No initializer token was given: {noun!r} was chosen, with the lowest loss on the "
        f"pictures ({min(finite):.4g}) of {len(nouns)} common nouns."
    )
