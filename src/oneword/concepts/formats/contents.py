"""What a file of any container holds, opened without trust: names, shapes, small fields, tensors.

A container is safetensors, a pickle (through ``_pickle``) or a picture with a text chunk. Sizes are
checked before a tensor is read, kinds and finiteness before it is used.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from oneword.concepts.formats import _pickle
from oneword.errors import UserError


class FormatError(UserError):
    """A file is not an embedding that can be read, or a concept does not fit a format."""


MAX_VECTORS = 1024
MAX_DIM = 16_384
_MAX_HEADER = 16 * 2**20  # bytes of a safetensors header; a whole model's is under two million
_MAX_TEXT = 32 * 2**20  # bytes of a picture's text chunk
_MAX_DEPTH = 6
_MAX_TENSORS = 65_536
_FLOATS = ("F64", "F32", "F16", "BF16")
_LISTED = 12  # entries that an error message names
_TEXT_CHUNK = "sd-ti-embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """An opened file."""

    path: Path
    container: str
    """"safetensors", "pickle" or "picture"."""
    shapes: dict[str, tuple[int, ...]]
    """Of every tensor, by its dotted place in the file."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Everything small that is no tensor: strings, numbers, safetensors metadata."""
    read: Callable[[str], Tensor]

    def rows(self, name: str) -> Tensor:
        """A tensor as (num_vectors, dim) float32 rows; one dimension is one vector.

        Raises:
            FormatError: it is no matrix of floats, or larger than any embedding.
        """
        shape = self.shapes[name]
        flat = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
        num, dim = flat if len(flat) == 2 else (1, *flat) if len(flat) == 1 else (0, 0)
        if not (1 <= num <= MAX_VECTORS and 1 <= dim <= MAX_DIM):
            raise FormatError(
                f"An embedding must be 1 to {MAX_VECTORS} vectors of up to {MAX_DIM} numbers, got "
                f"{name!r} of shape {shape} in {self.path}."
            )
        found = self.read(name)
        if not found.is_floating_point():
            raise FormatError(
                f"An embedding must be of floats, got {name!r} of {found.dtype} in {self.path}."
            )
        return found.detach().to(torch.float32).reshape(num, dim).contiguous()

    def describe(self) -> str:
        """Container, names and shapes in one sentence, for messages."""
        listed = [f"{name!r} {shape}" for name, shape in self.shapes.items()]
        more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        tensors = ", ".join(listed[:_LISTED]) or "none"
        others = [repr(name) for name in self.fields][:_LISTED]
        beside = f", beside {', '.join(others)}" if others else ""
        return f"a {self.container} with the tensors {tensors}{more}{beside}"


def open_file(path: Path) -> Contents:
    """Open a file by what it begins with, whatever its name ends with.

    Raises:
        FormatError: it is missing, damaged, too large, or of no known container.
    """
    if not path.is_file():
        raise FormatError(f"The concept file must exist, got {path}; check the path.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise FormatError(f"{path} must be readable, got: {error.strerror}.") from error
    try:
        if head[8:9] == b"{":
            return _safetensors(path, int.from_bytes(head[:8], "little"))
        if head.startswith(b"\x89PNG"):
            return _picture(path)
        if _pickle.is_pickle(head):
            return _flattened(path, "pickle", _pickle.load(path))
    except _pickle.PickleError as error:
        raise FormatError(f"{path} {error}") from error
    except UserError:
        raise
    except Exception as error:
        # what a damaged or hostile file raises inside three libraries has no common type
        raise FormatError(
            f"{path} must be a whole embedding file, got a damaged one "
            f"({type(error).__name__}: {str(error)[:200]})."
        ) from error
    raise FormatError(
        f"{path} must be an embedding in safetensors, PyTorch (.pt, .bin) or PNG form, got a file "
        f"that begins with {head[:8]!r}."
    )


def _safetensors(path: Path, header_size: int) -> Contents:
    if header_size > min(_MAX_HEADER, path.stat().st_size):
        raise FormatError(
            f"{path} must have a header of at most {_MAX_HEADER} bytes that lies in the file, got "
            f"one that claims {header_size}; the file is damaged."
        )
    with safetensors.safe_open(path, framework="pt") as file:
        shapes = {}
        for name in file.keys():  # noqa: SIM118  (not a mapping)
            piece = file.get_slice(name)
            if piece.get_dtype() in _FLOATS:
                shapes[name] = tuple(piece.get_shape())
        fields = dict(file.metadata() or {})

    def read(name: str) -> Tensor:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    return Contents(path=path, container="safetensors", shapes=shapes, fields=fields, read=read)


def _picture(path: Path) -> Contents:
    from PIL import Image

    with Image.open(path) as picture:
        text = getattr(picture, "text", {}).get(_TEXT_CHUNK)
    if text is None:
        raise FormatError(
            f"A picture must carry an embedding in a text chunk {_TEXT_CHUNK!r}, got {path} "
            "without one."
        )
    if len(text) > _MAX_TEXT:
        raise FormatError(f"The text in {path} must be under {_MAX_TEXT} bytes, got {len(text)}.")
    return _flattened(path, "picture", _tensors(json.loads(base64.b64decode(text))))


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"TORCHTENSOR"}:
            return torch.tensor(value["TORCHTENSOR"])
        return {name: _tensors(inner) for name, inner in value.items()}
    return value


def _flattened(path: Path, container: str, tree: Any) -> Contents:
    tensors: dict[str, Tensor] = {}
    fields: dict[str, Any] = {}

    def walk(value: Any, name: str, depth: int) -> None:
        if len(tensors) + len(fields) > _MAX_TENSORS or depth > _MAX_DEPTH:
            raise FormatError(f"{path} must be an embedding, got something much larger or deeper.")
        if isinstance(value, Tensor):
            if value.layout == torch.strided and value.device.type == "cpu":
                tensors[name] = value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key), depth + 1)
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                walk(inner, f"{name}.{index}" if name else str(index), depth + 1)
        elif isinstance(value, str | int | float | bool):
            fields[name] = value

    walk(tree, "", 0)
    floats = {n: t for n, t in tensors.items() if t.is_floating_point()}
    shapes = {name: tuple(tensor.shape) for name, tensor in floats.items()}
    return Contents(
        path=path, container=container, shapes=shapes, fields=fields, read=floats.__getitem__
    )
