"""Tiny pipelines by their family's name, each with what the contract's tests must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oneword.catalog import FAMILIES


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A tiny pipeline of a family, or of a variant of it."""

    family: str
    make: Callable[..., Any]
    draws: tuple[str, ...]
    """What a drawing may start from."""
    unguided: float | None
    """Guidance with which its pipeline asks the denoiser once a step; None: that of its default."""
    own_latents: bool
    """Scaled by channel, or not at all, as its own tests say."""
    own_times: bool
    """The denoiser is not told the noise level."""


PIPELINES: dict[str, Tiny] = {}
"""Every one by its name: the family's, or family_variant."""


def register(
    family: str,
    variant: str = "",
    *,
    draws: tuple[str, ...] = (),
    unguided: float | None = 1.0,
    own_latents: bool = False,
    own_times: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function that makes a pipeline; what it draws is its record's, unless it says so."""

    def enter(make: Callable[..., Any]) -> Callable[..., Any]:
        PIPELINES[f"{family}_{variant}" if variant else family] = Tiny(
            family=family,
            make=make,
            draws=draws or FAMILIES[family].draws,
            unguided=unguided,
            own_latents=own_latents,
            own_times=own_times,
        )
        return make

    return enter
