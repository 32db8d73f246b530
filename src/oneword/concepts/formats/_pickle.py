"""Pickles of embeddings, opened with PyTorch's restricted unpickler and nothing else.

The one place that may call ``torch.load``: always ``weights_only``, with one class added that the
paper's files need. Sizes are looked at before anything is built.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch


MAX_BYTES = 256 * 2**20
"""Of a file, and of what it unpacks to; an embedding has thousands of numbers, not millions."""
_MAX_NUMBER = 2**24  # elements that one tensor of the file may claim
_MAX_CALLS = 8192  # objects that a file may build; an embedding builds a few
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 4  # magic number, protocol, system, the object


class PickleError(Exception):
    """A pickle that is not opened; the text goes on after the file's name."""


class _ParameterDict:
    """Stands in for the ``ParameterDict`` of the paper's files: its values, none of its code."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


_STAND_INS: list[Any] = [
    (_ParameterDict, "torch.nn.modules.container.ParameterDict"),
]


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle, or a zip archive as PyTorch writes it."""
    return head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and 2 <= head[1] <= 5)


def load(path: Path) -> Any:
    """The object in a pickle: tensors, strings and numbers in dicts and lists.

    Raises:
        PickleError: it is too large, or names something that an embedding does not need.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise PickleError(
            f"must be an embedding of at most {MAX_BYTES >> 20} MiB, got {size >> 20} MiB; is it a "
            "whole model?"
        )
    if zipfile.is_zipfile(path):
        _check_archive(path)
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                _check_pickle(file)
    try:
        with (
            path.open("rb") as file,  # by its name torch would take it for safetensors
            torch.serialization.safe_globals(_STAND_INS),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # old files name storages of old
            found = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:
        if "persistent_load" in str(error):
            raise PickleError(
                "must be without source code, got a module pickled by PyTorch before 1.6; save it "
                "again with a newer one."
            ) from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise PickleError(
                f"must hold tensors, strings and numbers only, got the pickled {named[1]}, which "
                "could run code; ask its author for a safetensors file."
            ) from error
        raise
    return _plain(found)


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        if total > MAX_BYTES:
            raise PickleError(
                f"must unpack to at most {MAX_BYTES >> 20} MiB, got an archive that claims "
                f"{total >> 20} MiB."
            )
        for entry in archive.infolist():
            if entry.filename.endswith("data.pkl"):
                with archive.open(entry) as file:
                    _check_pickle(file)


def _check_pickle(file: BinaryIO | Any) -> None:
    """Refuse a pickle that claims more than an embedding has, before anything is allocated."""
    calls = 0
    for code, argument, _ in pickletools.genops(file):
        calls += code.name in ("REDUCE", "NEWOBJ", "BUILD", "BINPERSID")
        number = argument if isinstance(argument, int) else 0
        if calls > _MAX_CALLS or (number > _MAX_NUMBER and number != _LEGACY_MAGIC):
            raise PickleError(
                "must be a small embedding, got a pickle that claims "
                + (f"{calls} objects or more." if calls > _MAX_CALLS else f"the size {number}.")
            )


def _plain(value: Any, depth: int = 0) -> Any:
    """Put dicts in the place of stand-ins; deeper than any embedding is left alone."""
    if isinstance(value, _ParameterDict):
        found = getattr(value, "state", {}).get("_parameters", {})
        return dict(found) if isinstance(found, dict) else {}
    if isinstance(value, dict) and depth < 8:
        return {key: _plain(inner, depth + 1) for key, inner in value.items()}
    return value
