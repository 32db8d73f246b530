"""What can be used in prompts: a concept, or a word that is being learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from oneword.errors import UserError


class PlaceholderError(UserError):
    """A placeholder cannot be used with this model or in this prompt."""


@runtime_checkable
class Word(Protocol):
    """What can be injected: a concept, or a word that is being learned, whose tensors change."""

    @property
    def placeholder_token(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def num_vectors(self) -> int: ...
    @property
    def rows(self) -> Mapping[str, Tensor]: ...
    @property
    def tensors(self) -> Mapping[str, Tensor]: ...
    @property
    def provenance(self) -> Mapping[str, Any]: ...
