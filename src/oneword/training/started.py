"""How this process was started: alone, or by a launcher as one of several.

torchrun, and therefore ``accelerate launch``, starts a command several times and numbers the
processes in environment variables. Nothing here imports torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Started:
    """One process among several, as its launcher counts them."""

    rank: int
    """Index of this process, from 0."""
    count: int
    """Number of processes on all machines."""
    local_rank: int
    """Index on its machine, from 0."""
    local_count: int
    """Number of processes on its machine."""


def started() -> Started | None:
    """The launcher's information about this process; ``None`` if it was started alone."""
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
