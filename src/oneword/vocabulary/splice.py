"""Hooks that answer a text encoder's lookups of injected words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneword.vocabulary.kinds import VARYING
from oneword.vocabulary.word import Word


class Splice:
    """Hooks on one text encoder's lookups."""

    def __init__(self, encoder: str, words: Sequence[Word], first_row: int) -> None:
        self.encoder, self.words, self.first_row = encoder, words, first_row
        self.ids = torch.empty(0, dtype=torch.long)
        self.place: tuple[Tensor, Tensor] | None = None
        """Layer, int64, and timestep in [0, 1) that each sequence is encoded for; without them, a
        word that varies uses its plain rows."""

    @property
    def varies(self) -> bool:
        """Whether a word's rows depend on the layer that reads them."""
        return any(word.kind in VARYING for word in self.words)

    @property
    def timed(self) -> bool:
        """Whether a word's rows depend on the timestep at which they are read."""
        return any(VARYING[word.kind].timed for word in self.words if word.kind in VARYING)

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002
        self.ids = args[0]
        return (args[0].masked_fill(args[0] >= self.first_row, 0), *args[1:])

    def after(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:  # noqa: ARG002
        ids = self.ids
        index = (ids - self.first_row).clamp_min(0)
        if self.place is None or not self.varies:
            table = torch.cat([word.rows[self.encoder].to(output.device) for word in self.words])
            found = F.embedding(index, table)
        else:
            tables = self._tables(self.place, output.device)
            found = tables.gather(1, index[..., None].expand(-1, -1, tables.shape[2]))
        found = found.to(output.dtype)
        # Gemma multiplies the rows that it looks up by a number in the table's own type
        scale = getattr(module, "embed_scale", None)
        if isinstance(scale, Tensor):
            scale = scale.to(output.dtype)
        found = found if scale is None else found * scale
        return torch.where((ids >= self.first_row)[..., None], found, output)

    def _tables(self, place: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
        """The rows of all words for each sequence: (sequences, rows, dim)."""
        parts = []
        for word in self.words:
            if word.kind in VARYING:
                rows = VARYING[word.kind].rows_at(word.tensors, self.encoder, *place)
            else:
                rows = word.rows[self.encoder].expand(len(place[0]), -1, -1)
            parts.append(rows.to(device))
        return torch.cat(parts, dim=1)
