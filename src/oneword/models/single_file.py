"""Single files of weights: read without running anything in them, and loaded completely."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from diffusers.loaders import single_file_utils
from torch import Tensor, nn
from torch.serialization import safe_globals


class _Callback:
    """Stands for the class by which Lightning's files name a callback; nothing comes of it."""


_CALLBACKS: list[Any] = [
    (_Callback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
]


def reading_lightnings() -> AbstractContextManager[None]:
    """While it lasts, a pickle that names Lightning's class for checkpoints is read as well.

    Files of training by Lightning 1 (the first Stable Diffusions, taming's autoencoders) name it
    beside the weights; PyTorch's safe reader refuses every class that it does not know.
    """
    return safe_globals(_CALLBACKS)  # pyright: ignore[reportReturnType]


def read(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors``, ``.ckpt`` or ``.pt`` file, by their names in it.

    Raises:
        Exception: diffusers' loader raises many kinds; ``reason_of`` puts them into words.
    """
    with reading_lightnings():
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
