"""A learned word: its placeholder, its rows for each text encoder, and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from oneword.concepts import deltas
from oneword.config.inversion import UserError


ROWS = "textual-inversion"
"""Kind of a concept that is rows of an embedding table and nothing else."""

OUTPUT_VECTORS = "output-vectors"
"""Kind of a concept whose vectors stand in the text encoders' output where the word stands, which
the encoders read as its initialiser; it works in this package alone."""

_NEGATIVE = "negative/"  # before the encoder's name, among the tensors of a word with a negative


class ConceptError(UserError):
    """A concept is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Concept:
    """A new word for a model, with the changes to its weights that its method makes, if any.

    Raises:
        ConceptError: there are no rows, or they are not finite (num_vectors, dim) matrices with as
            many vectors for every text encoder.
        DeltaError: the weight deltas are not whole.
    """

    placeholder_token: str
    rows: dict[str, Tensor]
    """By text encoder, such as "clip_l": (num_vectors, dim), float32. Output vectors: by encoder
    and place of its output, such as "clip_l.last_hidden_state"."""
    kind: str = ROWS
    """What the concept is made of: rows alone, rows and ``tensors`` that only the kind's own code
    can use, or output vectors in the rows' place."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """What the kind needs besides the rows, by its own names; float32 of any shape."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """How it was learned: base_model, initializer_token, config, steps, loss, scores; JSON-able."""
    deltas: dict[str, Tensor] = field(default_factory=dict)
    """Changes to the model's weights that go with the word, as ``deltas.py`` names them."""

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
                f"Concept {name} must have as many vectors for every text encoder, got {counts}."
            )
        deltas.check(self.deltas, f"concept {name}")

    @property
    def num_vectors(self) -> int:
        """Rows per text encoder."""
        return len(next(iter(self.rows.values())))

    @property
    def learnable_property(self) -> str:
        """What it was trained as: "object", where it does not say, or "style"."""
        settings = self.provenance.get("config")
        found = settings.get("learnable_property") if isinstance(settings, dict) else None
        return found if found in ("object", "style") else "object"

    def sha256(self) -> str:
        """Hash of the names and float32 bytes of the rows, of other tensors, of weight deltas."""
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
        """Word that pictures of this one are drawn away from, in the negative prompt."""
        if not any(name.startswith(_NEGATIVE) for name in self.tensors):
            return None
        token = self.placeholder_token
        return f"{token[:-1]}-negative>" if token.endswith(">") else f"{token}-negative"

    def companions(self) -> list[Concept]:
        """The further words that this one brings along."""
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
        """The same rows under another word."""
        return dataclasses.replace(self, placeholder_token=placeholder_token)

    def fitted(self, dims: Mapping[str, int]) -> Concept:
        """The concept with its rows under a model's own names of the text encoders.

        Files that hold rows of one encoder seldom say which; where exactly one encoder of the model
        is so wide, it is meant.

        Args:
            dims: Width of each text encoder's rows, by the model's name of it.
        """
        is_named = self.kind == OUTPUT_VECTORS or self.rows.keys() & dims.keys()
        if len(self.rows) != 1 or is_named:
            return self
        (rows,) = self.rows.values()
        fitting = [name for name, dim in dims.items() if dim == rows.shape[1]]
        if len(fitting) != 1:
            return self
        return dataclasses.replace(self, rows={fitting[0]: rows})


def distinct(concepts: Sequence[Concept]) -> tuple[list[Concept], dict[int, str]]:
    """Give words that are taken a number: the second ``<cat>`` becomes ``<cat-2>``.

    Words that differ in case alone clash, since most tools write them alike.

    Returns:
        The concepts with distinct words, and the new word by the index of each renamed concept.
    """
    taken = {c.placeholder_token.lower() for c in concepts}
    seen: set[str] = set()
    found, renamed = [], {}
    for index, concept in enumerate(concepts):
        token = concept.placeholder_token
        if token.lower() in seen:
            stem, end = (token[:-1], ">") if token.endswith(">") else (token, "")
            tries = (f"{stem}-{count}{end}" for count in itertools.count(2))
            token = next(t for t in tries if t.lower() not in taken)
            renamed[index] = token
            taken.add(token.lower())
        seen.add(token.lower())
        found.append(concept.named(token))
    return found, renamed


def _alike(concepts: Sequence[Concept], *, vectors: bool) -> None:
    """Refuse to combine concepts of different models, or of different lengths."""
    if not concepts:
        raise ConceptError("There must be a concept to combine, got none.")
    for concept in concepts:
        if concept.kind != ROWS or concept.deltas:
            more = f" and {len(concept.deltas)} weight deltas" if concept.deltas else ""
            raise ConceptError(
                f"Only concepts of rows can be combined, got {concept.placeholder_token!r} of kind "
                f"{concept.kind}{more}."
            )
    shapes = [
        {name: (len(rows) if vectors else "n", rows.shape[1]) for name, rows in c.rows.items()}
        for c in concepts
    ]
    for concept, shape in zip(concepts, shapes, strict=True):
        if shape != shapes[0]:
            raise ConceptError(
                "Concepts must have rows of the same text encoders and "
                f"{'shapes' if vectors else 'widths'} to be combined, got {shapes[0]} of "
                f"{concepts[0].placeholder_token!r} and {shape} of {concept.placeholder_token!r}."
            )


def average(
    concepts: Sequence[Concept], placeholder_token: str, weights: Sequence[float] | None = None
) -> Concept:
    """The weighted mean of concepts of the same shape.

    Args:
        concepts: What to mix.
        placeholder_token: The new word.
        weights: One each, divided by their sum; ``None``: equal.

    Raises:
        ConceptError: the shapes differ, or the weights are not one each with a sum that is not 0.
    """
    _alike(concepts, vectors=True)
    weights = [1.0] * len(concepts) if weights is None else list(weights)
    total = sum(weights)
    if len(weights) != len(concepts) or not total:
        raise ConceptError(
            f"There must be one weight for each of {len(concepts)} concepts, with a sum that is "
            f"not 0, got {weights}."
        )
    parts = [c.detached().rows for c in concepts]
    rows = {
        name: sum((w / total * part[name] for w, part in zip(weights, parts, strict=True)))
        for name in parts[0]
    }
    return Concept(
        placeholder_token=placeholder_token,
        rows=rows,  # pyright: ignore[reportArgumentType]  (the sum of tensors)
        provenance=_made_of(concepts, "average", weights=weights),
    )


def concatenated(concepts: Sequence[Concept], placeholder_token: str) -> Concept:
    """One word with the vectors of all, in order.

    Raises:
        ConceptError: the concepts are for different models.
    """
    _alike(concepts, vectors=False)
    parts = [c.detached().rows for c in concepts]
    return Concept(
        placeholder_token=placeholder_token,
        rows={name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        provenance=_made_of(concepts, "concatenation"),
    )


def _made_of(concepts: Sequence[Concept], how: str, **more: Any) -> dict[str, Any]:
    kept = ("base_model", "family")
    first = concepts[0].provenance
    shared = {
        key: first[key]
        for key in kept
        if key in first and all(c.provenance.get(key) == first[key] for c in concepts)
    }
    parts = [{"placeholder_token": c.placeholder_token, "sha256": c.sha256()} for c in concepts]
    return shared | {"made_by": how, "parts": parts} | more
