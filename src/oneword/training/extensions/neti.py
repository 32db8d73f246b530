"""A small network that gives the row for each diffusion time and cross-attention layer.

The network is the paper's without its textual bypass and its nested dropout, and begins at the
initialiser: its last layer starts with zero weights and the initialiser for bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from oneword.config.inversion import InversionConfig
from oneword.models.contract import Backbone
from oneword.training.draws import generator
from oneword.training.extensions.cross_init import start
from oneword.training.extensions.xti import num_layers
from oneword.training.parts import Form, Job, Words, encoder_of


FREQUENCIES = 1024
SCALES = (0.03, 2.0)
"""Standard deviations of the frequencies of time (0 to 999) and layer."""
TIMES = 10
"""Anchors along the time, for each layer, that the first layer starts from."""
HIDDEN = 128
_STREAM = 11  # of draws that are none of the loop's own


def rows(backbone: Backbone, job: Job, config: InversionConfig) -> dict[str, Tensor]:
    """Weights of one network for each text encoder, by the encoder's name and their own."""
    layers = num_layers(backbone, job)
    found: dict[str, Tensor] = {}
    for encoder, initial in start(backbone, job, config).items():
        g = generator(config.seed, _STREAM)
        frequencies = torch.randn(FREQUENCIES, 2, generator=g) * torch.tensor(SCALES)
        time = torch.arange(TIMES).repeat_interleave(layers) / TIMES
        anchors = _code(frequencies, torch.arange(layers).repeat(TIMES), time)
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
            # what the output's vectors are as long as
            "norms": initial.cpu().norm(dim=1),
        }
        found |= {f"{encoder}/{name}": value for name, value in network.items()}
    return found


def words(
    tensors: Mapping[str, Tensor],
    config: InversionConfig,  # noqa: ARG001  (the shape of the part)
    step: int,  # noqa: ARG001
) -> Words:
    """The networks; the plain rows are what they give in the middle of time and layers."""
    plain = {}
    for encoder in dict.fromkeys(encoder_of(name) for name in tensors):
        layers = len(tensors[f"{encoder}/anchors.bias"]) // TIMES
        middle = torch.tensor([layers // 2]), torch.tensor([0.5])
        plain[encoder] = rows_at(tensors, encoder, *middle)[0]
    fixed = {n for n in tensors if n.endswith(("/frequencies", "/norms"))}
    return Words(rows=plain, kind="neti", tensors=tensors, resting=frozenset(fixed))


def rows_at(tensors: Mapping[str, Tensor], encoder: str, layer: Tensor, time: Tensor) -> Tensor:
    """Rows for each sequence: (sequences, num_vectors, dim).

    Args:
        tensors: The networks' weights.
        encoder: Text encoder whose network is asked.
        layer: Cross-attention layer that reads each sequence.
        time: Diffusion time of each, in [0, 1).
    """

    def weight(name: str) -> Tensor:
        return tensors[f"{encoder}/{name}"]

    frequencies, norms = weight("frequencies"), weight("norms")
    hidden = _code(frequencies, layer.to(frequencies.device), time.to(frequencies.device))
    hidden = F.linear(hidden, weight("anchors.weight"), weight("anchors.bias"))
    for name in ("first", "second"):
        hidden = F.linear(hidden, weight(f"{name}.weight"), weight(f"{name}.bias"))
        scale, shift = weight(f"{name}.norm.weight"), weight(f"{name}.norm.bias")
        hidden = F.leaky_relu(F.layer_norm(hidden, (HIDDEN,), scale, shift))
    output = F.linear(hidden, weight("last.weight"), weight("last.bias"))
    vectors = output.unflatten(1, (len(norms), -1))
    return F.normalize(vectors, dim=-1) * norms[:, None]


def _code(frequencies: Tensor, layer: Tensor, time: Tensor) -> Tensor:
    """Random Fourier features of (time, layer), of length 1."""
    place = torch.stack([1000 * time, layer.float()], dim=1)
    angles = place @ frequencies.T
    return F.normalize(torch.cat([angles.sin(), angles.cos()], dim=1), dim=1)


FORM = Form(rows=rows, words=words, timed=True)
"""A neural space-time representation.

Source:
    Alaluf et al. 2023, arXiv:2305.15391, section 4.
"""
