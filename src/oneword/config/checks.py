"""What several settings must hold, by the same rule and in the same words."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from typing import Any

from oneword.errors import require


_SEEDS = range(-(2**63), 2**64)  # what a torch generator takes


def check_seeds(first: int, num: int = 1, *, least: int = _SEEDS.start) -> None:
    """Refuse seeds that no random generator takes.

    Args:
        first: The seed.
        num: How many are used, from the first on.
        least: The lowest that may be.

    Raises:
        ConfigError: one is out of range.
    """
    more = "" if num == 1 else f" and the {num - 1} after it"
    require(
        least <= first and first + num - 1 < _SEEDS.stop,
        f"seed{more} must be in {least}..{_SEEDS.stop - 1}, got {first}.",
    )


def check_finite(config: Any) -> None:
    """Refuse numbers of a dataclass that are not finite, in tuples too.

    Raises:
        ConfigError: one is NaN or infinite.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(one, float) or math.isfinite(one)
            require(finite, f"{field.name} must be a finite number, got {one}.")


def check_placeholder(token: str, name: str = "The placeholder token", hint: str = "") -> None:
    """Refuse a new word that cannot stand in a prompt.

    Args:
        token: The word.
        name: How the message calls it.
        hint: What to do, at the end of the message.

    Raises:
        ConfigError: it is empty, or holds spaces, control characters or "{}".
    """
    require(
        bool(token) and not any(c.isspace() for c in token),
        f"{name} must be non-empty and without spaces, got {token!r}{hint}.",
    )
    require(
        not any(unicodedata.category(c) in ("Cc", "Cs") for c in token),
        f"{name} must be text without control characters, got {token!r}{hint}.",
    )
    require("{}" not in token, f"{name} must not contain '{{}}', got {token!r}.")
