"""Models without weights, for counting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


_only_shapes: ContextVar[bool] = ContextVar("only_shapes", default=False)


@cache
def mode() -> FakeTensorMode:
    """The one mode in which tensors have a shape and no memory."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Inside, models are loaded with shapes and no numbers: they take neither memory nor time."""
    before = _only_shapes.set(True)
    try:
        yield
    finally:
        _only_shapes.reset(before)


def has_shapes_alone() -> bool:
    """Whether models that are loaded now have no numbers."""
    return _only_shapes.get()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def without_weights(
    kind: type[Any], source: str, *, dtype: torch.dtype, revision: str | None, **options: Any
) -> Any:
    """A pipeline whose models are made from their configurations, with shapes alone."""
    entries = kind.load_config(source, revision=revision)
    parts: dict[str, Any] = {}
    for name, entry in entries.items():
        if not isinstance(entry, list) or not all(entry) or name in options:
            continue
        made: Any = simple_get_class_obj(entry[0], entry[1])
        if nn.Module not in made.__mro__:
            continue
        where = {"subfolder": name, "revision": revision}
        with mode(), _default_dtype(dtype):
            if hasattr(made, "load_config"):
                module = made.from_config(made.load_config(source, **where))
            else:
                settings = made.config_class.from_pretrained(source, **where)
                if made.__name__ == "T5GemmaEncoder":  # a part, stored with the whole's settings
                    settings = settings.encoder
                module = made(settings)
            parts[name] = module.requires_grad_(False)
    return kind.from_pretrained(source, revision=revision, **(parts | options))
