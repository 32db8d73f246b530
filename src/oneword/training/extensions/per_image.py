"""An extra word for every picture, which can absorb what belongs to that picture alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.prompts import DUAL_TEMPLATES
from oneword.training.draws import generator
from oneword.training.extensions.cross_init import start
from oneword.training.job import Job, encoder_of
from oneword.training.parts import Form, Words, captions_or_templates
from oneword.training.samples import Choices


_STREAM = 10  # of draws that are none of the loop's own


def rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """The word's rows, and one for each picture, drawn like a row of the vocabulary.

    The authors' code starts the pictures' words with uniform numbers, some thirty times as long as
    a row of the table.
    """
    found = start(backbone, job, config)
    g = generator(config.seed, _STREAM)
    for encoder, vocabulary in backbone.vocabularies.items():
        table = vocabulary.weight.detach().float()
        noise = torch.randn(len(job.pictures), vocabulary.dim, generator=g)
        drawn = table.mean().cpu() + vocabulary.std() * noise
        found |= {f"{encoder}/{place}": row[None] for place, row in enumerate(drawn, 1)}
    return found


def words(
    tensors: Mapping[str, Tensor],
    config: ResolvedConfig,  # noqa: ARG001  (the shape of the part)
    step: int,  # noqa: ARG001
) -> Words:
    """The word itself is kept; the pictures' words are dropped after the job."""
    others: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place = name.partition("/")[2]
        if place:
            others.setdefault(place, {})[encoder_of(name)] = tensor
    return Words(rows={n: t for n, t in tensors.items() if "/" not in n}, others=others)


def prompts(job: Job, config: ResolvedConfig) -> list[Choices]:
    """Each picture's sentences and, with their probability, those that also have its own word.

    A picture's caption has the word at its end; a set of templates has a list of its own.
    """
    found: list[Choices] = []
    for place, sentences in enumerate(captions_or_templates(job, config), 1):
        dual = DUAL_TEMPLATES[config.prompt_templates]
        if job.captions is not None:
            dual = tuple(map(_with_own, sentences))
        own = tuple(sentence.replace("{own}", f"{{{place}}}") for sentence in dual)
        found.append(Choices(tuple(sentences), own, config.dual_prompt_probability))
    return found


def _with_own(caption: str) -> str:
    return f"{caption.removesuffix('.')} with {{own}}{'.' if caption.endswith('.') else ''}"


FORM = Form(rows=rows, words=words, prompts=prompts)
"""Per-image tokens.

Source:
    Gal et al. 2022, arXiv:2208.01618, section 5.2: "a photo of S* with S_i". The lists of dual
    sentences and their probability, 0.25, are those of the authors' code.
"""
