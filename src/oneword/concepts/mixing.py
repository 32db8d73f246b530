"""Words made of other words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from oneword.concepts.concept import ROWS, Concept, ConceptError, world_of


def distinct(concepts: Sequence[Concept]) -> tuple[list[Concept], dict[int, str]]:
    """Add a number to words that are taken: the second ``<cat>`` becomes ``<cat-2>``.

    Words that differ only in case clash, because most tools write them the same.

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
        raise ConceptError("Cannot combine without a concept; pass one or more.")
    for concept in concepts:
        if concept.kind != ROWS or concept.deltas:
            more = f" and {len(concept.deltas)} weight deltas" if concept.deltas else ""
            raise ConceptError(
                f"Cannot combine {concept.placeholder_token!r} because it is of kind "
                f"{concept.kind}{more} and only concepts of plain embeddings can be combined; "
                "leave it out."
            )
    found = (world_of(concept.provenance) for concept in concepts)
    worlds = {world for world in found if world is not None}
    if len(worlds) > 1:
        raise ConceptError(
            "Concepts must be of one world of the embedded model to be combined, got versions "
            f"{' and '.join(map(str, sorted(worlds)))}; learn one of them again from its pictures."
        )
    shapes = [
        {name: (len(rows) if vectors else "n", rows.shape[1]) for name, rows in c.rows.items()}
        for c in concepts
    ]
    for concept, shape in zip(concepts, shapes, strict=True):
        if shape != shapes[0]:
            raise ConceptError(
                "Concepts to combine must have embeddings for the same text encoders, with the "
                f"same {'shapes' if vectors else 'widths'}, got {shapes[0]} of "
                f"{concepts[0].placeholder_token!r} and {shape} of {concept.placeholder_token!r}."
            )


def average(
    concepts: Sequence[Concept], placeholder_token: str, weights: Sequence[float] | None = None
) -> Concept:
    """The weighted mean of concepts of the same shape.

    Args:
        concepts: Concepts to mix.
        placeholder_token: The new word.
        weights: One for each, divided by their sum; ``None``: equal.

    Raises:
        ConceptError: the shapes differ, or the weights are not one each with a sum that is not 0.
    """
    _alike(concepts, vectors=True)
    weights = [1.0] * len(concepts) if weights is None else list(weights)
    total = sum(weights)
    if len(weights) != len(concepts) or not total:
        raise ConceptError(
            f"weights must be one per concept ({len(concepts)}), with a sum that is not 0, got "
            f"{weights}."
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
    kept = ("base_model", "family", "world")
    first = concepts[0].provenance
    shared = {
        key: first[key]
        for key in kept
        if key in first and all(c.provenance.get(key) == first[key] for c in concepts)
    }
    parts = [{"placeholder_token": c.placeholder_token, "sha256": c.sha256()} for c in concepts]
    return shared | {"made_by": how, "parts": parts} | more
