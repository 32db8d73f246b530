"""Vectors that replace a text encoder's output at the positions of a word.

The encoder reads a word of this kind as its initialiser, and the word's own vectors replace the
output at its positions. No gradient goes through the encoder, and its output for a prompt stays the
same during training, so each prompt is encoded once.

A place of the output is named ``last_hidden_state``, ``hidden_states.10``, or by its number if the
encoder returns a tuple.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from oneword._typing import TokenIds
from oneword.errors import UserError


class OutputsError(UserError):
    """A word's vectors do not fit the text encoder's output."""


def places(output: Any, ids: TokenIds) -> dict[str, Tensor]:
    """The parts of an encoder's output that have a vector for each token."""
    items = output.items() if isinstance(output, Mapping) else enumerate(output)
    found: dict[str, Tensor] = {}
    for name, value in items:
        parts = {f"{name}.{i}": part for i, part in enumerate(value)} if (
            isinstance(value, tuple | list)
        ) else {str(name): value}  # fmt: skip
        found |= {
            place: part
            for place, part in parts.items()
            if isinstance(part, Tensor) and part.ndim == 3 and part.shape[:2] == ids.shape
        }
    return found


def replaced(output: Any, new: Mapping[str, Tensor]) -> Any:
    """An encoder's output with some places replaced by other tensors."""
    items: dict[Any, Any] = dict(
        output.items() if isinstance(output, Mapping) else enumerate(output)
    )
    for name, value in items.items():
        if isinstance(value, tuple | list):
            items[name] = tuple(new.get(f"{name}.{i}", part) for i, part in enumerate(value))
        else:
            items[name] = new.get(str(name), value)
    return type(output)(**items) if isinstance(output, Mapping) else tuple(items.values())


def ids_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TokenIds:
    """The token ids in the arguments of an encoder's call."""
    return kwargs["input_ids"] if "input_ids" in kwargs else args[0]


@dataclass(frozen=True, slots=True)
class OutputWord:
    """A word with vectors in the output of one encoder."""

    first: int
    """Id of its first vector; the others are consecutive."""
    num_vectors: int
    """Number of its ids."""
    vectors: Mapping[str, Tensor]
    """(num_vectors, dim) by place; empty if the model uses only the pooled output."""

    @property
    def stop(self) -> int:
        """The id after its last vector's."""
        return self.first + self.num_vectors


class OutputSplice:
    """Replaces a text encoder's ``forward``."""

    def __init__(self, encoder: nn.Module, words: Sequence[OutputWord], first_row: int) -> None:
        """Prepare to run.

        Args:
            encoder: The unchanged text encoder.
            words: The words with vectors here.
            first_row: Ids from here on belong to words; those of no word here have rows that may be
                trained.
        """
        self.run, self.words, self.first_row = encoder.forward, words, first_row
        self.own = {i for word in words for i in range(word.first, word.stop)}
        self.known: dict[Any, list[Any]] = {}
        self.structure: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ids = ids_of(args, kwargs)
        # waits for the device, once per step: little compared with the encoders that this is for
        learning = any(
            i >= self.first_row and i not in self.own for row in ids.tolist() for i in row
        )
        output = self.run(*args, **kwargs) if learning else self._recalled(ids, args, kwargs)
        return self._spliced(output, ids)

    def _spliced(self, output: Any, ids: TokenIds) -> Any:
        found = places(output, ids)
        new: dict[str, Tensor] = {}
        for word in self.words:
            here = (ids >= word.first) & (ids < word.stop)
            index = (ids - word.first).clamp(0, word.stop - word.first - 1)
            for place, vectors in word.vectors.items():
                before = new.get(place, found.get(place))
                if before is None or before.shape[-1] != vectors.shape[1]:
                    raise OutputsError(
                        f"The text encoder must return vectors of width {vectors.shape[1]} as "
                        f"{place}, got { ({n: t.shape[-1] for n, t in found.items()}) }."
                    )
                own = F.embedding(index, vectors.to(ids.device)).to(before.dtype)
                new[place] = torch.where(here[..., None], own, before)
        return replaced(output, new)

    def _recalled(self, ids: TokenIds, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The encoder's output; each row of the batch is encoded once and kept in CPU memory."""
        leaves, structure = pytree.tree_flatten((args, kwargs))
        count = len(ids)
        split = [x if isinstance(x, Tensor) and x.shape[:1] == (count,) else None for x in leaves]
        flags = tuple(repr(x) for x, own in zip(leaves, split, strict=True) if own is None)
        rows = zip(*(x.flatten(1).tolist() for x in split if x is not None), strict=True)
        keys = [(flags, *map(tuple, row)) for row in rows]
        new = {key: row for row, key in enumerate(keys) if key not in self.known}
        if new:
            index = torch.tensor(list(new.values()), device=ids.device)
            few = [x if own is None else own[index] for x, own in zip(leaves, split, strict=True)]
            some_args, some_kwargs = pytree.tree_unflatten(few, structure)
            with torch.no_grad():
                output = self.run(*some_args, **some_kwargs)
            said, self.structure = pytree.tree_flatten(output)
            for row, key in enumerate(new):
                self.known[key] = [
                    x[row : row + 1].to("cpu") if isinstance(x, Tensor) else x for x in said
                ]
        parts = zip(*(self.known[key] for key in keys), strict=True)
        joined = [
            torch.cat(part).to(ids.device) if isinstance(part[0], Tensor) else part[0]
            for part in parts
        ]
        return pytree.tree_unflatten(joined, self.structure)
