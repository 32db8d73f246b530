"""Files that name text encoders: kohya, ComfyUI, Forge, OneTrainer, invoke-training, ai-toolkit.

``emb_params`` (OneTrainer: ``emp_params``) for models with one encoder; ``clip_l``, ``clip_g``,
``t5xxl`` (or ``t5``) for those with several, and so for language models (``qwen3_4b``);
``text_encoders_0`` and ``_1`` in cog's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch

from oneword._files import FormError, check, parsed
from oneword.concepts.concept import Concept
from oneword.concepts.formats.contents import Contents, FormatError
from oneword.concepts.formats.names import encoder_of_width, is_named_alone, keys, token_of


_SINGLE = ("emb_params", "emp_params")
_OUT = "_out"
_TITLES = ("modelspec.trigger_phrase", "modelspec.title", "name")
_DESCRIPTION = "modelspec.description"
_ARCHITECTURES = {
    ("clip_l",): "stable-diffusion-v1",
    ("clip_h",): "stable-diffusion-v2-512",
    ("clip_g", "clip_l"): "stable-diffusion-xl-v1-base",
    ("clip_g", "clip_l", "t5xxl"): "stable-diffusion-3-medium",
    ("clip_l", "t5xxl"): "flux-1-dev",
}


def matches(contents: Contents) -> bool:
    """Whether every tensor is named after an encoder, or is a parameter of the only one."""
    names = {name.removesuffix(_OUT) for name in contents.shapes}
    return bool(names) and names <= {*_SINGLE, *keys()} and bool(names & contents.shapes.keys())


def load(contents: Contents) -> tuple[list[Concept], list[str]]:
    """Read the concept; OneTrainer's additions to an encoder's output are reported and not used."""
    rows, notes, ours = {}, [], keys()
    contents.count([name for name in contents.shapes if not name.endswith(_OUT)], 1)
    for name, shape in contents.shapes.items():
        if name.endswith(_OUT):
            notes.append(
                f"{name!r} {shape} is not used here: only OneTrainer adds it to the text "
                "encoder's output."
            )
            continue
        found = contents.rows(name)
        encoder = encoder_of_width(found.shape[1]) if name in _SINGLE else ours[name]
        if encoder in rows:
            raise FormatError(
                f"{contents.path} must have one embedding per text encoder, got {name!r} and "
                f"others for {encoder}."
            )
        rows[encoder] = found
    names = [contents.fields.get(key) for key in _TITLES]
    token = next((name for name in names if isinstance(name, str) and name.strip()), None)
    provenance: dict[str, Any] = {"file": contents.path.name}
    step = contents.fields.get("step")
    if isinstance(step, int) or (isinstance(step, str) and re.fullmatch("[0-9]{1,9}", step)):
        provenance["steps"] = int(step)
    provenance |= _described(contents.fields.get(_DESCRIPTION))
    concept = Concept(
        placeholder_token=token_of(token or "", contents.path), rows=rows, provenance=provenance
    )
    return [concept], notes


def _described(text: object) -> dict[str, Any]:
    """The base model, if this package wrote the description."""
    try:
        found = check(parsed(text), {"base_model": str}) if isinstance(text, str) else {}
    except FormError:
        return {}
    return {name: found[name] for name in ("base_model",) if name in found}


@dataclass(frozen=True, slots=True)
class _Tool:
    """What a tool accepts: a key for each text encoder, in files for these encoders."""

    name: str
    alone: str
    """Key of the rows of a word for one text encoder."""
    sets: tuple[frozenset[str], ...] = ()
    """Text encoders that a word for several encoders may have."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of encoders for which the tool has other names."""
    any_encoder: bool = False
    """Whether it accepts any encoders, each under its own name."""
    widths: tuple[int, ...] = ()
    """Accepted widths of a word for one encoder; empty: any."""
    named: frozenset[str] = frozenset()
    """Encoders that keep their key even if they are the only one."""


