"""Processes that share a run: each takes some of a step's samples, and gradients are summed.

Every process runs the same loop with the same draws. Everything that a decision depends on
(gradients, losses on the fixed batch, requests to stop, exceptions) is combined first, so that all
decide the same: they have the same rows after each step and end at the same step. Only the first
process writes files, previews and messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from oneword._devices import device_of
from oneword.errors import ConfigError, UserError, why
from oneword.training.started import Started


T = TypeVar("T")
_PATIENCE = timedelta(hours=2)  # the first process may draw or upload
_FINE, _ASKED, _FAILED = range(3)


class ProcessError(UserError):
    """Another process of a run has failed or is gone."""


class Processes:
    """The processes of a run, from the view of one. Every method must be called in all of them.

    Args:
        rank: Index of this process, from 0.
        count: Number of processes.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, size: int) -> range:
        """This process's samples; shares differ by at most one."""
        return range(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums over all processes, on the device, of tensors with the same shapes in all.

        Raises:
            ProcessError: another process is gone.
        """
        if self.count == 1:
            return list(tensors)
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        with _noticed():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """The maximum of each number over all processes.

        Raises:
            ProcessError: another process is gone.
        """
        if self.count == 1 or not numbers:
            return list(numbers)
        found = torch.tensor(numbers)
        with _noticed():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def from_first(self, value: T) -> T:
        """The value in the first process; it must be picklable.

        Raises:
            ProcessError: another process is gone.
        """
        if self.count == 1:
            return value
        told: list[Any] = [value if self.is_first else None]
        with _noticed():
            dist.broadcast_object_list(told)
        return told[0]

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """Raise in all processes what one of them raises inside the block, when the block ends.

        Inside, no process may wait for the others.

        Raises:
            ProcessError: something was raised in another process, or one is gone.
            KeyboardInterrupt: it was raised in a process, and nothing worse in any.
        """
        if self.count == 1:
            yield
            return
        raised: Exception | KeyboardInterrupt | None = None
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            raised = error
        failed = why(raised) if isinstance(raised, Exception) else None
        own = _FINE if raised is None else _ASKED if failed is None else _FAILED
        (worst,) = self.highest([own])
        if worst == _FINE:
            return
        if worst == _FAILED:
            told: list[Any] = [None] * self.count
            with _noticed():
                dist.all_gather_object(told, failed)
            if failed is None:
                rank, text = next((r, text) for r, text in enumerate(told) if text is not None)
                raise ProcessError(f"Process {rank} of {self.count} failed: {text}")
        raise raised or KeyboardInterrupt


ALONE = Processes()
"""A run in one process."""


@contextlib.contextmanager
def _noticed() -> Iterator[None]:
    """Turn torch's various errors about a lost process into one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            "Another process of this run ended too early, which ended the run. To resume from the "
            "last checkpoint, run the same command again."
        ) from error


def check_device(device: str, count: int) -> torch.device:
    """The device on which this machine's processes can train.

    Args:
        device: As for ``ModelConfig``.
        count: Number of processes on this machine.

    Raises:
        ModelError: there is no such device.
        ConfigError: the device is for a single process, or there are fewer GPUs than processes.
    """
    found = device_of(device)  # without a tensor there, which would use memory of the first GPU
    if found.type not in ("cpu", "cuda") or found.index is not None:
        raise ConfigError(
            f"Cannot use several processes on the device {str(found)!r} because they need CUDA's "
            "GPUs, one each, or the CPU; pass --device cuda or cpu, or leave out --num-processes."
        )
    if found.type == "cuda" and count > torch.cuda.device_count():
        raise ConfigError(
            "num_processes must be at most the number of GPUs, "
            f"{torch.cuda.device_count()}, got {count}."
        )
    return found


@contextlib.contextmanager
def joined(started: Started | None, device: str = "auto") -> Iterator[Processes]:
    """Join the other processes of a run, through torch.distributed.

    Gradients on GPUs are summed by NCCL, everything else by Gloo, which notices at once when a
    process is gone.

    Args:
        started: From the launcher; ``None``: this process is alone.
        device: As for ``ModelConfig``; "cuda" is then the GPU with this process's number.

    Yields:
        The processes; they part at the end of the block.

    Raises:
        UserError: as for ``check_device``.
    """
    if started is None:
        yield ALONE
        return
    backend = "gloo"
    if check_device(device, started.local_count).type == "cuda":
        torch.cuda.set_device(started.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        init_method="env://",
        rank=started.rank,
        world_size=started.count,
        timeout=_PATIENCE,
    )
    try:
        yield Processes(started.rank, started.count)
    finally:
        dist.destroy_process_group()
