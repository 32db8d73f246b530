"""Pickles of embeddings, read without running them.

A pickle is a program. This is an interpreter for the part that builds dicts, lists, strings,
numbers and tensors. Any other class or function is refused as soon as it is named, and nothing is
ever imported or called. Tensors stay views on bytes until they are needed, so that sizes are
checked before memory is allocated.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


MAX_BYTES = 256 * 2**20
"""Most bytes of a file, packed or not; an embedding has thousands of numbers, not millions."""
_MAX_NUMBER = 2**24  # elements that one tensor of the file may claim
_MAX_CALLS = 8192  # objects that a file may build; an embedding builds a few
_MAX_STEPS = 2**18  # instructions; an embedding's have hundreds
_MAX_ENTRIES = 4096  # of an archive
_MAX_DIMENSIONS = 8
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
_DICT = "collections.OrderedDict"
_SETS = {"builtins.set", "builtins.frozenset"}
_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_TYPED = "torch._tensor._rebuild_from_type_v2"
_PARAMETER_DICT = "torch.nn.modules.container.ParameterDict"
_KNOWN = {_DICT, *_SETS, *_TENSORS, *_PARAMETERS, _TYPED, _PARAMETER_DICT, "torch.Size"}
_KNOWN |= {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.storage.UntypedStorage"}
_KNOWN |= {f"torch.{name}" for name in (*_STORAGES, "float32", "float16", "bfloat16", "float64")}


class PickleError(Exception):
    """A pickle that is refused; the text continues after the file's name."""


@dataclass(slots=True, eq=False)
class Storage:
    """Numbers in a file that have not been read yet."""

    dtype: torch.dtype
    key: str
    count: int
    data: bytes = b""
    _flat: Tensor | None = None

    def flat(self) -> Tensor:
        """All of them, read once."""
        if self._flat is None:
            self._flat = torch.frombuffer(bytearray(self.data), dtype=self.dtype)
        return self._flat


@dataclass(slots=True, eq=False)
class View:
    """A tensor that has not been made yet: positions in a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """The tensor; it shares its bytes with others of its storage."""
        if not math.prod(self.shape):
            return torch.empty(self.shape, dtype=self.storage.dtype)
        return self.storage.flat().as_strided(self.shape, self.stride, self.offset)


@dataclass(slots=True, eq=False)
class _Named:
    """A class or function with one of the known names."""

    name: str


@dataclass(slots=True, eq=False)
class _ParameterDict:
    """Stands in for the ``ParameterDict`` of the paper's files."""

    state: Any = None


def is_pickle(head: bytes) -> bool:
    """Whether a file with this beginning is a pickle, or a zip archive as PyTorch writes it."""
    return head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and 2 <= head[1] <= 5)


def load(data: bytes) -> Any:
    """The object in a pickle: :class:`View`, strings and numbers in dicts and lists.

    The first bytes tell which of the two containers it is, as in PyTorch; an archive after a pickle
    is ignored.

    Raises:
        PickleError: the pickle is too large, or names something that an embedding does not need.
    """
    return _from_archive(data) if data.startswith(b"PK\x03\x04") else _from_stream(data)


