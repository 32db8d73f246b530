"""Files of diffusers: tensors under the placeholders themselves.

``{token: (dim,) | (1, dim) | (n, dim)}`` in safetensors or a pickle. The training script for Stable
Diffusion XL writes a pair, ``learned_embeds.safetensors`` and ``learned_embeds_2``. A LoRA is in a
separate file, for ``pipeline.load_lora_weights``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
from torch import Tensor

from oneword.concepts.concept import Concept
from oneword.concepts.deltas import is_lora
from oneword.concepts.formats.contents import Contents, FormatError, open_file
from oneword.concepts.formats.names import encoder_of_width, token_of


_MOST = 64  # words in one file; more are weights of something else
_XTI = {"IN01", "IN02", "MID"}  # keys of a file with one vector per layer


def matches(contents: Contents) -> bool:
    """Whether every tensor looks like rows of the same width under its own name."""
    shapes = contents.shapes
    if not 1 <= len(shapes) <= _MOST or shapes.keys() >= _XTI:
        return False
    flat = all(len(shape) in (1, 2) and 0 not in shape for shape in shapes.values())
    widths = {shape[-1] for shape in shapes.values() if shape}
    alone = len(shapes) == 1
    return flat and len(widths) == 1 and (alone or all(_is_token(name) for name in shapes))


def _is_token(name: str) -> bool:
    return name.startswith("<") and name.endswith(">")


def load(contents: Contents) -> tuple[list[Concept], list[str]]:
    """Read the words; a pair of files is read as one."""
    contents.count(contents.shapes, len(contents.shapes))
    rows = {name: contents.rows(name) for name in contents.shapes}
    more, notes = _other_half(contents.path, rows)
    found = []
    for name, own in rows.items():
        by_encoder = {encoder_of_width(own.shape[1]): own}
        if name in more:
            by_encoder[encoder_of_width(more[name].shape[1], second=True)] = more[name]
        found.append(
            Concept(
                placeholder_token=token_of(name, contents.path),
                rows=by_encoder,
                provenance={"file": contents.path.name},
            )
        )
    return found, notes


def _other_half(path: Path, rows: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rows of the second file of a pair, and a note about it.

    A file with such a name may also be another word's. It is the second half only if it holds the
    same words, with the same numbers of vectors, for another text encoder.
    """
    second = _second_file(path)
    if not second.is_file():
        return {}, []
    try:
        other = open_file(second)
        if other.shapes.keys() != rows.keys() or not matches(other):
            return {}, []
        other.count(other.shapes, len(other.shapes))
        more = {name: other.rows(name) for name in other.shapes}
    except FormatError:
        return {}, [f"{second.name}, next to it, cannot be read and is ignored."]
    for name, own in rows.items():
        encoders = (
            encoder_of_width(own.shape[1]),
            encoder_of_width(more[name].shape[1], second=True),
        )
        if len(own) != len(more[name]) or encoders[0] == encoders[1]:
            return {}, []
    return more, [f"{second.name} is read as well, as the other half of a pair."]


def _second_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}_2{path.suffix}")


def files(concepts: Sequence[Concept], path: Path) -> dict[Path, bytes]:
    """One file per text encoder: PATH, then PATH_2 and so on; a word's LoRA in PATH_lora.

    Raises:
        FormatError: two words differ only in case, which stock loaders cannot tell apart, or there
            are weight deltas that stock loaders cannot use.
    """
    lora = _lora_of(concepts)
    tokens = [c.placeholder_token.lower() for c in concepts]
    if len(set(tokens)) < len(tokens):
        raise FormatError(
            f"Words in a diffusers file must differ in lower case, got {', '.join(tokens)}; "
            "rename one with `oneword concept rename`."
        )
    parts: list[dict[str, Tensor]] = []
    for concept, token in zip(concepts, tokens, strict=True):
        for place, name in enumerate(sorted(concept.rows, key=_order)):
            if place == len(parts):
                parts.append({})
            parts[place][token] = concept.detached().rows[name].contiguous()
    if lora:
        parts.append(lora)
    return {
        one: safetensors.torch.save(tensors, {"format": "pt"})
        for one, tensors in zip(paths_of(concepts, path), parts, strict=True)
    }


def paths_of(concepts: Sequence[Concept], path: Path) -> list[Path]:
    """Paths of the files that :func:`files` makes."""
    count = max((len(concept.rows) for concept in concepts), default=0)
    halves = [path.with_name(f"{path.stem}_{i}{path.suffix}") for i in range(2, count + 1)]
    lora = [path.with_name(f"{path.stem}_lora{path.suffix}")]
    return [path, *halves, *(lora if any(concept.deltas for concept in concepts) else [])]


def _lora_of(concepts: Sequence[Concept]) -> dict[str, Tensor]:
    tuned = [concept for concept in concepts if concept.deltas]
    whole = [name for concept in tuned for name in concept.deltas if not is_lora(name)]
    if len(tuned) > 1 or whole:
        got = f"{len(whole)} whole deltas such as {whole[0]!r}" if whole else f"{len(tuned)} LoRAs"
        raise FormatError(
            f"A diffusers file must have at most one LoRA and no other weight deltas, got {got}; "
            "use the layout oneword, or extract the words first."
        )
    return {n: d.contiguous() for c in tuned for n, d in c.detached().deltas.items()}


_FIRST = ("clip_l", "clip_g", "t5xxl")


def _order(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)
