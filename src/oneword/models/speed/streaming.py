"""Weights read tensor by tensor, so that a file in another type is never in memory as a whole.

diffusers and transformers map a file and keep the map until the last of its tensors has been cast:
the pages that were read count as the process's memory in addition to the copies. And the C library
keeps what a cast has freed, in gaps that the next tensor does not fit.
"""

from __future__ import annotations

import ctypes
import json
import platform
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models import model_loading_utils, modeling_utils
from safetensors import safe_open
from torch import Tensor
from transformers import modeling_utils as transformers_utils


_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
"""Of safetensors, those that weights have."""
_TRIM, _MAP = -1, -3  # of malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_MIB = 2**20


@contextmanager
def returning_memory() -> Iterator[None]:
    """Inside, memory of a tensor that is freed goes back to the system at once, under glibc.

    Outside it stays with the process, as it does of itself after the first large tensors: to fetch
    it anew costs more than the small work of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MAP, _MIB)
    try:
        yield
    finally:
        mallopt(_MAP, 32 * _MIB)  # the largest that glibc takes
        mallopt(_TRIM, 64 * _MIB)


@contextmanager
def streamed() -> Iterator[None]:
    """Let diffusers' and transformers' models read safetensors files tensor by tensor."""
    original, mapped = model_loading_utils.load_state_dict, transformers_utils.safe_open

    def load(file: Any, *args: Any, **options: Any) -> Any:
        is_streamable = isinstance(file, (str, Path)) and str(file).endswith(".safetensors")
        return _Streamed(file) if is_streamable else original(file, *args, **options)

    def read(*args: Any, **options: Any) -> Any:
        if options.get("backend") == "mmap":
            options["backend"] = "pread"
        return mapped(*args, **options)

    modules: Iterable[Any] = (model_loading_utils, modeling_utils)
    for module in modules:
        module.load_state_dict = load
    transformers_utils.safe_open = read
    try:
        yield
    finally:
        transformers_utils.safe_open = mapped
        for module in modules:
            module.load_state_dict = original


class _Streamed(dict[str, Tensor | None]):
    """The tensors of a file by name; each is read when it is asked for, for whoever asks.

    The file's header is read once: with thousands of tensors it takes longer than one of them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        with safe_open(path, "pt") as file:  # which checks the header
            super().__init__(dict.fromkeys(file.keys()))
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            self.header, self.begin = json.loads(file.read(length)), 8 + length

    def __getitem__(self, name: str) -> Tensor:
        value = super().__getitem__(name)
        if value is not None:  # diffusers has renamed it
            return value
        own = self.header[name]
        dtype, (first, last) = _TYPES.get(own["dtype"]), own["data_offsets"]
        if dtype is None or first == last:
            with safe_open(self.path, "pt") as file:
                return file.get_tensor(name)
        # read, not mapped: a map for each tensor would soon be more than a process may have
        found = torch.empty(last - first, dtype=torch.uint8)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.begin + first)
            view, done = found.numpy().data, 0
            while done < len(view):
                got = file.readinto(view[done:])
                if not got:
                    raise OSError(f"{self.path} ends before its tensor {name} does")
                done += got
        return found.view(dtype).view(own["shape"])

    def get(self, name: str, default: Any = None) -> Any:
        """A tensor, if it is there."""
        if name not in self:
            return default
        return self[name]  # dict's own would give what stands for it

    def pop(self, name: str, *default: Any) -> Any:
        """Take a tensor out, as diffusers does with old names."""
        if name not in self:
            return super().pop(name, *default)
        value = self[name]
        del self[name]
        return value

    def values(self) -> Iterator[Tensor]:  # type: ignore[override]
        """The tensors, one after the other."""
        return (self[name] for name in self)

    def items(self) -> Iterator[tuple[str, Tensor]]:  # type: ignore[override]
        """Name and tensor, one after the other."""
        return ((name, self[name]) for name in self)
