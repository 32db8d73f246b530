"""Everything that a loop needs to go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True)
class State:
    """Everything a loop needs to go on as if it had never stopped."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    """JSON-able."""


@runtime_checkable
class Checkpoint(Protocol):
    """Where the loop keeps its state."""

    steps: int
    """Steps of the loop between two calls of ``save``."""

    def load(self) -> State | None:
        """The state saved last, or ``None`` at a first start."""
        ...

    def save(self, state: State) -> None:
        """Keep a state; it must replace the one before in one instant, or not at all."""
        ...
