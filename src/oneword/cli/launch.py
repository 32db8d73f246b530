"""``oneword train --num-processes N``: the same command N times, each on a GPU of its own.

torch's own launcher starts them, which is also torchrun's and that of ``accelerate launch``; it stops
all of them when one ends badly.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from oneword.cli.arguments import TrainArguments
from oneword.training.processes import ProcessError, check_device


_LAST_STEP_S = 600
"""Most time that processes get to end their step when they are stopped; then they are killed."""


def run(chosen: TrainArguments, words: Sequence[str]) -> int:
    """Start the processes and wait for them; the exit code is the first one's.

    Raises:
        UserError: there are fewer GPUs than processes, or a process has died and nobody said so.
    """
    count = chosen.num_processes
    check_device(chosen.model.device, count)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        shutdown_timeout=_LAST_STEP_S,
    )
    # the launcher would put its own value in the place of ${local_rank}
    escaped = [word.replace("$", "$$") for word in words]
    with _quietly(), _threads(max(1, torch.get_num_threads() // count)):
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "oneword", "train", *escaped)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            if codes.get(0, 0) > 0:  # it has said why
                return codes[0]
            rank, code = min(codes.items(), key=lambda own: own[1] == -signal.SIGTERM)
            ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ProcessError(
                f"Process {rank} of {count} ended too early ({ended}), which ended the run. To "
                "resume from the last checkpoint, run the same command again."
            ) from None
        except SignalException:
            return 130
    return 0


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the launcher's log off the screen, and its handlers of signals from what comes after."""
    log = logging.getLogger("torch.distributed.elastic")
    propagates, handler = log.propagate, logging.NullHandler()
    names = [getattr(signal, name) for name in _HANDLED if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in names}
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = propagates
        log.removeHandler(handler)
        for number, action in before.items():
            signal.signal(number, action)


_HANDLED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let each process have so many threads, where the user says nothing."""
    given = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    try:
        yield
    finally:
        if not given:
            del os.environ["OMP_NUM_THREADS"]
