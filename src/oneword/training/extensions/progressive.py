"""A word that grows: one vector at first, and more during training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.extensions.cross_init import start
from oneword.training.job import Job, encoder_of
from oneword.training.parts import Form, Words


STAGE = 2000
"""Steps until the next vector joins, in a run that is long enough."""
SHARE = 0.8
"""Part of a run by which the last vector has joined."""


def stage_steps(config: ResolvedConfig) -> float:
    """Optimiser steps until the next vector joins, for a word of several vectors."""
    return min(STAGE, SHARE * config.max_train_steps / max(1, config.num_vectors - 1))


def num_active(config: ResolvedConfig, step: int) -> int:
    """Number of vectors of the word after this many optimiser steps.

    With 5,000 steps and three vectors, the second joins after 2,000 steps and the third after
    4,000; shorter runs are scaled.

    Args:
        config: A resolved config.
        step: Optimiser steps done, 0 or more.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.2. The authors' code counts calls of the text
        encoder, previews among them, and forgets the count when it resumes.
    """
    more = config.num_vectors - 1
    if not more:
        return 1
    return 1 + min(more, int(step / stage_steps(config) + 1e-9))


def rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """Each vector as a tensor of its own, so that the optimiser ignores those that wait."""
    return {
        f"{encoder}/{place}": row[None]
        for encoder, many in start(backbone, job, config).items()
        for place, row in enumerate(many)
    }


def words(tensors: Mapping[str, Tensor], config: ResolvedConfig, step: int) -> Words:
    """The vectors that have joined form the word; the others rest."""
    active = num_active(config, step)
    encoders = dict.fromkeys(encoder_of(name) for name in tensors)
    return Words(
        rows={
            encoder: torch.cat([tensors[f"{encoder}/{place}"] for place in range(active)])
            for encoder in encoders
        },
        resting=frozenset(n for n in tensors if int(n.partition("/")[2]) >= active),
    )


FORM = Form(rows=rows, words=words)
