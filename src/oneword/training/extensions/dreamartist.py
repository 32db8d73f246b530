"""A word and its opposite: what pictures should show, and what they should avoid."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.draws import generator
from oneword.training.extensions.cross_init import start
from oneword.training.job import Job, encoder_of
from oneword.training.parts import Form, Words


NOISE = 0.07
"""Noise of the negative word's start, in standard deviations of the vocabulary's entries."""
_NAME = "negative"
_STREAM = 12  # of draws that are none of the loop's own


def rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """Both words start from the initialiser, the negative one with some noise."""
    found = start(backbone, job, config)
    away = start(
        backbone, job, dataclasses.replace(config, num_vectors=config.num_negative_vectors)
    )
    g = generator(config.seed, _STREAM)
    for encoder, many in away.items():
        noise = torch.randn(many.shape, generator=g).to(many.device)
        spread = backbone.vocabularies[encoder].std()
        found[f"{encoder}/{_NAME}"] = many + NOISE * spread * noise
    return found


def words(
    tensors: Mapping[str, Tensor],
    config: ResolvedConfig,  # noqa: ARG001  (the shape of the part)
    step: int,  # noqa: ARG001
) -> Words:
    """The word, and the negative word that belongs to the concept."""
    away = {encoder_of(n): tensor for n, tensor in tensors.items() if "/" in n}
    return Words(
        rows={n: tensor for n, tensor in tensors.items() if "/" not in n},
        kind="dreamartist",
        tensors={f"{_NAME}/{encoder}": tensor for encoder, tensor in away.items()},
        others={_NAME: away},
        negative=_NAME,
    )


def against(sentence: str, config: ResolvedConfig) -> str:  # noqa: ARG001  (the part's shape)
    """The same sentence with the negative word."""
    return sentence.replace("{}", f"{{{_NAME}}}")


FORM = Form(rows=rows, words=words, against=against)
"""Contrastive prompt tuning, with the loss of the guided prediction.

Source:
    Dong et al. 2022, arXiv:2211.11337, section 3.2; without its loss on decoded pictures.
"""
