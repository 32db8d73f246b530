"""The network: from features of a set of pictures, in any order and number, to a word's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


Sets = Float[Tensor, "sets most dim"]
"""Features of the pictures of each set; smaller sets are padded with any values."""
Here = Bool[Tensor, "sets most"]
"""Which of them are real; at least one in each set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a network."""

    features: int
    """Length of a picture's features."""
    width: int
    """Width of the layers."""
    num_vectors: int
    """Number of rows of a word."""
    encoders: Mapping[str, int]
    """Width of the rows of each text encoder, by its name."""


class _SetLayer(nn.Module):
    """``x -> A x - B mean(x)``: a picture's output depends on its set, and not on the order.

    Source:
        Zaheer et al. 2017, arXiv:1703.06114, section 3, in the form that takes the mean.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.own = nn.Linear(dim_in, dim_out)
        self.whole = nn.Linear(dim_in, dim_out, bias=False)

    def forward(self, x: Sets, here: Here) -> Float[Tensor, "sets most out"]:
        return F.elu(self.own(x) - self.whole(_mean(x, here))[:, None])


def _mean(x: Sets, here: Here) -> Float[Tensor, "sets dim"]:
    """Mean over the real pictures of each set."""
    weight = here[..., None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1)


class SetEncoder(nn.Module):
    """Three layers on the pictures, the mean over the set, and two on that.

    Each row has a fixed length, that of its text encoder's common words: in a trial, rows of free
    length grew to three times the table's spread. Before training, the rows have the mean direction
    of those words.

    Source:
        The layers of Cohen et al. 2022, arXiv:2204.01694, section 4, without their dropout; the
        output is ours.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        """Draw the weights.

        Args:
            shape: Its sizes.
            seed: Seed of the weights.
        """
        super().__init__()
        self.shape = shape
        width = shape.width
        self.pictures = nn.ModuleList(
            _SetLayer(dim, width) for dim in (shape.features, width, width)
        )
        self.set = nn.Linear(width, width)
        self.rows = nn.ModuleDict(
            {name: nn.Linear(width, shape.num_vectors * d) for name, d in shape.encoders.items()}
        )
        # statistics of features of pictures and of rows of words
        self.register_buffer("mean", torch.zeros(shape.features))
        self.register_buffer("std", torch.ones(shape.features))
        for name, dim in shape.encoders.items():
            self.register_buffer(f"start_{name}", torch.zeros(dim))
            self.register_buffer(f"length_{name}", torch.ones(()))
        self._draw(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                drawn = torch.rand(module.weight.shape, generator=generator)
                module.weight.copy_((2 * drawn - 1) * bound)
                if module.bias is not None:
                    module.bias.zero_()
        for module in self.rows.values():
            module.weight.zero_()  # pyright: ignore[reportCallIssue]

    @torch.no_grad()
    def fit(self, features: Tensor, words: Mapping[str, Tensor]) -> None:
        """Set the statistics of features and rows, before training.

        Args:
            features: Features of many pictures, (pictures, dim).
            words: Rows of common words, by text encoder, each (words, dim).
        """
        self.get_buffer("mean").copy_(features.mean(0))
        self.get_buffer("std").copy_(features.std(0, correction=0).clamp_min(1e-6))
        for name, rows in words.items():
            self.get_buffer(f"start_{name}").copy_(F.normalize(rows.mean(0), dim=0))
            self.get_buffer(f"length_{name}").copy_(rows.norm(dim=1).median())

    def forward(self, features: Sets, here: Here) -> dict[str, Tensor]:
        """Rows of the word of each set.

        Args:
            features: Features of the pictures of each set.
            here: Which of them are real.

        Returns:
            By text encoder, each (sets, num_vectors, dim).
        """
        x = (features - self.get_buffer("mean")) / self.get_buffer("std")
        for layer in self.pictures:
            x = layer(x, here)
        x = F.elu(self.set(_mean(x, here)))
        found = {}
        for name, module in self.rows.items():
            rows = module(x).unflatten(-1, (self.shape.num_vectors, -1))
            rows = F.normalize(self.get_buffer(f"start_{name}") + rows, dim=-1)
            found[name] = self.get_buffer(f"length_{name}") * rows
        return found
