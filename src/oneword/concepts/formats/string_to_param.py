"""The paper's own ``.pt`` files, and A1111's ``.pt`` and PNG files that descend from them.

Both keep ``{"string_to_token": {"*": id}, "string_to_param": {"*": (n, dim)}}``. The paper's code
(github.com/rinongal/textual_inversion) pickles a ParameterDict, with several words after merging;
A1111 pickles a dict and adds ``name``, ``step`` and the checkpoint's name.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from oneword._files import write_atomic
from oneword.concepts.concept import Concept
from oneword.concepts.formats.contents import Contents, FormatError
from oneword.concepts.formats.names import encoder_of_width, token_of


PREFIX = "string_to_param."


def matches(contents: Contents) -> bool:
    """Whether the file keeps its rows under ``string_to_param``."""
    return any(name.startswith(PREFIX) for name in contents.shapes)


def load(contents: Contents) -> tuple[list[Concept], list[str]]:
    """Read the words; A1111's only one is called as the file says, the paper's as their keys."""
    fields = contents.fields
    keys = [name for name in contents.shapes if name.startswith(PREFIX)]
    contents.count(keys, len(keys))
    found = []
    for key in keys:
        rows = contents.rows(key)
        word = key.removeprefix(PREFIX)
        name = fields.get("name")
        called = name if len(keys) == 1 and isinstance(name, str) and name.strip() else word
        provenance: dict[str, Any] = {"file": contents.path.name}
        if isinstance(fields.get("step"), int):
            provenance["steps"] = fields["step"]
        if isinstance(fields.get("sd_checkpoint_name"), str):
            provenance["base_model"] = fields["sd_checkpoint_name"]
        found.append(
            Concept(
                placeholder_token=token_of(called, contents.path),
                rows={encoder_of_width(rows.shape[1]): rows},
                provenance=provenance,
            )
        )
    return found, []


def _single(concept: Concept, kind: str) -> torch.Tensor:
    if len(concept.rows) != 1:
        raise FormatError(
            f"{kind} file holds rows of one text encoder, got {', '.join(sorted(concept.rows))} of "
            f"{concept.placeholder_token!r}; write the kohya form, which these tools load for "
            "models with several."
        )
    (rows,) = concept.detached().rows.values()
    return rows


def _written(path: Path, content: dict[str, Any]) -> list[Path]:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())
    return [path]


def save_a1111(concepts: Sequence[Concept], path: Path) -> list[Path]:
    """Write A1111's ``.pt``.

    Raises:
        FormatError: there are several words or several text encoders.
    """
    if len(concepts) != 1:
        raise FormatError(
            f"An A1111 file holds one word, got {len(concepts)}; write one file for each."
        )
    concept = concepts[0]
    provenance = concept.provenance
    return _written(
        path,
        {
            "string_to_token": {"*": 265},  # the id of "*" in CLIP's vocabulary, as A1111 has it
            "string_to_param": {"*": _single(concept, "An A1111")},
            "name": concept.placeholder_token,
            "step": provenance.get("steps"),
            "sd_checkpoint": None,
            "sd_checkpoint_name": provenance.get("base_model"),
        },
    )


def save_authors(concepts: Sequence[Concept], path: Path) -> list[Path]:
    """Write the file of the paper's code: a ParameterDict, one entry a word.

    Raises:
        FormatError: a concept has several text encoders, or a word that the class cannot hold.
    """
    parameters = nn.ParameterDict()
    for concept in concepts:
        token = concept.placeholder_token
        if "." in token or hasattr(parameters, token):
            raise FormatError(
                f"A word in the paper's file must be without dots, and no word twice, got "
                f"{token!r}; rename it with `oneword concept rename`."
            )
        parameters[token] = nn.Parameter(_single(concept, "The paper's"))
    tokens = {c.placeholder_token: torch.tensor(265) for c in concepts}
    return _written(path, {"string_to_token": tokens, "string_to_param": parameters})
