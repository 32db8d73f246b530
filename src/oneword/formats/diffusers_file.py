"""The native file, which is also diffusers': one safetensors file, one key per word.

With one text encoder the key is the placeholder in lower case (stock loaders lose vectors of
mixed-case tokens) over a (num_vectors, dim) float32 tensor. With several, the keys are the
encoders' names. True spelling, provenance and checksum stand in the metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from oneword._files import write_atomic
from oneword.concept import Concept, ConceptError


_NAMES = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
"""Text encoder of a file that does not name it, by the width of its rows."""


def matches(path: Path) -> bool:
    """Whether the file is safetensors with small float tensors only."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            shapes = [file.get_slice(key).get_shape() for key in keys]
            native = "oneword" in (file.metadata() or {})
    except (OSError, ValueError, safetensors.SafetensorError):
        return False
    return bool(keys) and all(len(s) in (1, 2) for s in shapes) and (native or len(keys) == 1)


def load(path: Path, placeholder_token: str | None = None) -> Concept:
    """Read a file of ours, or a one-key file of diffusers'.

    Raises:
        ConceptError: the rows do not match the checksum, or are no embedding.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    tensors = {key: (t[None] if t.ndim == 1 else t).float() for key, t in tensors.items()}
    if "oneword" not in metadata:
        ((token, rows),) = tensors.items()
        return Concept(
            placeholder_token=placeholder_token or token,
            rows={_NAMES.get(rows.shape[1], "clip"): rows},
            provenance={"file": path.name},
        )
    try:
        known: dict[str, Any] = json.loads(metadata["oneword"])
        names, expected = known["encoders"], known["sha256"]
        concept = Concept(
            placeholder_token=placeholder_token or known["placeholder_token"],
            rows=(
                {names[0]: next(iter(tensors.values()))}
                if len(names) == 1
                else {name: tensors[name] for name in names}
            ),
            kind=known["kind"],
            provenance=known["provenance"],
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ConceptError(
            f"The metadata of {path} must say what the rows are, got something unreadable "
            f"({error!r}); the file was changed or damaged."
        ) from error
    if concept.sha256() != expected:
        raise ConceptError(
            f"The rows in {path} must match the file's SHA-256 {expected[:12]}..., got "
            f"{concept.sha256()[:12]}...; the file was changed or damaged."
        )
    return concept


def save(concept: Concept, path: Path) -> None:
    """Write a concept."""
    concept = concept.detached()
    names = sorted(concept.rows)
    token = concept.placeholder_token.lower()
    tensors = {token: concept.rows[names[0]]} if len(names) == 1 else dict(concept.rows)
    known = {
        "placeholder_token": concept.placeholder_token,
        "kind": concept.kind,
        "encoders": names,
        "sha256": concept.sha256(),
        "provenance": concept.provenance,
    }
    tensors = {key: value.to(torch.float32).contiguous() for key, value in tensors.items()}
    metadata = {"format": "pt", "oneword": json.dumps(known, default=str)}
    write_atomic(path, safetensors.torch.save(tensors, metadata))
