"""Many words on many machines, through Ray: each worker trains a batch of words at a time.

Every word has its run folder, on a file system that all machines see, and a worker's call can be
repeated: what has ended is left alone, what was begun goes on. So a worker that dies loses nothing
but the steps since the last checkpoint; Ray starts another and repeats the call.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from oneword.config import TrainConfig, UserError
from oneword.jobs import JobOutcome, OnJobEvent, check_jobs, train_many
from oneword.runs import folder_of


class ClusterError(UserError):
    """The cluster cannot be used as it was asked for."""


WORKER = "worker"
"""Kind of the event of a worker that takes up jobs: its data is the process id."""
_RETRIES = 3  # of a chunk whose worker dies; a job that kills every worker must end some time
_CHUNK = 4  # chunks' length in slots: long enough that batches stay full, short enough to share
_WAIT_S = 0.2
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # without these Ray writes a token into the home folder and listens on every interface
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def train_on_cluster(
    configs: Sequence[TrainConfig],
    *,
    address: str = "local",
    workers: int | None = None,
    slots: int | None = None,
    on_event: OnJobEvent | None = None,
) -> list[JobOutcome]:
    """Learn many words on a Ray cluster; arguments and outcomes as of ``jobs.train_many``.

    Args:
        configs: The jobs; every machine must see their folders under the same path. Of jobs with a
            mirror it need not see the run folders.
        address: "local" (a cluster on this machine, for this call), "auto" (the one that this
            machine belongs to), or a Ray address.
        workers: How many; ``None``: one for each GPU, or for each core where there is none.
        slots: Words that train at once on each worker.
        on_event: Told of each job's events, and of each worker that begins.

    Raises:
        ClusterError: Ray is not installed, its cluster cannot be reached, or it is too small.
        ConfigError: as of ``jobs.train_many``.
    """
    check_jobs(configs)
    with _connected(address) as ray:
        from ray.util import ActorPool
        from ray.util.queue import Queue

        gpus = int(ray.cluster_resources().get("GPU", 0))
        most = gpus or int(ray.cluster_resources()["CPU"])
        if workers is not None and workers > most:
            # Ray would wait for ever for the machine of the last one
            raise ClusterError(
                f"The cluster must have a {'GPU' if gpus else 'core'} for each worker, got "
                f"{workers} workers for {most}; ask for fewer."
            )
        count = min(workers or most, len(configs))
        kind = ray.remote(max_restarts=-1, max_task_retries=_RETRIES)(_Worker)
        events = Queue()
        needs = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        pool = ActorPool([kind.options(**needs).remote() for _ in range(count)])
        share = -(-len(configs) // count)
        size = max(1, min(share, _CHUNK * (slots or _CHUNK)))
        chunks = [list(configs[i : i + size]) for i in range(0, len(configs), size)]
        for chunk in chunks:
            pool.submit(lambda actor, jobs: actor.train.remote(jobs, slots, events), chunk)
        outcomes: dict[str, JobOutcome] = {}
        ended: set[str] = set()
        while pool.has_next():
            try:
                for outcome in pool.get_next_unordered(timeout=_WAIT_S):
                    outcomes[outcome.name] = outcome
            except TimeoutError:
                pass
            except ray.exceptions.RayError as error:
                if on_event is not None:
                    on_event("cluster", "message", f"A worker was lost for good: {error}")
            _tell(events, on_event, ended)
        _tell(events, on_event, ended)
    for config in configs:
        if config.mirror is not None:  # what another machine wrote
            folder_of(config).claim()
    return [outcomes.get(c.output_dir.name) or _lost(c.output_dir.name) for c in configs]


def _lost(name: str) -> JobOutcome:
    reason = f"its worker died {_RETRIES + 1} times; run it alone to see why."
    return JobOutcome(name=name, outcome=None, error=reason)


def _tell(events: Any, on_event: OnJobEvent | None, ended: set[str]) -> None:
    """Pass events on; a repeated call finds words that ended before, and says so once more."""
    while not events.empty():
        name, kind, data = events.get()
        if kind == "ended":
            if name in ended:
                continue
            ended.add(name)
        if on_event is not None:
            on_event(name, kind, data)


class _Worker:
    """One actor: a process that trains chunks of jobs, one after the other."""

    def train(
        self, configs: Sequence[TrainConfig], slots: int | None, events: Any
    ) -> list[JobOutcome]:
        def tell(name: str, kind: str, data: Any) -> None:
            if kind != "progress" or data["evaluated"]:
                events.put((name, kind, _light(data)))

        events.put(("worker", WORKER, os.getpid()))
        return [_light(outcome) for outcome in train_many(configs, slots=slots, on_event=tell)]


def _light(data: Any) -> Any:
    """What travels between machines: an outcome goes without its pictures."""
    if not isinstance(data, JobOutcome) or data.outcome is None:
        return data
    result = data.outcome.result
    job = replace(result.job, pictures=result.job.pictures[:0], masks=None)
    return replace(data, outcome=replace(data.outcome, result=replace(result, job=job)))


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "A cluster needs Ray, which is not installed; `pip install 'oneword[cluster]'`."
        ) from error
    try:
        if address == "local":
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ClusterError(
            "--cluster must be local, auto or the address of a running Ray cluster, got "
            f"{address}: {reason[:200]}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
