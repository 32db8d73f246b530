"""What several settings must hold, by the same rule and in the same words."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from oneword.errors import require


_SEEDS = range(-(2**63), 2**64)  # what a torch generator takes
_MOST_SEEDS = 10_000  # of one drawing; more is a slip of the hand


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


def seeds_of(texts: Sequence[str]) -> tuple[int, ...]:
    """Seeds that are written as numbers and ranges, in their order.

    Args:
        texts: Such as "3" or "0-7", which is eight seeds.

    Raises:
        ConfigError: one is neither, is out of range, or is named twice; or there are too many.
    """
    found: list[int] = []
    for text in texts:
        number, pair = re.fullmatch(r"-?\d+", text), re.fullmatch(r"(\d+)-(\d+)", text)
        require(
            (number or pair) is not None and len(text) <= 50,
            f"seeds must be numbers or ranges, such as 1 2 3 or 0-7, got {text[:60]!r}.",
        )
        first, last = map(int, pair.groups()) if pair else (int(text), int(text))
        require(first <= last, f"A range of seeds must go from low to high, got {text!r}.")
        check_seeds(first)
        check_seeds(last)
        require(
            len(found) + last - first < _MOST_SEEDS,
            f"seeds must list at most {_MOST_SEEDS} seeds, got more with {text!r}.",
        )
        found += range(first, last + 1)
    twice = [seed for seed, count in Counter(found).items() if count > 1]
    require(not twice, f"seeds must list each seed once, got {(twice or [0])[0]} twice.")
    return tuple(found)


def seeds_drawn(config: Any) -> tuple[int, ...]:
    """The seeds that a drawing's settings ask for, by ``seeds`` or by ``seed`` and how many.

    Raises:
        ConfigError: both are given, or one cannot be used.
    """
    if not config.seeds:
        check_seeds(config.seed, max(1, config.num_images_per_prompt))
        return tuple(range(config.seed, config.seed + config.num_images_per_prompt))
    for field in dataclasses.fields(config):
        if field.name in ("seed", "num_images_per_prompt"):
            given = getattr(config, field.name)
            option = "--" + field.name.replace("_", "-")
            require(
                given == field.default,
                f"Cannot use --seeds with {option} {given} because each sets the seeds; leave one "
                "of them out.",
            )
    return seeds_of(config.seeds)


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


def check_step_rules(scheduler: str | None, rules: str) -> None:
    """Refuse factors on the rate that cannot be read, or that no course asks for.

    Args:
        scheduler: Name of the course; ``None``: the preset's.
        rules: As diffusers writes them, "factor:step" with commas between, and a last factor.

    Raises:
        ConfigError: they are missing, out of place, or not written so.
    """
    if scheduler != "piecewise_constant":
        require(
            not rules,
            f"lr_step_rules must be used with lr_scheduler piecewise_constant, got {rules!r} with "
            f"{scheduler or 'the scheduler of the preset'}; leave one of them out.",
        )
        return
    *pairs, last = rules.split(",")
    found = [re.fullmatch(rf"\s*({_FACTOR}):(\d{{1,9}})\s*", pair) for pair in pairs]
    steps = [int(pair[2]) for pair in found if pair]
    require(
        len(steps) == len(pairs)
        and re.fullmatch(rf"\s*{_FACTOR}\s*", last) is not None
        and all(a < b for a, b in zip([0, *steps], steps, strict=False)),
        "lr_step_rules must be FACTOR:STEP pairs in rising order of steps, then a last factor, "
        f'such as "1:100,0.1:200,0.01", got {rules[:60]!r}.',
    )


_FACTOR = r"(?:\d{1,9}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][-+]?\d{1,2})?"
