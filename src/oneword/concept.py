"""A learned word: its placeholder, its rows for each text encoder, and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from oneword.config import UserError


class ConceptError(UserError):
    """A concept is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Concept:
    """A new word for a frozen model.

    Raises:
        ConceptError: there are no rows, or they are not finite (num_vectors, dim) matrices with as
            many vectors for every text encoder.
    """

    placeholder_token: str
    rows: dict[str, Tensor]
    """By text encoder, such as "clip_l": (num_vectors, dim), float32."""
    kind: str = "textual-inversion"
    """What the tensors are; rows of an embedding table so far."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """How it was learned: base_model, initializer_token, config, steps, loss, scores; JSON-able."""

    def __post_init__(self) -> None:
        name = repr(self.placeholder_token)
        if not self.rows:
            raise ConceptError(f"Concept {name} must have rows for a text encoder, got none.")
        for encoder, rows in self.rows.items():
            if rows.ndim != 2 or not rows.is_floating_point() or not rows.numel():
                raise ConceptError(
                    f"Rows of concept {name} for {encoder} must be a (num_vectors, dim) matrix of "
                    f"floats, got shape {tuple(rows.shape)} of {rows.dtype}."
                )
            if not bool(torch.isfinite(rows).all()):
                raise ConceptError(
                    f"Rows of concept {name} for {encoder} must be finite, got NaN or infinity; "
                    "the file is damaged or its training diverged."
                )
        counts = {encoder: len(rows) for encoder, rows in self.rows.items()}
        if len(set(counts.values())) > 1:
            raise ConceptError(
                f"Concept {name} must have as many vectors for every text encoder, got {counts}."
            )

    @property
    def num_vectors(self) -> int:
        """Rows per text encoder."""
        return len(next(iter(self.rows.values())))

    def sha256(self) -> str:
        """Hash of the encoders' names and the rows' float32 bytes."""
        digest = hashlib.sha256()
        for encoder in sorted(self.rows):
            digest.update(encoder.encode())
            rows = self.rows[encoder].detach().to("cpu", torch.float32).contiguous()
            digest.update(rows.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def detached(self) -> Concept:
        """The same concept with its own float32 rows on the CPU."""
        rows = {n: r.detach().to("cpu", torch.float32, copy=True) for n, r in self.rows.items()}
        return dataclasses.replace(self, rows=rows)
