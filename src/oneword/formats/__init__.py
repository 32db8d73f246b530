"""Files of learned words: one module per format, found by looking into the file."""

from __future__ import annotations

from pathlib import Path

from oneword.concept import Concept
from oneword.config import UserError
from oneword.formats import diffusers_file


class FormatError(UserError):
    """A file is not an embedding that can be read."""


FORMATS = {"diffusers": diffusers_file}
"""By name; each module has ``matches(path)``, ``load(path, placeholder_token)``, ``save``."""
LEARNED = "learned_embeds.safetensors"


def sniff(path: Path) -> str:
    """Name of the format of a file.

    Raises:
        FormatError: the file is missing, damaged, or of no known format.
    """
    if not path.exists():
        raise FormatError(f"The concept file must exist, got {path}; check the path.")
    for name, module in FORMATS.items():
        if module.matches(path):
            return name
    raise FormatError(
        f"{path} must be an embedding in safetensors form ({{token: (num_vectors, dim)}}), got "
        "something else or a damaged file."
    )


def load(path: Path | str, placeholder_token: str | None = None) -> Concept:
    """Read a concept from a file, or from a run folder.

    Args:
        path: File, or folder that holds ``learned_embeds.safetensors``.
        placeholder_token: Another word for it than the file says.

    Raises:
        FormatError: there is no such file, or it holds no embedding.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / LEARNED).is_file():
            raise FormatError(
                f"The folder {path} must hold {LEARNED}, got none; has its training finished?"
            )
        path = path / LEARNED
    return FORMATS[sniff(path)].load(path, placeholder_token)


def save(concept: Concept, path: Path | str) -> None:
    """Write a concept in the native form, atomically."""
    diffusers_file.save(concept, Path(path))
