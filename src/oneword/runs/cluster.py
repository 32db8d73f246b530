"""Many words on many machines, through Ray: each worker trains a batch of words at a time.

Every word has its run folder on a file system that all machines see, and a worker's call can be
repeated: finished words are left alone, others resume. If a worker dies, only the steps since the
last checkpoint are lost; Ray starts another worker and repeats the call.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from oneword.config.runs import TrainConfig
from oneword.errors import UserError
from oneword.runs import threads
from oneword.runs.events import (
    Ended,
    Event,
    Message,
    OnEvent,
    Stepped,
    WorkerStarted,
    interrupted,
)
from oneword.runs.many import JobOutcome, check_jobs, failed, train_many
from oneword.runs.train import folder_of


class ClusterError(UserError):
    """The cluster cannot be used as requested."""


_RETRIES = 3  # of a chunk whose worker dies; a job that kills every worker must end at some point
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
    on_event: OnEvent | None = None,
) -> list[JobOutcome]:
    """Learn many words on a Ray cluster; arguments and outcomes are those of ``train_many``.

    Args:
        configs: The jobs; every machine must see their folders under the same path. Of jobs with a
            mirror it need not see the run folders.
        address: "local" (a cluster on this machine, for this call), "auto" (the one that this
            machine belongs to), or a Ray address.
        workers: Number of workers; ``None``: one for each GPU, or for each core if there is no GPU.
        slots: Words that train at once on each worker.
        on_event: Called with each job's events, and with each worker that starts.

    Raises:
        ClusterError: Ray is not installed, its cluster cannot be reached, or it is too small.
        ConfigError: as for ``train_many``.
    """
    check_jobs(configs)
    outcomes: dict[str, JobOutcome] = {}

    def cut(count: int) -> list[list[TrainConfig]]:
        share = -(-len(configs) // count)
        size = max(1, min(share, _CHUNK * (slots or _CHUNK)))
        return [list(configs[i : i + size]) for i in range(0, len(configs), size)]

    for found in _mapped(partial(_train, slots), cut, len(configs), address, workers, on_event):
        outcomes |= {outcome.name: outcome for outcome in found}
    for config in configs:
        name = config.output_dir.name
        if config.mirror is not None and name in outcomes:  # what another machine wrote
            try:
                folder = folder_of(config)
                folder.claim()
                folder.release()
            except Exception as error:
                outcomes[name] = failed(name, error)
    return [outcomes.get(c.output_dir.name) or _lost(c.output_dir.name) for c in configs]


def map_chunks(
    function: Callable[[Any, OnEvent], Any],
    chunks: Sequence[Any],
    *,
    address: str = "local",
    workers: int | None = None,
    on_event: OnEvent | None = None,
) -> Iterator[Any]:
    """Call a function on chunks of work on workers; if a worker dies, its chunk is repeated.

    Args:
        function: ``function(chunk, tell)``; it must be able to start a chunk again.
        chunks: The work.
        address: As for ``train_on_cluster``.
        workers: As for ``train_on_cluster``.
        on_event: Called with the function's events, and with each worker that starts.

    Yields:
        The function's results, as chunks end; nothing for a chunk that is lost for good.

    Raises:
        ClusterError: as for ``train_on_cluster``.
    """
    yield from _mapped(function, lambda _: list(chunks), len(chunks), address, workers, on_event)


def _mapped(
    function: Callable[[Any, OnEvent], Any],
    cut: Callable[[int], list[Any]],
    most_workers: int,
    address: str,
    workers: int | None,
    on_event: OnEvent | None,
) -> Iterator[Any]:
    """``map_chunks``, of chunks that are cut once the number of workers is known."""
    with _connected(address) as ray, interrupted():
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
        count = min(workers or most, most_workers)
        kind = ray.remote(max_restarts=-1, max_task_retries=_RETRIES)(_Worker)
        events = Queue()
        needs = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        pool = ActorPool([kind.options(**needs).remote() for _ in range(count)])
        for chunk in cut(count):
            pool.submit(lambda actor, part: actor.work.remote(function, part, events), chunk)
        ended: set[str] = set()
        while pool.has_next():
            try:
                yield pool.get_next_unordered(timeout=_WAIT_S)
            except TimeoutError:
                pass
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)  # of one that the function itself raised
                if isinstance(cause, UserError):
                    raise cause from error
                if on_event is not None:
                    on_event(Message("cluster", f"Lost a worker: {error}"))
            _tell(events, on_event, ended)
        _tell(events, on_event, ended)


def _lost(name: str) -> JobOutcome:
    reason = f"its worker died {_RETRIES + 1} times; run it alone to see why."
    return JobOutcome(name=name, outcome=None, error=reason)


def _tell(events: Any, on_event: OnEvent | None, ended: set[str]) -> None:
    """Pass events on; a repeated call finds words that ended before, and says so once more."""
    while not events.empty():
        event = events.get()
        if isinstance(event, Ended):
            if event.job in ended:
                continue
            ended.add(event.job)
        if on_event is not None:
            on_event(event)


class _Worker:
    """One actor: a process that works on chunks, one after the other."""

    def work(self, function: Callable[[Any, OnEvent], Any], chunk: Any, events: Any) -> Any:
        events.put(WorkerStarted(os.getpid()))
        return function(chunk, events.put)


def _train(slots: int | None, configs: Sequence[TrainConfig], tell: OnEvent) -> list[JobOutcome]:
    def tell_less(event: Event) -> None:
        if not isinstance(event, Stepped) or event.evaluated:
            tell(event)

    return [_light(o) for o in train_many(configs, slots=slots, on_event=tell_less)]


def _light(one: JobOutcome) -> JobOutcome:
    """An outcome as it travels between machines, without its pictures."""
    if one.outcome is None:
        return one
    result = one.outcome.result
    job = replace(result.job, pictures=result.job.pictures[:0], masks=None)
    return replace(one, outcome=replace(one.outcome, result=replace(result, job=job)))


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    threads.wait_briefly()  # what a cluster that begins here hands on to its workers
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "Cannot use a cluster because Ray is not installed; pip install 'oneword[cluster]'."
        ) from error
    try:
        if address == "local":
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.WARNING,
                runtime_env={"env_vars": threads.waiting()},
            )
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
