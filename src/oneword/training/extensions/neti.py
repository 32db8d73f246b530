"""A small network that gives the row for each timestep and cross-attention layer.

It is the paper's network without textual bypass and nested dropout. It starts at the initialiser:
its last layer has zero weights and the initialiser as bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.draws import generator
from oneword.training.extensions.cross_init import start
from oneword.training.extensions.xti import num_layers
from oneword.training.job import Job, encoder_of
from oneword.training.parts import Form, Words
from oneword.vocabulary.kinds import FREQUENCIES, HIDDEN, SCALES, TIMES, code, rows_of_network


_STREAM = 11  # of draws that are none of the loop's own


def rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """Weights of a network for each text encoder, by the encoder's name and their own."""
    layers = num_layers(backbone, job)
    found: dict[str, Tensor] = {}
    for encoder, initial in start(backbone, job, config).items():
        g = generator(config.seed, _STREAM)
        frequencies = torch.randn(FREQUENCIES, 2, generator=g) * torch.tensor(SCALES)
        time = torch.arange(TIMES).repeat_interleave(layers) / TIMES
        anchors = code(frequencies, torch.arange(layers).repeat(TIMES), time)
        network = {
            "frequencies": frequencies,
            "anchors.weight": anchors,
            "anchors.bias": torch.zeros(len(anchors)),
        }
        for name, width in (("first", len(anchors)), ("second", HIDDEN)):
            bound = 1 / math.sqrt(width)
            weight = torch.rand(HIDDEN, width, generator=g) * 2 * bound - bound
            network |= {
                f"{name}.weight": weight,
                f"{name}.bias": torch.zeros(HIDDEN),
                f"{name}.norm.weight": torch.ones(HIDDEN),
                f"{name}.norm.bias": torch.zeros(HIDDEN),
            }
        network |= {
            "last.weight": torch.zeros(initial.numel(), HIDDEN),
            "last.bias": initial.cpu().flatten(),
            # the length of the output's vectors
            "norms": initial.cpu().norm(dim=1),
        }
        found |= {f"{encoder}/{name}": value for name, value in network.items()}
    return found


def words(
    tensors: Mapping[str, Tensor],
    config: ResolvedConfig,  # noqa: ARG001  (the shape of the part)
    step: int,  # noqa: ARG001
) -> Words:
    """The networks; the plain rows are their output in the middle of time and layers."""
    plain = {}
    for encoder in dict.fromkeys(encoder_of(name) for name in tensors):
        layers = len(tensors[f"{encoder}/anchors.bias"]) // TIMES
        middle = torch.tensor([layers // 2]), torch.tensor([0.5])
        plain[encoder] = rows_of_network(tensors, encoder, *middle)[0]
    fixed = {n for n in tensors if n.endswith(("/frequencies", "/norms"))}
    return Words(rows=plain, kind="neti", tensors=tensors, resting=frozenset(fixed))


FORM = Form(rows=rows, words=words)
"""A neural space-time representation.

Source:
    Alaluf et al. 2023, arXiv:2305.15391, section 4.
"""
