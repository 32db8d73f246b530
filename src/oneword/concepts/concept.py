"""A learned word: its placeholder, its rows for each text encoder, and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from oneword.concepts import deltas
from oneword.errors import UserError


ROWS = "textual-inversion"
"""Kind of a concept that consists only of rows of an embedding table."""

OUTPUT_VECTORS = "output-vectors"
"""Kind of a concept whose vectors replace the text encoders' output at the word's position, while
the encoders read the word as its initialiser; it works only in this package."""

_NEGATIVE = "negative/"  # before the encoder's name, among the tensors of a word with a negative


_PAIRS = re.compile(r"clip_(?:guide|b\d+)")
"""Keys of CLIP text towers that are not the text encoder of a drawing model."""


class ConceptError(UserError):
    """A concept is incomplete, or no drawing model reads it."""


def is_of_pair(encoder: str) -> bool:
    """Whether a key is that of a CLIP text tower that no drawing model uses."""
    return _PAIRS.fullmatch(encoder) is not None


def check_drawable(token: str, encoders: Collection[str], readers: Collection[str] = ()) -> None:
    """Refuse a word of a CLIP if a drawing model, or a tool for one, would have to read it.

    Args:
        token: The word.
        encoders: Keys of its rows.
        readers: Text encoders that can read it.

    Raises:
        ConceptError: its rows are for a CLIP that is not among the readers.
    """
    pairs = sorted(name for name in encoders if is_of_pair(name) and name not in readers)
    if pairs:
        raise ConceptError(
            f"Cannot use the concept {token!r} here because its embedding is for a CLIP that "
            f"cannot draw ({pairs[0]}); find pictures with it (oneword palavra find), let it "
            "guide a drawing (oneword baseline), or learn it on openai/clip-vit-large-patch14, "
            "which Stable Diffusion 1 uses."
        )


def world_of(provenance: Mapping[str, Any]) -> int | None:
    """Version of the world of the embedded model that a word was learned on; older ones say none.

    ``None``: it was learned on another model, or says nothing of it.
    """
    if provenance.get("family") != "microworld":
        return None
    found = provenance.get("world", 1)
    return found if isinstance(found, int) else None


def further_token(placeholder_token: str, name: str) -> str:
    """Placeholder of an extra word that belongs to another: ``<cat-negative>`` to ``<cat>``."""
    stem = placeholder_token.removesuffix(">")
    return f"{stem}-{name}{placeholder_token[len(stem) :]}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Concept:
    """A new word for a model, with the changes to the model's weights that belong to it, if any.

    Raises:
        ConceptError: there are no rows, or they are not finite (num_vectors, dim) matrices with the
            same number of vectors for every text encoder.
        DeltaError: the weight deltas are incomplete.
    """

    placeholder_token: str
    rows: dict[str, Tensor]
    """By text encoder, such as "clip_l": (num_vectors, dim), float32. Output vectors: by encoder
    and place of its output, such as "clip_l.last_hidden_state"."""
    kind: str = ROWS
    """What the concept consists of: rows alone, rows with ``tensors`` that only the kind's own code
    can use, or output vectors instead of rows."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """What the kind needs in addition to the rows, by its own names; float32 of any shape."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """How it was learned: base_model, initializer_token, config, steps, loss, scores; JSON
    values."""
    deltas: dict[str, Tensor] = field(default_factory=dict)
    """Changes to the model's weights that belong to the word, with the names of ``deltas.py``."""

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
        for key, tensor in self.tensors.items():
            if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                raise ConceptError(
                    f"Tensors of concept {name} must be finite floats, got {key} of "
                    f"{tensor.dtype} with NaN, infinity or no floats; the file is damaged or its "
                    "training diverged."
                )
        counts = {encoder: len(rows) for encoder, rows in self.rows.items()}
        if len(set(counts.values())) > 1:
            raise ConceptError(
                f"Concept {name} must have the same number of vectors for every text encoder, got "
                f"{counts}."
            )
        deltas.check(self.deltas, f"concept {name}")

    @property
    def num_vectors(self) -> int:
        """Rows per text encoder."""
        return len(next(iter(self.rows.values())))

    @property
    def learnable_property(self) -> str:
        """What it was trained as: "style", or "object", which is also the default."""
        settings = self.provenance.get("config")
        found = settings.get("learnable_property") if isinstance(settings, dict) else None
        return found if found in ("object", "style") else "object"

    def sha256(self) -> str:
        """Hash of the names and float32 bytes of rows, other tensors and weight deltas."""
        digest = hashlib.sha256()
        for group in (self.rows, self.tensors, self.deltas):
            for name in sorted(group):
                digest.update(name.encode())
                values = group[name].detach().to("cpu", torch.float32).contiguous()
                digest.update(values.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def detached(self) -> Concept:
        """The same concept with its own float32 tensors, and its own deltas, on the CPU."""
        rows, tensors = (
            {n: t.detach().to("cpu", torch.float32, copy=True) for n, t in group.items()}
            for group in (self.rows, self.tensors)
        )
        own = {n: d.detach().to("cpu", copy=True) for n, d in self.deltas.items()}
        return dataclasses.replace(self, rows=rows, tensors=tensors, deltas=own)

    @property
    def negative_token(self) -> str | None:
        """The word for the negative prompt of this one's pictures, if it has one."""
        if not any(name.startswith(_NEGATIVE) for name in self.tensors):
            return None
        return further_token(self.placeholder_token, "negative")

    def companions(self) -> list[Concept]:
        """The extra words that belong to this one."""
        token = self.negative_token
        if token is None:
            return []
        rows = {
            name.removeprefix(_NEGATIVE): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(_NEGATIVE)
        }
        return [Concept(placeholder_token=token, rows=rows)]

    def named(self, placeholder_token: str) -> Concept:
        """The same rows under another placeholder."""
        return dataclasses.replace(self, placeholder_token=placeholder_token)

    def fitted(self, dims: Mapping[str, int]) -> Concept:
        """The concept with its rows under a model's own names for the text encoders.

        Files with rows for one encoder rarely say which one. If exactly one encoder of the model
        has their width, it is used. A CLIP's own key is never taken for another encoder's.

        Args:
            dims: Width of each text encoder's rows, by the model's name for it.
        """
        is_named = (
            self.kind == OUTPUT_VECTORS
            or self.rows.keys() & dims.keys()
            or any(map(is_of_pair, self.rows))
        )
        if len(self.rows) != 1 or is_named:
            return self
        (rows,) = self.rows.values()
        fitting = [name for name, dim in dims.items() if dim == rows.shape[1]]
        if len(fitting) != 1:
            return self
        return dataclasses.replace(self, rows={fitting[0]: rows})
