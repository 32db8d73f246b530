"""A network from a set of vectors to one vector that does not depend on their order."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Equivariant(nn.Module):
    """One layer over a set: a linear map of each member minus a linear map of the mean.

    Args:
        dim: Width of the members.
        out: Width of the output for each member.

    Source:
        Zaheer et al. 2017, arXiv:1703.06114, section 3, with the mean for pooling and a full matrix
        instead of each factor.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.own = nn.Linear(dim, out)
        self.mean = nn.Linear(dim, out, bias=False)

    def forward(self, members: Tensor) -> Tensor:
        """Members (sets, members, dim) to (sets, members, out)."""
        return self.own(members) - self.mean(members.mean(dim=1, keepdim=True))


class DeepSets(nn.Module):
    """Equivariant layers, the mean over the set, and a perceptron of two layers.

    Sets of any size use the same weights. ELU follows every layer except the last.

    Args:
        dim: Width of a set's members.
        hidden: Width of all hidden layers.
        out: Width of the output vector of each set.
        num_layers: Number of equivariant layers.
        dropout: Share of values that are zeroed before each layer of the perceptron in training, in
            [0, 1).

    Source:
        Zaheer et al. 2017, arXiv:1703.06114, section 3.
    """

    def __init__(
        self, dim: int, hidden: int, out: int, *, num_layers: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [dim, *[hidden] * num_layers]
        self.members = nn.Sequential(
            *[
                layer
                for a, b in itertools.pairwise(widths)
                for layer in (Equivariant(a, b), nn.ELU())
            ]
        )
        self.first = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, out)
        self.dropout = dropout

    def forward(self, sets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sets to one vector each.

        Args:
            sets: (sets, members, dim).
            generator: CPU generator for the zeroed values; ``None``: none are zeroed.

        Returns:
            (sets, out).
        """
        pooled = self._dropped(self.members(sets).mean(dim=1), generator)
        return self.last(self._dropped(F.elu(self.first(pooled)), generator))

    def _dropped(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or not self.dropout:
            return values
        kept = torch.rand(values.shape, generator=generator) >= self.dropout
        return values * kept.to(values) / (1 - self.dropout)


@torch.no_grad()
def draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise a network's linear layers as torch does, but from a generator.

    Args:
        network: A network on the CPU.
        generator: A generator on the CPU.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            for values in (layer.weight, layer.bias):
                if values is not None:
                    values.uniform_(-bound, bound, generator=generator)
