"""What is inside a concept: facts, and warnings for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from oneword.concepts.concept import OUTPUT_VECTORS, Concept
from oneword.concepts.deltas import is_lora, size_mb
from oneword.concepts.formats import EmbeddingFile
from oneword.concepts.formats.names import family_of


if TYPE_CHECKING:
    from oneword.vocabulary.vocabulary import Vocabulary

_SAME = 1e-3  # relative distance below which a row counts as a word of the model
_FAR = 8.0  # times the vocabulary's median norm above which a row is suspicious
_TOLD = ("base_model", "family", "world", "initializer_token", "stands_for", "encoder", "steps",
         "loss", "scores", "made_by", "tuning", "clip")  # fmt: skip


def facts(
    file: EmbeddingFile,
    concept: Concept,
    vocabularies: Mapping[str, Vocabulary] | None = None,
    *,
    nearest: int = 0,
) -> dict[str, Any]:
    """Everything worth knowing about one concept of a file, as JSON values.

    Args:
        file: The file.
        concept: One of the file's concepts.
        vocabularies: A model's vocabularies to compare with; it may be another model.
        nearest: How many of its nearest words to list for each row.
    """
    dims = {name: rows.shape[1] for name, rows in concept.rows.items()}
    found: dict[str, Any] = {
        "file": str(file.path),
        "layout": file.layout,
        "placeholder_token": concept.placeholder_token,
        "kind": concept.kind,
        "for": family_of(dims),
        "num_vectors": concept.num_vectors,
        "text_encoders": {name: list(rows.shape) for name, rows in concept.rows.items()},
        "row_norms": {
            name: [round(float(n), 4) for n in rows.norm(dim=1)]
            for name, rows in concept.rows.items()
        },
        "sha256": concept.sha256(),
    }
    if concept.deltas:
        found["weight_deltas"] = {
            "tensors": len(concept.deltas),
            "lora": sum(map(is_lora, concept.deltas)),
            "size_mb": round(size_mb(concept.deltas), 3),
            "parts": sorted({name.partition(".")[0] for name in concept.deltas}),
        }
    found |= {key: concept.provenance[key] for key in _TOLD if key in concept.provenance}
    doubts = _doubts(concept)
    if vocabularies is not None and concept.kind != OUTPUT_VECTORS:
        concept = concept.fitted({name: v.dim for name, v in vocabularies.items()})
        norms, near, far = {}, {}, {}
        for name, rows in concept.rows.items():
            if name not in vocabularies or vocabularies[name].dim != rows.shape[1]:
                doubts.append(f"the model has no text encoder {name} of width {rows.shape[1]}")
                continue
            vocabulary = vocabularies[name]
            gaps, median = vocabulary.gaps(rows).cpu(), vocabulary.median_norm()
            norms[name] = round(median, 4)
            far[name] = [round(gap / median, 4) for gap in gaps.tolist()]
            near[name] = vocabulary.nearest(rows, max(1, nearest))
            doubts += _doubts_beside(name, rows, gaps, near[name], norms[name])
        found["vocabulary_median_norm"] = norms
        found["distances_to_nearest_words"] = far
        if nearest:
            found["nearest"] = near
    return found | {"warnings": doubts + file.notes}


def _doubts(concept: Concept) -> list[str]:
    found = []
    for name, rows in concept.rows.items():
        if not rows.any(dim=1).all():
            found.append(f"an embedding for {name} is all zeros: it was never trained")
        if len(rows) > 1 and bool((rows == rows[0]).all()):
            found.append(f"all {len(rows)} embeddings for {name} are equal: they look untrained")
    return found


def _doubts_beside(
    name: str,
    rows: torch.Tensor,
    gaps: torch.Tensor,
    nearest: list[list[tuple[str, float]]],
    median: float,
) -> list[str]:
    found = []
    shares = gaps / rows.norm(dim=1).to(gaps)
    for place, (gap, near) in enumerate(zip(shares.tolist(), nearest, strict=True)):
        if gap < _SAME:
            found.append(
                f"embedding {place} for {name} is exactly the word {near[0][0]!r}: untrained"
            )
    far = float(rows.norm(dim=1).max()) / max(median, 1e-12)
    if far > _FAR:
        found.append(
            f"an embedding for {name} is {far:.0f} times as long as the vocabulary's: it will "
            "drown the rest of a prompt"
        )
    return found
