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

from oneword.concepts.concept import Concept
from oneword.concepts.formats.contents import Contents, FormatError
from oneword.concepts.formats.names import encoder_of_width, is_named_alone, token_of


PREFIX = "string_to_param."


def matches(contents: Contents) -> bool:
    """Whether the file keeps its rows under ``string_to_param``."""
    return any(name.startswith(PREFIX) for name in contents.shapes)


def load(contents: Contents) -> tuple[list[Concept], list[str]]:
    """Read the words; A1111's is named by the file's field, the paper's by their keys."""
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


def _pickled(content: dict[str, Any]) -> bytes:
    """The object in the container of PyTorch before 1.6.

    Every tool and every version of torch reads it; A1111's ``safe.py`` refuses archives with what
    newer versions add.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def files_a1111(concepts: Sequence[Concept], path: Path) -> dict[Path, bytes]:
    """A1111's ``.pt``: its own form for one text encoder; for SDXL, both under their names.

    Raises:
        FormatError: there are several words, or rows of other text encoders.

    Source:
        AUTOMATIC1111/stable-diffusion-webui 1.10, modules/textual_inversion/textual_inversion.py,
        ``create_embedding_from_data``.
    """
    if len(concepts) != 1:
        raise FormatError(
            f"An A1111 file must contain one word, got {len(concepts)}; write one file for each."
        )
    concept = concepts[0].detached()
    names = sorted(concept.rows)
    if names == ["clip_g", "clip_l"]:
        return {path: _pickled({name: concept.rows[name].clone() for name in names})}
    if len(names) != 1 or is_named_alone(names[0]):
        raise FormatError(
            f"Cannot write {concept.placeholder_token!r} for A1111 because it takes a word for "
            "one CLIP text encoder, or for clip_g and clip_l, and this word is for "
            f"{', '.join(names)}; use another tool's layout."
        )
    provenance = concept.provenance
    base, steps = provenance.get("base_model"), provenance.get("steps")
    content = {
        "string_to_token": {"*": 265},  # the id of "*" in CLIP's vocabulary, as A1111 has it
        "string_to_param": {"*": concept.rows[names[0]].clone()},
        "name": concept.placeholder_token,
        "step": steps if isinstance(steps, int) else None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": base if isinstance(base, str) else None,
    }
    return {path: _pickled(content)}


SIGNS = "*@#$%&+=~^!?;:"
"""What to type for the words of a file for the paper's code, in order; each is one token."""


def sign_of(place: int, token: str) -> str:
    """What to type for a word in the paper's code: the word if it is a sign, else the next one.

    Args:
        place: Position of the word in the file.
        token: The word.
    """
    return token if token in SIGNS and len(token) == 1 else SIGNS[place]


def files_authors(concepts: Sequence[Concept], path: Path) -> dict[Path, bytes]:
    """The file for the paper's code, in which the word is typed as a sign such as "*".

    That code looks for one token in a prompt and replaces it with the rows. Our words are several
    tokens, so each is given a sign. Its own files hold the class ParameterDict, which torch no
    longer loads by default since 2.6; a dict works, too, because the rows are only read.

    Raises:
        FormatError: a word has several text encoders, or there are more words than signs.

    Source:
        rinongal/textual_inversion, ldm/modules/embedding_manager.py, ``load`` and ``forward``.
    """
    signs = [sign_of(place, c.placeholder_token) for place, c in enumerate(concepts[: len(SIGNS)])]
    tokens = [concept.placeholder_token for concept in concepts]
    if len(concepts) > len(SIGNS) or len(set(signs)) < len(signs) or len(set(tokens)) < len(tokens):
        raise FormatError(
            f"The paper's file must contain up to {len(SIGNS)} words, no word and no sign twice, "
            f"got {', '.join(tokens)}; write one file for each."
        )
    rows = {}
    for concept in concepts:
        if len(concept.rows) != 1:
            raise FormatError(
                "The paper's file must be for one text encoder, got "
                f"{', '.join(sorted(concept.rows))} of {concept.placeholder_token!r}."
            )
        (rows[concept.placeholder_token],) = concept.detached().rows.values()
    ids = {
        token: torch.tensor(_id_of(sign, rows[token].shape[1]))
        for token, sign in zip(tokens, signs, strict=True)
    }
    params = {token: own.clone() for token, own in rows.items()}
    return {path: _pickled({"string_to_token": ids, "string_to_param": params})}


_BERT_WIDTH = 1280  # for the paper's own model, whose tokenizer is BERT's


def _id_of(sign: str, width: int) -> int:
    """A sign's token: both vocabularies have the ASCII signs in their order."""
    return ord(sign) - ord("!") + (999 if width == _BERT_WIDTH else 256)
