"""Files of learned words: the layouts in use are read, and the common ones are written.

The layout is recognised by the file's content, never by its name.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from oneword._files import is_there, visible, write_together
from oneword.concepts import hub
from oneword.concepts.concept import ROWS, Concept, check_drawable
from oneword.concepts.formats import bundle, by_encoder, by_token, native, string_to_param
from oneword.concepts.formats.contents import Contents, FormatError, open_file
from oneword.errors import UserError


LEARNED = hub.LEARNED
READERS = {
    "oneword": native,
    "bundle": bundle,
    "string_to_param": string_to_param,
    "by_encoder": by_encoder,
    "diffusers": by_token,
}
"""Layouts, in the order in which they are tried; each module has ``matches`` and ``load``."""
Layout = Literal[
    "oneword",
    "diffusers",
    "comfyui",
    "a1111",
    "forge",
    "kohya",
    "invokeai",
    "onetrainer",
    "authors",
]
WRITERS: dict[Layout, tuple[str, Callable[[Sequence[Concept], Path], dict[Path, bytes]]]] = {
    "oneword": (".safetensors", native.files),
    "diffusers": (".safetensors", by_token.files),
    "comfyui": (".safetensors", by_encoder.files_for("comfyui")),
    "a1111": (".pt", string_to_param.files_a1111),
    "forge": (".safetensors", by_encoder.files_for("forge")),
    "kohya": (".safetensors", by_encoder.files_for("kohya")),
    "invokeai": (".safetensors", by_encoder.files_for("invokeai")),
    "onetrainer": (".safetensors", by_encoder.files_for("onetrainer")),
    "authors": (".pt", string_to_param.files_authors),
}
"""Layouts that can be written, each as its tool loads it: file extension and writer."""
WITH_DELTAS = ("oneword", "diffusers")
"""Layouts that can hold weight deltas; diffusers' only a LoRA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFile:
    """The concepts found in a file."""

    path: Path
    layout: str
    """One of ``READERS``."""
    concepts: list[Concept]
    notes: list[str]
    """What else is in the file and is not used."""


def read(path: Path | str) -> EmbeddingFile:
    """Read every concept of a file, of a run folder, or of a repository of the Hub.

    Raises:
        FormatError: the file is missing or damaged, or has no embedding.
        HubError: the repository does not exist, or needs a token.
        ConceptError: rows are not finite, or do not match their checksum.
    """
    path = Path(path)
    if not is_there(path) and hub.is_repository(path.as_posix()):
        path = hub.fetch(path.as_posix())
    if path.is_dir():
        path = _in_folder(path)
    contents = open_file(path)
    for name, module in READERS.items():
        if module.matches(contents):
            concepts, notes = module.load(contents)
            return EmbeddingFile(path=path, layout=name, concepts=concepts, notes=notes)
    raise _unknown(contents)


def _in_folder(folder: Path) -> Path:
    """The word's file in a run folder, or in a folder with the layout of a Hub repository."""
    names = [path.name for path in visible(folder) if path.is_file()]
    found = hub.embeddings([name for name in names if name not in _OF_RUNS])
    if len(found) != 1 or (_OF_RUNS & {*names} and LEARNED not in names):
        raise FormatError(
            f"The folder {folder} must hold {LEARNED} or one embedding file, got "
            f"{', '.join(found) or 'none'}; has its training finished?"
        )
    return folder / found[0]


_OF_RUNS = {"state.safetensors", "metrics.jsonl"}


def _unknown(contents: Contents) -> FormatError:
    return FormatError(
        f"{contents.path} must be an embedding of a known layout, got {contents.describe()}."
    )


def load_all(path: Path | str) -> list[Concept]:
    """Every concept of a file or run folder; a warning says what is not used.

    Raises:
        FormatError: as for :func:`read`.
    """
    found = read(path)
    for note in found.notes:
        warnings.warn(f"{found.path}: {note}", stacklevel=2)
    return found.concepts


