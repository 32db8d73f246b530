"""Attention over few tokens and group norms of a bf16 or fp16 model on a CPU, in float32.

CPUs with instructions for bf16 multiply its matrices in half the time of float32, but go back
through attention over few tokens in up to ten times the time, and through group norms in four.
Over many tokens attention is faster in bf16, and keeps less.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


_FEW = 512**2  # pairs of a query and a key; the two types break even between 512 and 768 of each


def widened(backbone: Any) -> AbstractContextManager[Any]:
    """Inside, a narrow model on a CPU trains in float32 where that is faster.

    A backward pass that computes layers again does so outside of function modes; there memory
    comes before time, and all stays narrow.
    """
    is_narrow = backbone.device.type == "cpu" and backbone.dtype in (torch.bfloat16, torch.float16)
    recomputes = getattr(getattr(backbone, "config", None), "gradient_checkpointing", True)
    return _Widened() if is_narrow and not recomputes else nullcontext()


class _Widened(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.group_norm or (
            func is F.scaled_dot_product_attention and _few(*args, **kwargs)
        ):
            given = args[0] if args else next(iter(kwargs.values()))
            wide = func(*map(_wide, args), **{name: _wide(x) for name, x in kwargs.items()})
            return wide.to(given.dtype)
        return func(*args, **kwargs)


def _few(query: Tensor, key: Tensor, *_: Any, **__: Any) -> bool:
    return query.shape[-2] * key.shape[-2] <= _FEW


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.is_floating_point() else x
