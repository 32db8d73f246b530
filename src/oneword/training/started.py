"""How this process was started: alone, or by a launcher as one of several.

torchrun, and with it ``accelerate launch``, starts a command several times and tells each process
by environment variables which one it is. Nothing here imports torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Started:
    """One process among several, as its launcher counts them."""

    rank: int
    """Which it is, from 0."""
    count: int
    """How many there are on all machines."""
    local_rank: int
    """Which it is on its machine, from 0."""
    local_count: int
    """How many there are on its machine."""


def started() -> Started | None:
    """What the launcher says of this process; ``None``: it was started alone."""
    told = os.environ
    if not all(told.get(name) for name in _TOLD) or int(told["WORLD_SIZE"]) < 2:
        return None
    rank, count = int(told["RANK"]), int(told["WORLD_SIZE"])
    return Started(
        rank=rank,
        count=count,
        local_rank=int(told.get("LOCAL_RANK", rank)),
        local_count=int(told.get("LOCAL_WORLD_SIZE", count)),
    )
