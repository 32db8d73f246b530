"""Settings from the plain values that a record holds."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from oneword.errors import ConfigError


T = TypeVar("T")


def restored(kind: type[T], plain: Mapping[str, Any]) -> T:
    """A dataclass of settings from JSON's values; what the class does not know is left out.

    Args:
        kind: The dataclass; its fields may be dataclasses themselves, paths and tuples.
        plain: Values by field, as ``dataclasses.asdict`` and JSON leave them.

    Raises:
        ConfigError: a value is none that the class takes.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)} & plain.keys()  # pyright: ignore
    try:
        return kind(**{name: _value(hints[name], plain[name]) for name in known})
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"The settings must be those of a {kind.__name__}, got: {error}."
        ) from error


def _value(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r} instead of a {hint.__name__}")
        return restored(hint, value)
    if hint is Path:
        return Path(value)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, one) for one in value)
    return value
