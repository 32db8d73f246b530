"""A model's weights come from the disk while the libraries that will want them load."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from oneword.config.model import EMBEDDED, ModelConfig


_SHARE = 0.5  # of the memory that is free: what does not fit would only push out what was read


def read_ahead(model: ModelConfig) -> threading.Thread | None:
    """Ask the system to read the weights of a model on this machine into its cache.

    Args:
        model: Which model; one of the hub that is not here yet is left alone.

    Returns:
        The thread that asks; ``None``: this system cannot be asked, or there is nothing to read.
    """
    if not hasattr(os, "posix_fadvise") or model.model in EMBEDDED:
        return None
    files, room = [], _SHARE * psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # the loader says what is wrong with it
        for path in _weights(model):
            room -= path.stat().st_size
            if room < 0:
                break
            files.append(path)
    if not files:
        return None
    thread = threading.Thread(target=_ask, args=(files,), daemon=True)
    thread.start()
    return thread


def _ask(files: list[Path]) -> None:
    for path in files:
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _weights(model: ModelConfig) -> Iterator[Path]:
    """The files that the loader will read: those of the variant, or those of none."""
    path = Path(model.model)
    if path.is_file():
        yield path
        return
    folder = path if path.is_dir() else _cached(model)
    for file in sorted(folder.glob("*/*.safetensors")):
        variant = file.name.split(".")[1:-1]
        if file.is_file() and variant == ([model.variant] if model.variant else []):
            yield file


def _cached(model: ModelConfig) -> Path:
    """Where the hub's client keeps a model's files."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    own = cache / f"models--{model.model.replace('/', '--')}"
    revision = model.revision or "main"
    name = own / "refs" / revision
    return own / "snapshots" / (name.read_text().strip() if name.is_file() else revision)
