"""Grids: one or two settings of a drawing, each with several values."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oneword.errors import ConfigError, require


AXES = {
    "guidance": "guidance_scale",
    "guidance_scale": "guidance_scale",
    "steps": "num_inference_steps",
    "num_inference_steps": "num_inference_steps",
    "sampler": "sampler",
    "checkpoint": "checkpoint",
    "model": "model",
}
"""What an axis may be called, and what it changes: a setting of the drawing, the word's file
("checkpoint", such as those of several steps of a training), or the base model."""
_NUMBERS = {"guidance_scale": float, "num_inference_steps": int}
_MOST = 50  # values of an axis


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting, with the values that it takes from left to right or from top to bottom."""

    name: str
    """As it was asked for, such as "guidance"."""
    setting: str
    """What it changes, one of the values of ``AXES``."""
    values: tuple[Any, ...]

    def label(self, value: Any) -> str:
        """One of its values in words: "guidance=7.5"."""
        return f"{self.name}={value:g}" if isinstance(value, float) else f"{self.name}={value}"


def axes_of(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Axes that are written as "guidance=2,5,8".

    Raises:
        ConfigError: there are more than two, one is of another form, or a value is none or is
            there twice.
    """
    require(len(texts) <= 2, f"--grid must have one or two axes, got {len(texts)}.")
    found: list[Axis] = []
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip().replace("-", "_")
        values = [value.strip() for value in _split(listed) if value.strip()]
        require(
            bool(equals and values),
            f"A grid axis must be NAME=VALUE,VALUE,..., such as guidance=2,5,8, got {text!r}.",
        )
        if name not in AXES:
            near = difflib.get_close_matches(name, AXES, 1)
            also = f"; did you mean {near[0]}?" if near else "."
            raise ConfigError(f"A grid axis must be one of {', '.join(AXES)}, got {name!r}{also}")
        setting = AXES[name]
        numbers = tuple(_number(value, name, setting) for value in values)
        twice = next((v for i, v in enumerate(numbers) if v in numbers[:i]), None)
        require(
            twice is None, f"A grid axis must list each value once, got {twice} twice in {text!r}."
        )
        require(
            len(numbers) <= _MOST,
            f"A grid axis must have at most {_MOST} values, got {len(numbers)}.",
        )
        require(
            all(setting != axis.setting for axis in found),
            f"The grid axes must differ, got {name!r} twice.",
        )
        found.append(Axis(name, setting, numbers))
    return tuple(found)


def axis_text(name: str, values: Sequence[object]) -> str:
    """An axis as :func:`axes_of` reads it.

    Args:
        name: The axis, such as "checkpoint".
        values: What it takes.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return f"{name}={line.getvalue()}"


def _split(listed: str) -> list[str]:
    """The values of an axis; one with a comma is in double quotes."""
    try:
        return [value for row in csv.reader([listed], skipinitialspace=True) for value in row]
    except csv.Error as error:
        raise ConfigError(f"A grid axis must be NAME=VALUE,VALUE,..., got {error}.") from error


def _number(text: str, name: str, setting: str) -> Any:
    kind = _NUMBERS.get(setting, str)
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"The values of {name} must be {what}, got {text!r}.")
    return value
