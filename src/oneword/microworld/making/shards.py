"""Latents on disk, in shards of many pictures that are made once and skipped where they exist."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def path_of(folder: Path, index: int) -> Path:
    """The file of a shard."""
    return folder / f"latents-{index:04d}.safetensors"


def missing(folder: Path, num_shards: int) -> list[int]:
    """Indices of the shards that are not there yet."""
    return [i for i in range(num_shards) if not path_of(folder, i).exists()]


def make(
    folder: Path,
    num_shards: int,
    shard: Callable[[int], Mapping[str, Tensor] | None],
    *,
    metadata: dict[str, str] | None = None,
    rank: int = 0,
    num_processes: int = 1,
    on_shard: Callable[[int], bool] | None = None,
) -> None:
    """Make this process's part of the shards that are missing, each written atomically.

    Args:
        folder: Where they lie.
        num_shards: Of all processes together.
        shard: The tensors of one; None: time is up.
        metadata: Kept in every file.
        rank: Which process this is.
        num_processes: How many share the work.
        on_shard: Called after each; whether to end.
    """
    for index in range(rank, num_shards, num_processes):
        path = path_of(folder, index)
        if path.exists():
            continue
        tensors = shard(index)
        if tensors is None:
            return
        part = path.with_suffix(".part")
        save_file({n: t.contiguous() for n, t in tensors.items()}, part, metadata=metadata)
        os.replace(part, path)
        if on_shard is not None and on_shard(index):
            return
