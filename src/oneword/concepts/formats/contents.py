"""The contents of an untrusted file of any container: names, shapes, small fields, tensors.

A container is safetensors, a pickle (through ``_pickle``) or a picture with a text chunk. A file is
opened once. Numbers and sizes are checked before a tensor is read, types and finiteness before one
is used.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from oneword._files import FormError, open_regular, parsed
from oneword.concepts.formats._pickle import (
    MAX_BYTES,
    PickleError,
    View,
    is_pickle,
    load as load_pickle,
    opened,
)
from oneword.errors import UserError
from oneword.images import ImageError, open_picture


class FormatError(UserError):
    """A file is not a readable embedding, or a concept does not fit a format."""


MAX_VECTORS = 1024
MAX_DIM = 16_384
MAX_WORDS = 8192
"""Most words of one file."""
MAX_NUMBERS = 2**27
"""Most numbers in the rows of all words of a file together."""
_MAX_FILE = 2**40  # bytes; of a file that bundles a word with weights, only the word is read
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
    """Shape of every tensor, by its dotted path in the file."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Everything small that is not a tensor: strings, numbers, safetensors metadata."""
    read: Callable[[str], Tensor]

    def count(self, names: Iterable[str], words: int) -> None:
        """Check sizes before a reader takes anything.

        Args:
            names: Tensors that it will read, repeated if read several times.
            words: How many words they are.

        Raises:
            FormatError: there are more words or numbers than any embedding has, or one tensor is to
                be read for several.
        """
        often = Counter(iter(names))
        numbers = sum(math.prod(self.shapes.get(name, ())) for name in often)
        if words > MAX_WORDS or numbers > MAX_NUMBERS:
            raise FormatError(
                f"{self.path} must hold at most {MAX_WORDS} words of {MAX_NUMBERS} numbers "
                f"together, got {words} words of {numbers} numbers."
            )
        twice = [name for name, count in often.items() if count > 1]
        if twice:
            raise FormatError(
                f"{self.path} must hold a tensor for each word and encoder, got {twice[0]!r} for "
                f"{often[twice[0]]} of them."
            )

    def rows(self, name: str) -> Tensor:
        """A tensor as (num_vectors, dim) float32 rows; one dimension is one vector.

        Raises:
            FormatError: the tensor is not a matrix of floats, or is larger than any embedding.
        """
        if name not in self.shapes:
            raise FormatError(f"{self.path} must hold a tensor {name!r} of floats, got none.")
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
        """Container, names and shapes in a sentence for messages."""
        listed = [f"{name!r} {shape}" for name, shape in self.shapes.items()]
        more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        tensors = ", ".join(listed[:_LISTED]) or "none"
        others = [repr(name) for name in self.fields][:_LISTED]
        beside = f", next to {', '.join(others)}" if others else ""
        return f"a {self.container} with the tensors {tensors}{more}{beside}"


def open_file(path: Path) -> Contents:
    """Open a file by its first bytes, whatever its name.

    Raises:
        FormatError: the file is missing, damaged, too large, or not a known container.
    """
    must = "The concept file must exist and be readable"
    with open_regular(path, most=_MAX_FILE, must=must, error=FormatError) as file:
        head, size = file.read(16), file.seek(0, 2)
    try:
        if head[8:9] == b"{":
            return _safetensors(path, int.from_bytes(head[:8], "little"), size)
        if head.startswith(b"\x89PNG"):
            return _picture(path)
        if is_pickle(head):
            return _flattened(path, "pickle", load_pickle(_small(path, size)))
    except PickleError as error:
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


def _small(path: Path, size: int) -> bytes:
    if size > MAX_BYTES:
        raise FormatError(
            f"{path} must be an embedding of at most {MAX_BYTES >> 20} MiB, got "
            f"{size >> 20} MiB; is it a whole model?"
        )
    return path.read_bytes()


def _safetensors(path: Path, header_size: int, size: int) -> Contents:
    if header_size > min(_MAX_HEADER, size):
        raise FormatError(
            f"{path} must have a header of at most {_MAX_HEADER} bytes that lies in the file, got "
            f"one that claims {header_size}; the file is damaged."
        )
    # left open as long as somebody may read: opened again for each tensor, a file with many tensors
    # would take hours
    file = safetensors.safe_open(path, framework="pt").__enter__()
    names = file.keys()
    if len(names) > _MAX_TENSORS:
        raise FormatError(f"{path} must hold at most {_MAX_TENSORS} tensors, got {len(names)}.")
    shapes = {}
    for name in names:
        piece = file.get_slice(name)
        if piece.get_dtype() in _FLOATS:
            shapes[name] = tuple(piece.get_shape())
    fields = dict(file.metadata() or {})
    return Contents(
        path=path, container="safetensors", shapes=shapes, fields=fields, read=file.get_tensor
    )


def _picture(path: Path) -> Contents:
    try:
        text = getattr(open_picture(path), "text", {}).get(_TEXT_CHUNK)
    except ImageError as error:
        raise FormatError(f"{path} must be a whole picture, got a damaged one: {error}") from error
    if text is None:
        raise FormatError(
            f"A picture must carry an embedding in a text chunk {_TEXT_CHUNK!r}, got {path} "
            "without one."
        )
    if len(text) > _MAX_TEXT:
        raise FormatError(f"The text in {path} must be under {_MAX_TEXT} bytes, got {len(text)}.")
    try:
        return _flattened(path, "picture", _tensors(parsed(base64.b64decode(text))))
    except FormError as error:
        raise FormatError(
            f"The text in {path} must be JSON, got something else ({error})."
        ) from error


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"TORCHTENSOR"}:
            return torch.tensor(value["TORCHTENSOR"])
        return {name: _tensors(inner) for name, inner in value.items()}
    return value


def _flattened(path: Path, container: str, tree: Any) -> Contents:
    tensors: dict[str, Tensor | View] = {}
    fields: dict[str, Any] = {}
    steps = 0

    def walk(value: Any, name: str, depth: int) -> None:
        # parts shared by dicts are visited each time they are reached, so steps are counted
        nonlocal steps
        steps += 1
        if steps > _MAX_TENSORS or depth > _MAX_DEPTH:
            raise FormatError(f"{path} must be an embedding, got something much larger or deeper.")
        value = opened(value)
        if isinstance(value, Tensor | View):
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
    shapes = {name: tuple(value.shape) for name, value in tensors.items() if _is_float(value)}

    def read(name: str) -> Tensor:
        value = tensors[name]
        return value if isinstance(value, Tensor) else value.tensor()

    return Contents(path=path, container=container, shapes=shapes, fields=fields, read=read)


def _is_float(value: Tensor | View) -> bool:
    dtype = value.dtype if isinstance(value, Tensor) else value.storage.dtype
    return dtype.is_floating_point
