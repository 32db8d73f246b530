"""A denoiser that trains through ``torch.compile``, and without it if the results differ."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


_TOLERANCE = {torch.float32: 1e-2}  # TF32 rounds to a thousandth
_NARROW_TOLERANCE = 0.1


class Compiled:
    """Stands for a denoiser: compiled in training, at one shape, and the plain module elsewhere.

    The shape is that of the first batch which asks for gradients; drawing, scoring and batches of
    another size are plain, so that nothing is compiled twice. On a GPU the step is recorded as CUDA
    graphs. That first batch goes both ways, backward too: compilers have lost gradients in silence
    (``docs/log/log.md``), so that a compiled step is taken only where it agrees with the plain one.
    Otherwise, or where compilation fails, a warning says so and training is plain.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.is_plain = False
        self._shapes: Any = None
        self._fast: Callable[..., Any] = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_plain or not torch.is_grad_enabled():
            return self.module(*args, **kwargs)
        shapes = _shapes(args, kwargs)
        if self._shapes is None:
            self._shapes = shapes
            self._compile(args, kwargs)
        if self.is_plain or shapes != self._shapes:
            return self.module(*args, **kwargs)
        return self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return self._fast(*args, **kwargs)

    def _compile(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        on_gpu = self.module.device.type == "cuda"
        self._fast = torch.compile(
            self.module, dynamic=False, mode="reduce-overhead" if on_gpu else "default"
        )
        plain = _outcome(self.module, args, kwargs)
        try:
            fast = _outcome(self._run, args, kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # dynamo, the code generator and the C++ compiler each raise their own kinds
            lines = str(error).strip().splitlines()
            self._give_up(f"it failed ({type(error).__name__}: {lines[0][:200] if lines else ''})")
            return
        tolerance = _TOLERANCE.get(plain[0].dtype, _NARROW_TOLERANCE)
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(fast, plain, strict=True)]
        if not all(error <= tolerance for error in errors):
            worst = max(errors, key=lambda e: (e != e, e))
            self._give_up(f"its numbers differ from the uncompiled step by {worst:.2g} (relative)")

    def _give_up(self, reason: str) -> None:
        self.is_plain = True
        self._fast = self.module
        warnings.warn(
            f"The denoiser is not compiled because {reason}; training continues without it, more "
            "slowly (to hide this, pass --compile off).",
            stacklevel=4,
        )


@contextmanager
def aside(backbone: Any) -> Iterator[None]:
    """Inside, the denoiser is plain: for trials of another shape, and for weights that change."""
    denoiser = getattr(backbone, "denoiser", None)
    if not isinstance(denoiser, Compiled):
        yield
        return
    before, denoiser.is_plain = denoiser.is_plain, True
    try:
        yield
    finally:
        denoiser.is_plain = before


def _shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    leaves, structure = pytree.tree_flatten((args, kwargs))
    kinds = [
        (tuple(x.shape), x.dtype, x.requires_grad) if isinstance(x, Tensor) else x for x in leaves
    ]
    return kinds, structure


def _outcome(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Tensor]:
    """What a call returns, and the gradients of its inputs against a fixed direction."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    leaves = [
        x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in leaves
    ]
    args, kwargs = pytree.tree_unflatten(leaves, structure)
    output = function(*args, **kwargs).sample
    trained = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(output, trained, direction.to(output)) if trained else ()
    return [output.detach().clone(), *(g.detach().clone() for g in gradients)]