_XL = frozenset({"clip_l", "clip_g"})
_TOOLS = {
    # comfy/sd1_clip.py looks for each encoder's key, and otherwise takes a file's first tensor
    "comfyui": _Tool("ComfyUI", "emb_params", any_encoder=True),
    # train_textual_inversion.py takes the first tensor, its sibling for XL the two keys
    "kohya": _Tool("kohya", "emb_params", (_XL,)),
    # backend/text_processing/textual_inversion.py: one key, or the two of XL
    "forge": _Tool("Forge", "emb_params", (_XL,)),
    # configs/textual_inversion.py tells the model by the last dimension, of these three
    "invokeai": _Tool("InvokeAI", "emb_params", (_XL,), widths=(768, 1024)),
    # modules/modelSetup reads "emp_params" (sic) and its own names
    "onetrainer": _Tool(
        "OneTrainer",
        "emp_params",
        (_XL, _XL | {"t5xxl"}, frozenset({"clip_l", "t5xxl"}), _XL | {"t5xxl", "llama"},
         frozenset({"clip_l", "llama"})),
        {"t5xxl": "t5"},
        named=frozenset({"t5xxl", "gemma", "llama"}),
    ),
}  # fmt: skip


def _keys(concept: Concept, tool: _Tool) -> dict[str, str]:
    """Key in the file by text encoder.

    Raises:
        FormatError: the tool has no form for such a word.
    """
    names = frozenset(concept.rows)
    if len(names) == 1:
        ((name, rows),) = concept.rows.items()
        if name in tool.named or (tool.any_encoder and is_named_alone(name)):
            return {name: tool.keys.get(name, name)}
        fits = tool.any_encoder or not is_named_alone(name)
        if fits and (not tool.widths or rows.shape[1] in tool.widths):
            return {name: tool.alone}
    elif tool.any_encoder or names in tool.sets:
        return {name: tool.keys.get(name, name) for name in names}
    got = ", ".join(f"{name} of width {concept.rows[name].shape[1]}" for name in sorted(names))
    several = " or ".join(" + ".join(sorted(one)) for one in tool.sets)
    widths = f" of width {' or '.join(map(str, tool.widths))}" if tool.widths else ""
    raise FormatError(
        f"Cannot write {concept.placeholder_token!r} for {tool.name} because it takes a word for "
        f"one CLIP encoder{widths}, or for {several}, and this word is for {got}; use another "
        "tool's layout."
    )


def files_for(tool: str) -> Callable[[Sequence[Concept], Path], dict[Path, bytes]]:
    """The writer for one tool; see ``_TOOLS``."""
    return partial(_files, _TOOLS[tool])


def _files(tool: _Tool, concepts: Sequence[Concept], path: Path) -> dict[Path, bytes]:
    """The file that a tool loads.

    Raises:
        FormatError: there are several concepts, or the tool has no form for these encoders.
    """
    if len(concepts) != 1:
        raise FormatError(
            f"A file for {tool.name} must contain one word, got {len(concepts)}; write one file "
            "for each."
        )
    concept = concepts[0].detached()
    names = sorted(concept.rows)
    keys = _keys(concept, tool)
    tensors = {keys[name]: concept.rows[name].contiguous() for name in names}
    architecture = _ARCHITECTURES.get(tuple(names), "unknown")
    steps = concept.provenance.get("steps")
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/textual-inversion",
        "modelspec.implementation": "diffusers",
        "modelspec.title": concept.placeholder_token,
        "modelspec.trigger_phrase": concept.placeholder_token,
        _DESCRIPTION: json.dumps(
            {k: concept.provenance[k] for k in ("base_model", "initializer_token", "steps")
             if k in concept.provenance}, default=str
        ),
    }  # fmt: skip
    if steps is not None:
        metadata["step"] = str(steps)
    return {path: safetensors.torch.save(tensors, metadata)}