def _from_archive(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > MAX_BYTES or len(entries) > _MAX_ENTRIES:
            raise PickleError(
                f"must unpack to at most {MAX_BYTES >> 20} MiB in {_MAX_ENTRIES} entries, got an "
                f"archive that claims {total >> 20} MiB in {len(entries)}."
            )
        names = [entry.filename for entry in entries]
        pickles = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise PickleError(
                f"must be an archive of PyTorch's with one data.pkl, got {len(pickles)} of them "
                f"among {len(names)} entries."
            )
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise PickleError("must be of a little-endian machine, got another order of bytes.")
        storages: dict[str, Storage] = {}
        found = _object(io.BytesIO(archive.read(pickles[0])), storages)
        for storage in storages.values():
            name = f"{folder}data/{storage.key}"
            if name not in names:
                raise PickleError(f"must hold its tensors' numbers, got none at {name!r}.")
            storage.data = archive.read(name)
    return _filled(found, storages)


def _from_stream(data: bytes) -> Any:
    """The container of PyTorch before 1.6: pickles one after the other, then the numbers."""
    stream = io.BytesIO(data)
    magic = _run(stream, _no_storage)
    if magic != _LEGACY_MAGIC:
        return magic  # a pickle of Python's own
    _run(stream, _no_storage)
    system = _run(stream, _no_storage)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise PickleError("must be of a little-endian machine, got another order of bytes.")
    storages: dict[str, Storage] = {}
    found = _object(stream, storages)
    for key in _run(stream, _no_storage):
        count = int.from_bytes(stream.read(8), "little")
        storage = storages.get(key)
        if storage is None or count != storage.count:
            raise PickleError(f"must hold its tensors' numbers, got others for {key!r}.")
        storage.data = stream.read(count * storage.dtype.itemsize)
    return _filled(found, storages)


def _object(stream: io.BytesIO, storages: dict[str, Storage]) -> Any:
    def storage_of(name: Any) -> Storage:
        if not (isinstance(name, tuple) and len(name) >= 5 and name[0] == "storage"):
            raise PickleError(
                "must be without source code, got a module pickled by PyTorch before 1.6; save it "
                "again with a newer one."
            )
        _, kind, key, _, count, *view = name
        dtype = _STORAGES.get(kind.name.removeprefix("torch."), torch.uint8)
        if not (isinstance(key, str) and _is_count(count)) or any(view):
            raise PickleError("must name its tensors' numbers plainly, got something else.")
        if storages.setdefault(key, Storage(dtype, key, count)).dtype is not dtype:
            raise PickleError(f"must give each number one type, got two for {key!r}.")
        return storages[key]

    return _run(stream, storage_of)


def _filled(found: Any, storages: dict[str, Storage]) -> Any:
    for storage in storages.values():
        if len(storage.data) < storage.count * storage.dtype.itemsize:
            raise PickleError(
                f"must hold its tensors' numbers, got {len(storage.data)} bytes for "
                f"{storage.count} of {storage.dtype}."
            )
    return found


def _no_storage(name: Any) -> Storage:
    raise PickleError(f"must begin as PyTorch writes it, got the tensor {name!r} too early.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER


_PUSH = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING",
    "STRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
}


def _run(stream: io.BytesIO, storage_of: Callable[[Any], Storage]) -> Any:
    """What one pickle builds.

    Source:
        The instructions as Python's ``pickletools`` documents them.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # what is below each mark
    memo: dict[Any, Any] = {}
    calls = 0

    def above_mark() -> list[Any]:
        nonlocal stack
        inner, stack = stack, below.pop()
        return inner

    for steps, (code, argument, _) in enumerate(pickletools.genops(stream)):
        name = code.name
        calls += name in ("REDUCE", "NEWOBJ", "BUILD", "BINPERSID")
        if calls > _MAX_CALLS or steps > _MAX_STEPS:
            what = f"{calls} objects" if calls > _MAX_CALLS else f"{steps} instructions"
            raise PickleError(f"must be a small embedding, got a pickle of {what} or more.")
        _check_number(argument)
        if name in _PUSH:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            inner = above_mark()
            stack.append(tuple(inner) if name == "TUPLE" else inner)
        elif name == "DICT":
            inner = above_mark()
            stack.append(_put({}, inner))
        elif name in ("SETITEM", "SETITEMS"):
            inner = [stack.pop(-2), stack.pop()] if name == "SETITEM" else above_mark()
            _put(stack[-1], inner)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            inner = [stack.pop()] if name == "APPEND" else above_mark()
            _a_list(stack[-1]).extend(inner)
        elif name == "GLOBAL":
            stack.append(_named(*str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            inner = stack.pop(-2), stack.pop()
            stack.append(_named(*map(str, inner)))
        elif name in ("REDUCE", "NEWOBJ"):
            inner = stack.pop()
            stack.append(_built(stack.pop(), inner))
        elif name == "BUILD":
            inner = stack.pop()
            if isinstance(stack[-1], _ParameterDict):
                stack[-1].state = inner
        elif name == "BINPERSID":
            stack.append(storage_of(stack.pop()))
        elif name == "STOP":
            return stack.pop()
        else:
            raise PickleError(
                f"must hold tensors, strings and numbers only, got the pickle instruction {name}."
            )
    raise PickleError("must be a whole pickle, got one without an end.")


def _check_number(argument: Any) -> None:
    """Refuse larger numbers: no embedding has such sizes, and they could collide as keys."""
    if isinstance(argument, int) and abs(argument) > _MAX_NUMBER and argument != _LEGACY_MAGIC:
        raise PickleError(
            f"must be a small embedding, got a pickle that claims the size {argument}."
        )


def _put(target: Any, pairs: list[Any]) -> dict[Any, Any]:
    if not isinstance(target, dict):
        raise PickleError("must put names into dicts only, got another object.")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, str | int):
            raise PickleError(f"must have strings for names, got a {type(key).__name__}.")
        target[key] = value
    return target


def _a_list(target: Any) -> list[Any]:
    if not isinstance(target, list):
        raise PickleError("must append to lists only, got another object.")
    return target


def _named(module: str, name: str) -> _Named:
    full = f"{module.replace('__builtin__', 'builtins')}.{name}"
    if full not in _KNOWN:
        raise PickleError(
            f"must hold tensors, strings and numbers only, got the pickled {full[:200]}, which "
            "could run code; ask its author for a safetensors file."
        )
    return _Named(full)


def _built(what: Any, arguments: Any) -> Any:
    """The result of calling one of the known names."""
    name = what.name if isinstance(what, _Named) else ""
    if not isinstance(arguments, tuple):
        raise PickleError("must call with arguments, got something else.")
    # nothing is copied here, or many calls could each copy one long list
    if name == _DICT and not arguments:
        return {}
    if name in _SETS or name == "torch.Size":
        return arguments[0] if arguments else []
    if name in _TENSORS:
        return _view(*arguments[:4])
    if name in _PARAMETERS:
        return arguments[0]
    if name == _TYPED:
        return _built(arguments[0], arguments[2])
    if name == _PARAMETER_DICT:
        return _ParameterDict()
    raise PickleError(
        f"must hold tensors, strings and numbers only, got a call of {name or type(what).__name__}."
    )


def _view(storage: Any, offset: Any, shape: Any, stride: Any) -> View:
    """A tensor with all of its positions inside its storage."""
    lists = isinstance(shape, list | tuple) and isinstance(stride, list | tuple)
    plain = lists and isinstance(storage, Storage) and len(shape) == len(stride) <= _MAX_DIMENSIONS
    if not plain or not all(map(_is_count, (offset, *shape, *stride))):
        raise PickleError("must describe its tensors plainly, got something else.")
    shape, stride = tuple(shape), tuple(stride)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if math.prod(shape) and last >= storage.count:
        raise PickleError(
            f"must hold its tensors' numbers, got the size {shape} over {storage.count} numbers."
        )
    return View(storage, offset, shape, stride)


def opened(value: Any) -> Any:
    """The dict of parameters inside the paper's class; anything else unchanged."""
    if not isinstance(value, _ParameterDict):
        return value
    found = value.state.get("_parameters") if isinstance(value.state, dict) else None
    return found if isinstance(found, dict) else {}
