"""Files that name text encoders: kohya, ComfyUI, Forge, OneTrainer, invoke-training, ai-toolkit.

``emb_params`` (OneTrainer: ``emp_params``) for models with one encoder; ``clip_l``, ``clip_g``,
``t5xxl`` (or ``t5``) for those with several, and so for language models (``qwen3_4b``);
``text_encoders_0`` and ``_1`` in cog's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from oneword._files import write_atomic
from oneword.concepts.concept import Concept
from oneword.concepts.formats.contents import Contents, FormatError
from oneword.concepts.formats.names import encoder_of_width, is_named_alone, keys, token_of


_SINGLE = ("emb_params", "emp_params")
_OUT = "_out"
_TITLES = ("modelspec.trigger_phrase", "modelspec.title", "name")
_ARCHITECTURES = {
    ("clip_l",): "stable-diffusion-v1",
    ("clip_h",): "stable-diffusion-v2-512",
    ("clip_g", "clip_l"): "stable-diffusion-xl-v1-base",
    ("clip_g", "clip_l", "t5xxl"): "stable-diffusion-3-medium",
    ("clip_l", "t5xxl"): "flux-1-dev",
}


def matches(contents: Contents) -> bool:
    """Whether every tensor is named for an encoder, or as the parameters of the only one."""
    names = {name.removesuffix(_OUT) for name in contents.shapes}
    return bool(names) and names <= {*_SINGLE, *keys()} and bool(names & contents.shapes.keys())


def load(contents: Contents) -> tuple[list[Concept], list[str]]:
    """Read the concept; what OneTrainer adds to an encoder's output is reported, not used."""
    rows, notes, ours = {}, [], keys()
    contents.count([name for name in contents.shapes if not name.endswith(_OUT)], 1)
    for name, shape in contents.shapes.items():
        if name.endswith(_OUT):
            notes.append(
                f"{name!r} {shape} is added to the text encoder's output by OneTrainer alone; it "
                "is not used here."
            )
            continue
        found = contents.rows(name)
        encoder = encoder_of_width(found.shape[1]) if name in _SINGLE else ours[name]
        if encoder in rows:
            raise FormatError(
                f"{contents.path} must hold rows once for each text encoder, got {name!r} and "
                f"others for {encoder}."
            )
        rows[encoder] = found
    names = [contents.fields.get(key) for key in _TITLES]
    token = next((name for name in names if isinstance(name, str) and name.strip()), None)
    provenance: dict[str, Any] = {"file": contents.path.name}
    step = contents.fields.get("step")
    if isinstance(step, int) or (isinstance(step, str) and re.fullmatch("[0-9]{1,9}", step)):
        provenance["steps"] = int(step)
    concept = Concept(
        placeholder_token=token_of(token or "", contents.path), rows=rows, provenance=provenance
    )
    return [concept], notes


def save(concepts: Sequence[Concept], path: Path) -> list[Path]:
    """Write the file that kohya's scripts, ComfyUI, Forge, SD.Next and A1111 (SDXL) load.

    Raises:
        FormatError: there are several concepts; the file has room for one.
    """
    if len(concepts) != 1:
        raise FormatError(
            f"A kohya file holds one word, got {len(concepts)}; write one file for each."
        )
    concept = concepts[0].detached()
    names = sorted(concept.rows)
    tensors = {
        name if len(names) > 1 or is_named_alone(name) else "emb_params": (
            concept.rows[name].contiguous()
        )
        for name in names
    }
    architecture = _ARCHITECTURES.get(tuple(names), "unknown")
    steps = concept.provenance.get("steps")
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/textual-inversion",
        "modelspec.implementation": "diffusers",
        "modelspec.title": concept.placeholder_token,
        "modelspec.trigger_phrase": concept.placeholder_token,
        "modelspec.description": json.dumps(
            {k: concept.provenance[k] for k in ("base_model", "initializer_token", "steps")
             if k in concept.provenance}, default=str
        ),
    }  # fmt: skip
    if steps is not None:
        metadata["step"] = str(steps)
    write_atomic(path, safetensors.torch.save(tensors, metadata))
    return [path]
