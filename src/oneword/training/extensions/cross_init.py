"""Start from the text encoder's output for the initialiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.job import Job
from oneword.training.parts import rows_of_initializer
from oneword.vocabulary.vocabulary import Vocabulary


WEIGHT = 1e-5
"""Weight in the loss of the distance to the initial rows."""


def start(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """Rows of the initialiser, or, with ``cross_initialization``, the encoder's output for it.

    Learned rows are far from the vocabulary and close to the text encoder's outputs, so training
    from there is short.

    Source:
        Pang et al. 2023, arXiv:2312.15905, section 3.2.
    """
    rows = rows_of_initializer(backbone, job, config)
    if not config.cross_initialization:
        return rows
    return {
        name: _output(backbone.vocabularies[name], config.initial_word, len(many))
        for name, many in rows.items()
    }


@torch.no_grad()
def _output(vocabulary: Vocabulary, text: str, num_vectors: int) -> Tensor:
    """Last hidden states at a text's own tokens, one for each vector."""
    bare = vocabulary.ids(text)
    ids = vocabulary.tokenizer(
        text, padding="max_length", max_length=vocabulary.max_length, truncation=True
    ).input_ids
    first = ids.index(bare[0])
    states = vocabulary.text_encoder(torch.tensor([ids], device=vocabulary.weight.device))[0][0]
    states = states[first : first + len(bare)].float()
    if num_vectors == 1:
        return states.mean(dim=0, keepdim=True)
    return states[[min(i, len(states) - 1) for i in range(num_vectors)]]


def distance(
    rows: Mapping[str, Tensor], initial: Mapping[str, Tensor], config: ResolvedConfig
) -> Tensor | None:
    """The mean distance of the vectors to their initial ones, times 1e-5.

    Source:
        Pang et al. 2023, arXiv:2312.15905, section 3.3.
    """
    if not config.cross_initialization:
        return None
    moved = [(row - initial[name]).flatten(0, -2) for name, row in rows.items()]
    lengths = torch.cat([torch.linalg.vector_norm(m, dim=-1) for m in moved])
    return WEIGHT * lengths.mean()
