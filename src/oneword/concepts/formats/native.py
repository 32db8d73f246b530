"""The native file: safetensors, with spelling, provenance and checksum in its metadata.

One concept for one text encoder is stored under its placeholder in lower case, which stock
diffusers loads (its loader loses vectors of mixed-case tokens); for several encoders under their
names (``clip_l``, ``clip_g``, ``t5xxl``), which ComfyUI, Forge and A1111 load. Several concepts
share a file under ``token`` or ``token.encoder``. Weight deltas are stored with the rows under
their own names (see ``deltas.py``), with ``token.`` in front if there are several concepts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from oneword._escaping import is_control
from oneword._files import FormError, check, parsed
from oneword.concepts.concept import OUTPUT_VECTORS, Concept, ConceptError
from oneword.concepts.formats.contents import Contents


_ENTRIES = [
    {
        "placeholder_token": str,
        "kind": str,
        "keys": {str: str},
        "tensors?": {str: str},
        "deltas?": {str: str},
        "sha256": str,
        "provenance": {str: object},
    }
]
"""Form of the metadata, with an entry for each word."""


def matches(contents: Contents) -> bool:
    """Whether this package wrote the metadata."""
    return contents.container == "safetensors" and "oneword" in contents.fields


def load(contents: Contents) -> tuple[list[Concept], list[str]]:
    """Read the concepts of one of our files.

    Raises:
        ConceptError: the rows do not match the checksum, or the metadata is damaged.
    """
    path = contents.path
    try:
        entries = check(parsed(contents.fields["oneword"]), _ENTRIES, "the metadata")
        for entry in entries:
            _check_word(entry["placeholder_token"])
    except FormError as error:
        raise ConceptError(
            f"The metadata of {path} must say what the rows are, got something unreadable "
            f"({error}); the file was changed or damaged."
        ) from error
    numbers, changes = [], []
    for entry in entries:
        numbers += [*entry["keys"].values(), *entry.get("tensors", {}).values()]
        changes += entry.get("deltas", {}).values()
    missing = {*numbers, *changes} - contents.shapes.keys()
    if missing:
        raise ConceptError(
            f"The metadata of {path} must name tensors of the file, got {min(missing)!r}; the file "
            "was changed or damaged."
        )
    contents.count(numbers, len(entries))
    if len({*numbers, *changes}) < len(numbers) + len(changes):
        raise ConceptError(
            f"The metadata of {path} must name each tensor once, got one for several; the file was "
            "changed or damaged."
        )
    found = []
    for entry in entries:
        concept = Concept(
            placeholder_token=entry["placeholder_token"],
            rows={name: contents.rows(key) for name, key in entry["keys"].items()},
            kind=entry["kind"],
            tensors={
                name: contents.read(key).float() for name, key in entry.get("tensors", {}).items()
            },
            provenance=entry["provenance"],
            deltas={n: contents.read(key) for n, key in entry.get("deltas", {}).items()},
        )
        found.append(concept)
        if concept.sha256() != entry["sha256"]:
            raise ConceptError(
                f"The tensors in {path} must match the file's SHA-256 "
                f"{entry['sha256'][:12]}..., got {concept.sha256()[:12]}...; the file was "
                "changed or damaged."
            )
    return found, []


def _check_word(token: str) -> None:
    if not token or any(map(is_control, token)):
        raise FormError(f"a word must be without control characters, got {token!r}")


def files(concepts: Sequence[Concept], path: Path) -> dict[Path, bytes]:
    """The single file of concepts."""
    tensors: dict[str, torch.Tensor] = {}
    entries: list[dict[str, Any]] = []
    for concept in (c.detached() for c in concepts):
        token = _unused(concept.placeholder_token.lower(), tensors)
        one = len(concept.rows) == 1
        if concept.kind == OUTPUT_VECTORS:  # not a name that another tool would take for a word
            token, one = (
                _unused(f"{concept.kind}.{concept.placeholder_token.lower()}", tensors),
                False,
            )
        keys = {
            name: token
            if one
            else name
            if len(concepts) == 1 and concept.kind != OUTPUT_VECTORS
            else f"{token}.{name}"
            for name in sorted(concept.rows)
        }
        tensors |= {key: concept.rows[name].contiguous() for name, key in keys.items()}
        changes = {n: n if len(concepts) == 1 else f"{token}.{n}" for n in sorted(concept.deltas)}
        tensors |= {key: concept.deltas[name].contiguous() for name, key in changes.items()}
        more = {name: f"{token}.{name}" for name in sorted(concept.tensors)}
        tensors |= {key: concept.tensors[name].contiguous() for name, key in more.items()}
        entries.append(
            {
                "placeholder_token": concept.placeholder_token,
                "kind": concept.kind,
                "keys": keys,
                **({"deltas": changes} if changes else {}),
                **({"tensors": more} if more else {}),
                "sha256": concept.sha256(),
                "provenance": concept.provenance,
            }
        )
    metadata = {"format": "pt", "oneword": json.dumps(entries, default=str)}
    return {path: _in_order(safetensors.torch.save(tensors, metadata))}


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata in a fixed order; the library's order varies by file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of eight
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _unused(token: str, taken: dict[str, torch.Tensor]) -> str:
    """A key that is not used yet: two words may differ only in case, but their keys may not."""
    key, count = token, 1
    while any(name == key or name.startswith(f"{key}.") for name in taken):
        count += 1
        key = f"{token}#{count}"
    return key
