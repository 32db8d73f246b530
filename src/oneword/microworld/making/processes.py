"""Work that is shared by CPU processes of one thread each: started together, gradients averaged."""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import datetime
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from multiprocessing.queues import SimpleQueue
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


_WAIT_S = 0.2
_PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for one that has work of its own."""


def launch(
    work: Callable[..., Any],
    job: tuple[Any, ...],
    num_processes: int,
    tell: Callable[..., None],
    *,
    patient: bool = False,
) -> Any:
    """Call ``work(rank, *job, tell)`` in some processes at once, or here where one is enough.

    Args:
        work: Function of a module.
        job: Its arguments, the same for every process.
        num_processes: How many.
        tell: Called in this process with what ``work`` passes on.
        patient: Whether ``work`` ends by itself when a signal asks for it, with ``Ending``; signals
            to this process are passed on then.

    Returns:
        What ``work`` returns, of one process; None of several.
    """
    if num_processes == 1:
        return work(0, *job, tell)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = torch.multiprocessing.get_context("spawn").SimpleQueue()
    started = torch.multiprocessing.spawn(
        _begin, (work, job, partial(_put, told), num_processes, port), nprocs=num_processes,
        join=False,
    )  # fmt: skip
    assert started is not None  # as they are not joined yet
    ended = False
    with Ending() if patient else nullcontext() as ending:
        passed_on = False
        while not ended:
            ended = started.join(timeout=_WAIT_S)
            while not told.empty():
                tell(*told.get())
            if ending is not None and ending.asked and not passed_on:
                passed_on = True
                for process in started.processes:
                    if process.pid is not None and process.is_alive():
                        os.kill(process.pid, signal.SIGTERM)
    return None


def _begin(
    rank: int,
    work: Callable[..., Any],
    job: tuple[Any, ...],
    tell: Callable[..., None],
    num_processes: int,
    port: int,
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_processes,
        timeout=_PATIENCE,
    )  # fmt: skip
    work(rank, *job, tell)
    dist.destroy_process_group()


def _put(told: SimpleQueue[Any], *progress: Any) -> None:
    """Pass progress on to the process that began the work."""
    told.put(progress)


class Ending:
    """Notes that SIGTERM or Ctrl-C asks for an end, which comes when the work allows it.

    A second signal does what it does without this.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Ending:
        """Begin to note; outside of the main thread nothing can be noted."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let signals do again what they did."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.asked = True
        signal.signal(number, self._before[number])


def any_of(flag: bool, num_processes: int) -> bool:
    """Whether a flag is set in any of the processes; all of them ask at once."""
    if num_processes == 1:
        return flag
    up = torch.tensor(float(flag))
    dist.all_reduce(up, dist.ReduceOp.MAX)
    return bool(up.item())


def average_gradients(parameters: Iterable[nn.Parameter], num_processes: int) -> None:
    """Put the mean of the processes' gradients in the place of each."""
    if num_processes == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch._utils._flatten_dense_tensors(grads)
    dist.all_reduce(flat)
    flat /= num_processes
    for grad, mean in zip(grads, torch._utils._unflatten_dense_tensors(flat, grads), strict=True):
        grad.copy_(mean)
