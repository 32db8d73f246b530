"""What is found out while the libraries load: a model's files, and whether there is a network."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from oneword.config.model import AUTO, ModelConfig, is_embedded


AWAY = threading.Event()
"""Set where the Hub was looked for and its name is not known."""
_SHARE = 0.5  # of the memory that is free: what does not fit would only push out what was read


def read_ahead(model: ModelConfig) -> threading.Thread | None:
    """Ask the system to read the weights of a model on this machine into its cache.

    Args:
        model: Which model; one of the hub that is not here yet is left alone.

    Returns:
        The thread that asks; ``None``: this system cannot be asked, or there is nothing to read.
    """
    if not hasattr(os, "posix_fadvise") or is_embedded(model.model):
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


_BY_NAME = ("judge", "dino", "guide", "caption_with", "mask_with", "clip", "variations")
"""Settings that may name something on the Hub, besides the model."""


def look_for_hub(chosen: Any) -> threading.Thread | None:
    """Find out whether the Hub can be reached; where it cannot, nothing waits for it.

    Nothing is looked up for a command that needs nothing from there.

    Without a network its client tries each file again and again, for minutes. Where its name is not
    known to the system, only files that are on this machine are used, as with ``HF_HUB_OFFLINE=1``.

    Args:
        chosen: The command's options.

    Returns:
        The thread that looks; ``None``: the command needs nothing from there, a proxy knows the
        name, or the user has decided it.
    """
    model = getattr(chosen, "model", None)
    model = model.model if isinstance(model, ModelConfig) else AUTO
    named = not (is_embedded(model) or model == AUTO) or any(
        getattr(chosen, n, None) for n in _BY_NAME
    )
    if not named or "HF_HUB_OFFLINE" in os.environ or urllib.request.getproxies():
        return None
    thread = threading.Thread(target=_look, daemon=True)
    thread.start()
    return thread


def _look() -> None:
    host = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        AWAY.set()
        os.environ["HF_HUB_OFFLINE"] = "1"  # for the client that is not loaded yet, and for workers
        if client := sys.modules.get("huggingface_hub.constants"):
            vars(client)["HF_HUB_OFFLINE"] = True


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
