"""Threads that leave a busy machine's cores to others and do not spin while they wait.

The threads of a CPU's matrix product meet at a barrier. OpenMP lets the first to arrive spin there
for a while; on a busy machine, the thread they wait for may not be running, because the spinning
threads hold its core. So the spinning is limited before torch is loaded, and with it the OpenMP
runtime, which reads its environment once. Nothing here imports torch.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil


_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
_BRIEFLY = {
    "GOMP_SPINCOUNT": "1000",  # GNU's, a few microseconds; the default is 300,000
    "KMP_BLOCKTIME": "1",  # Intel's and LLVM's, ms; the default is 200
}
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_FREE = (
    "idle",
    "iowait",
    "nice",
    "guest",
    "guest_nice",
)  # guests are counted as user and nice, too
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_is_ours = False  # the number of torch's threads


def waiting() -> dict[str, str]:
    """How OpenMP's threads should wait, as environment variables: the user's, or briefly."""
    given = {name: os.environ[name] for name in _WAITING if name in os.environ}
    return given or dict(_BRIEFLY)


def wait_briefly() -> None:
    """Limit the spinning in this process and those that it starts, unless the user sets it.

    Call it before torch is imported; afterwards it affects only new processes.
    """
    os.environ.update(waiting())


class OtherWork:
    """Measures how busy other processes keep the machine, from its creation on."""

    def __init__(self) -> None:
        self._before = _now()

    def cores(self) -> float:
        """Cores that they kept busy on average, without niced processes."""
        (t0, all0, own0), (t1, all1, own1) = self._before, _now()
        return max(0.0, (all1 - all0 - (own1 - own0)) / max(t1 - t0, 1e-9))

    def leave_room(self) -> None:
        """Let torch, if it is loaded, use no more threads than there are free cores.

        The user's own choice, in the environment, is left alone.
        """
        global _is_ours
        torch: Any = sys.modules.get("torch")
        if torch is None or any(name in os.environ for name in _COUNTS):
            return
        _is_ours = True
        threads = torch.get_num_threads()
        fitting = num_fitting(threads, psutil.cpu_count() or threads, self.cores(), quota())
        if fitting < threads:
            torch.set_num_threads(fitting)


def num_fitting(threads: int, cores: int, busy: float, quota: float | None = None) -> int:
    """How many threads can have a core each.

    Threads share the work evenly, so a thread that shares its core holds up all others, at most
    twice as long. If most cores are busy, fewer threads would take as long, and longer once the
    others have ended; then all are used.

    Args:
        threads: The number of threads otherwise, 1 or more.
        cores: The machine's cores.
        busy: Cores that other processes keep busy.
        quota: Cores' worth of time that this process may take; ``None``: all.
    """
    if quota is not None:
        threads = max(1, min(threads, int(quota)))
    free = cores - round(busy)
    return free if threads / 2 < free < threads else threads


def quota() -> float | None:
    """Cores' worth of time that a container may take; ``None``: no limit is known."""
    try:
        most, period = _QUOTA.read_text().split()
        return int(most) / int(period)
    except (OSError, ValueError):
        return None


def use_again(threads: int) -> None:
    """Use the number of threads that a run began with, because its last bits depend on it.

    Only if :class:`OtherWork` chose the number, and if the machine has enough cores.
    """
    if _is_ours and 1 <= threads <= (psutil.cpu_count() or 1):
        sys.modules["torch"].set_num_threads(threads)


def _now() -> tuple[float, float, float]:
    """The time, that of all cores that was not free, and this process's own, s."""
    times, own = psutil.cpu_times()._asdict(), time.process_time()
    busy = sum(value for name, value in times.items() if name not in _FREE)
    return time.monotonic(), busy, own
