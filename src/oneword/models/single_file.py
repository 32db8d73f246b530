"""Single files of weights: read without running anything in them, and put whole into a module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffusers.loaders import single_file_utils
from torch import Tensor, nn


def read(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors``, ``.ckpt`` or ``.pt`` file, by their names in it.

    Raises:
        Exception: diffusers' loader raises many kinds; ``reason_of`` puts them into words.
    """
    return single_file_utils.load_single_file_checkpoint(str(path))  # pyright: ignore


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a module on the meta device, each in its place.

    Raises:
        ValueError: one is missing, is one too many or has another size.
    """
    try:
        module.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(" ".join(lines)[:300]) from error