def load_concept(path: Path | str, placeholder_token: str | None = None) -> Concept:
    """Read the one concept of a file, of a run folder, or of a repository of the Hub.

    Args:
        path: File, folder with ``learned_embeds.safetensors``, or ``OWNER/NAME``.
        placeholder_token: Placeholder to use instead of the file's.

    Raises:
        FormatError: the file is missing, or has no embedding or several.
        HubError: the repository does not exist, or needs a token.
    """
    concepts = load_all(path)
    if len(concepts) != 1:
        words = ", ".join(c.placeholder_token for c in concepts)
        raise FormatError(
            f"{path} must contain one word here, got {len(concepts)} ({words}); split them with "
            "`oneword concept extract`."
        )
    if placeholder_token is None:
        return concepts[0]
    return dataclasses.replace(concepts[0], placeholder_token=placeholder_token)


def same(path: Path, other: Path) -> bool:
    """Whether two files hold the same tensors and fields, even if their bytes differ.

    Raises:
        FormatError: the first file is not one of ours.
    """
    first = open_file(path)
    try:
        second = open_file(other)
    except UserError:
        return False
    alike = (first.container, first.shapes, first.fields) == (
        second.container,
        second.shapes,
        second.fields,
    )
    return alike and all(torch.equal(first.read(n), second.read(n)) for n in first.shapes)


def to_type(concept: Concept, path: Path, layout: Layout) -> str:
    """The exact text to type for a word in a tool's prompt.

    Args:
        concept: The word.
        path: Its file.
        layout: The tool's.
    """
    return {
        "oneword": concept.placeholder_token,
        "diffusers": concept.placeholder_token.lower(),
        "comfyui": f"embedding:{path.stem}",
        "invokeai": f"<{path.stem}>",
        "authors": string_to_param.sign_of(0, concept.placeholder_token),
    }.get(layout, path.stem)


TOOLS: dict[Layout, str] = {
    "comfyui": "ComfyUI",
    "a1111": "A1111",
    "forge": "Forge",
    "kohya": "kohya's scripts",
    "invokeai": "InvokeAI",
    "onetrainer": "OneTrainer",
    "diffusers": "diffusers",
    "authors": "the paper's code",
}
"""Names of other tools, by layout."""


def save_concept(
    concepts: Concept | Sequence[Concept], path: Path | str, layout: Layout = "oneword"
) -> list[Path]:
    """Write concepts to files: all files or none.

    Args:
        concepts: One, or several for layouts that can hold several.
        path: The file. With the layout "diffusers", the second file for two encoders gets ``_2``
            before its extension, and the LoRA ``_lora``.
        layout: One of ``WRITERS``.

    Returns:
        Paths of the written files.

    Raises:
        FormatError, ConceptError: as for :func:`files_of`.
    """
    files = files_of(concepts, Path(path), layout)
    write_together(files)
    return [*files]


def files_of(
    concepts: Concept | Sequence[Concept], path: Path, layout: Layout = "oneword"
) -> dict[Path, bytes]:
    """What :func:`save_concept` would write, by path, without writing it.

    Raises:
        FormatError: the layout cannot hold these concepts.
        ConceptError: the layout is for a tool that draws, and a concept's rows are for a CLIP.
    """
    many = [concepts] if isinstance(concepts, Concept) else list(concepts)
    for concept in many if layout != "oneword" else ():
        check_drawable(concept.placeholder_token, concept.rows)
        if concept.kind != ROWS:
            raise FormatError(
                f"Cannot write {concept.placeholder_token!r} in the layout {layout} because no "
                f"other tool reads words of kind {concept.kind}; use the layout oneword."
            )
        if concept.deltas and layout not in WITH_DELTAS:
            raise FormatError(
                f"Cannot write {concept.placeholder_token!r} in the layout {layout} because it "
                f"cannot hold its {len(concept.deltas)} weight deltas; use "
                f"{' or '.join(WITH_DELTAS)}."
            )
    return WRITERS[layout][1](many, Path(path))
