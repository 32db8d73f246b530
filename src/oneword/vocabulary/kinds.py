"""Kinds of words whose rows depend on the layer, and perhaps the timestep, that reads them.

Such a word is stored as tensors that give a row for each layer and time. The plain rows stored with
them are for readers of a single row. Training is in ``training/extensions``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


RowsAt = Callable[[Mapping[str, Tensor], str, Tensor, Tensor], Tensor]
"""``rows_at(tensors, encoder, layer, time)``: rows by sequence, (sequences, num_vectors, dim).

``tensors`` are the word's, ``layer`` (sequences,) the cross-attention layer that reads each
sequence, int64, and ``time`` (sequences,) its timestep in [0, 1).
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """How the rows of a varying word are computed from its tensors."""

    rows_at: RowsAt
    timed: bool
    """Whether the rows depend on the timestep."""


# --- a row for every layer


def rows_by_layer(
    tensors: Mapping[str, Tensor],
    encoder: str,
    layer: Tensor,
    time: Tensor,  # noqa: ARG001  (the shape of ``RowsAt``)
) -> Tensor:
    """The row of each layer is stored directly.

    Source:
        Voynov et al. 2023, arXiv:2303.09522, section 3.
    """
    return tensors[f"{encoder}/layers"][layer.to(tensors[f"{encoder}/layers"].device)]


# --- a network of time and layer


FREQUENCIES = 1024
SCALES = (0.03, 2.0)
"""Standard deviations of the frequencies of time (0 to 999) and layer."""
TIMES = 10
"""Anchor times for each layer, which initialise the network's first layer."""
HIDDEN = 128


def rows_of_network(
    tensors: Mapping[str, Tensor], encoder: str, layer: Tensor, time: Tensor
) -> Tensor:
    """A small network gives the row for each time and layer.

    Source:
        Alaluf et al. 2023, arXiv:2305.15391, section 4.
    """

    def weight(name: str) -> Tensor:
        return tensors[f"{encoder}/{name}"]

    frequencies, norms = weight("frequencies"), weight("norms")
    hidden = code(frequencies, layer.to(frequencies.device), time.to(frequencies.device))
    hidden = F.linear(hidden, weight("anchors.weight"), weight("anchors.bias"))
    for name in ("first", "second"):
        hidden = F.linear(hidden, weight(f"{name}.weight"), weight(f"{name}.bias"))
        scale, shift = weight(f"{name}.norm.weight"), weight(f"{name}.norm.bias")
        hidden = F.leaky_relu(F.layer_norm(hidden, (HIDDEN,), scale, shift))
    output = F.linear(hidden, weight("last.weight"), weight("last.bias"))
    vectors = output.unflatten(1, (len(norms), -1))
    return F.normalize(vectors, dim=-1) * norms[:, None]


def code(frequencies: Tensor, layer: Tensor, time: Tensor) -> Tensor:
    """Random Fourier features of (time, layer), of length 1."""
    place = torch.stack([1000 * time, layer.float()], dim=1)
    angles = place @ frequencies.T
    return F.normalize(torch.cat([angles.sin(), angles.cos()], dim=1), dim=1)


VARYING = {
    "xti": Kind(rows_at=rows_by_layer, timed=False),
    "neti": Kind(rows_at=rows_of_network, timed=True),
}
"""By ``Concept.kind``."""
