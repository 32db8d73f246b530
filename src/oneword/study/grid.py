"""Runs a study's jobs in this process, in several, or on Ray; a failed job does not stop others."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import multiprocessing
import os
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from oneword._files import (
    FormError,
    Hold,
    decoded,
    hold,
    read_bytes,
    read_json,
    visible,
    write_json_atomic,
)
from oneword.config.runs import fits_of_old
from oneword.config.scoring import StudyConfig
from oneword.errors import ConfigError, UserError
from oneword.microworld import weights
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.runs import cluster
from oneword.runs.events import Ended, Event, Message, OnEvent
from oneword.study import work
from oneword.study.plan import BASELINES, BIPARTITE, Spec, Study


_RETRIES = 2  # of a chunk whose process dies; a job that kills every process must end at some point
_WAIT_S = 0.2
_INVERSION = "num_inversion_steps"
_BASELINES = "baselines"
_BOUND = (
    "inversion",
    "sampling",
    "model",
    "num_pictures",
    "num_images_per_prompt",
    _INVERSION,
    _BASELINES,
    "judge",
    "dino",
)
"""Settings that all rows of a folder must share."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The progress of a study."""

    done: list[Spec]
    failed: list[Spec]
    left: list[Spec]
    absent: list[Spec]
    """Jobs whose method is not available here."""

    @property
    def counts(self) -> dict[str, int]:
        """The number of each kind; the last kind only if there are any."""
        found = {name: len(getattr(self, name)) for name in ("done", "failed", "left")}
        return found | ({"not_available": len(self.absent)} if self.absent else {})


def standing(study: Study) -> Standing:
    """Which jobs are done, failed, left to do, or cannot be done here."""
    found = Standing([], [], [], [])
    for spec in study.specs:
        if work.rows_file(study.folder, spec).is_file():
            found.done.append(spec)
        elif work.failure_file(study.folder, spec).is_file() and not study.config.retry_failed:
            found.failed.append(spec)
        elif work.absent_file(study.folder, spec).is_file() and not study.config.retry_failed:
            found.absent.append(spec)
        else:
            found.left.append(spec)
    return found


def absences(study: Study) -> dict[str, str]:
    """Why methods are not available here, by the label of the setup.

    Raises:
        RunError: a file with a reason is damaged.
    """
    found: dict[str, str] = {}
    for spec in standing(study).absent:
        if spec.setup not in found:
            found[spec.setup] = work.reason(work.absent_file(study.folder, spec)).rstrip(".")
    return found


def claim(study: Study) -> Hold:
    """Claim the folder: it must be new, or have a study with the same protocol.

    Returns:
        The claim, which keeps others from writing there until it is released.

    A folder whose jobs have all failed may get another protocol.

    Raises:
        ConfigError: it holds a study whose rows could not be compared with these, or other files.
        InUseError: another process writes there.
        OutputError: it cannot be written.
    """
    folder, record = study.folder, _record(study)
    if folder.is_dir() and visible(folder) and not record.is_file():
        raise ConfigError(
            f"The output folder {folder} must be empty or contain a study, got other files; pass "
            "a new --out."
        )
    held = hold(folder, below=True)
    try:
        _bind(study, record)
    except BaseException:
        held.release()
        raise
    return held


def _bind(study: Study, record: Path) -> None:
    """Compare the folder's protocol with ours, and record it."""
    folder, ours = study.folder, _bound(study)
    if record.is_file():
        theirs = read_json(
            record,
            dict,
            must="The record of a study must be one written by oneword",
            error=ConfigError,
        )
        theirs = fits_of_old(theirs)
        if "world" in ours:  # older folders are of the first
            theirs = {"world": FIRST_WORLD} | theirs
        if _INVERSION not in theirs:  # in such a folder pictures were inverted as they were drawn
            inverted = any(study.arm(s).setup == BIPARTITE for s in standing(study).done)
            steps = theirs.get("sampling.num_inference_steps")
            theirs[_INVERSION] = steps if inverted else ours[_INVERSION]
        if not any(study.arm(s).setup in BASELINES for s in standing(study).done):
            theirs |= {n: ours[n] for n in ours if n.startswith(f"{_BASELINES}.")}
        differing = [
            f"{name} was {theirs.get(name)!r} and is {ours[name]!r}"
            for name in ours
            if theirs.get(name) != ours[name]
        ]
        if differing and not _came_to_nothing(study):
            raise ConfigError(
                f"Cannot resume the study in {folder} because its protocol differs: "
                f"{'; '.join(differing)}. Use its settings, or pass another --out."
            )
        if differing:  # jobs that failed with the former settings are tried with these
            for ending in (work.FAILED, work.ABSENT):
                for path in (folder / "jobs").glob(f"*{ending}"):
                    path.unlink()
    write_json_atomic(record, ours)


def _came_to_nothing(study: Study) -> bool:
    """Whether all jobs in the folder have failed and left neither rows nor a run."""
    jobs, runs = study.folder / "jobs", study.folder / "runs"
    names = [path.name for path in visible(jobs)] if jobs.is_dir() else []
    failed = bool(names) and all(name.endswith((work.FAILED, work.ABSENT)) for name in names)
    return failed and not (runs.is_dir() and visible(runs))


def take_in(study: Study, path: Path) -> int:
    """Take the rows of a ``results.jsonl`` (or ``.gz``) as done jobs, if these are not done yet.

    Args:
        study: The plan; rows of other jobs are left out.
        path: A file that ``page.write`` wrote. The caller is responsible for its protocol.

    Returns:
        How many jobs were new.

    Raises:
        ConfigError: the file cannot be read as rows.
        OutputError: the study's folder cannot be written.
    """
    found: dict[Any, list[work.Row]] = {}
    world = weights.told(study.config.model.model).get("world")
    for row in _results(path):
        theirs = row.get("world", FIRST_WORLD)
        if world is not None and theirs != world:
            raise ConfigError(
                f"--rows must be of the embedded model's world of version {world}, got {path} of "
                f"version {theirs:g}; run that study again, or pass the folder of a model of "
                f"version {theirs:g} as --model."
            )
        key = row["concept"], row["setup"], row["seed"], row["set_size"]
        found.setdefault(key, []).append(row)
    count = 0
    with claim(study):
        for spec in study.specs:
            own = found.get((spec.concept, spec.setup, spec.seed, spec.num_pictures))
            if own and not work.rows_file(study.folder, spec).is_file():
                work.write_rows(study.folder, spec, own)
                count += 1
    return count


def _results(path: Path) -> list[work.Row]:
    """Rows of a file that ``page.write`` wrote."""
    must = "--rows must be a results.jsonl of a study, or a gzipped one"
    data = read_bytes(path, most=work.MAX_ROWS, must=must, error=ConfigError)
    try:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(work.MAX_ROWS + 1)
            if len(data) > work.MAX_ROWS:
                raise FormError(f"it unpacks to more than {work.MAX_ROWS} bytes")
        lines = decoded(data, path, error=ConfigError).split("\n")
        return work.parsed_rows([line for line in lines if line])
    except (OSError, EOFError, zlib.error, FormError) as error:
        raise ConfigError(f"{must}, got {path} ({error}).") from error


def _bound(study: Study) -> dict[str, Any]:
    """The settings that every row depends on, as flat JSON values."""
    plain = json.loads(json.dumps(asdict(study.config), default=str))
    flat: dict[str, Any] = {
        "prompts": study.prompt_set,
        "set_sizes": sorted(study.config.set_sizes),
    }
    for name in _BOUND:
        value = plain[name]
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": one for key, one in value.items() if key != "device"}
        else:
            flat[name] = value
    return flat | weights.told(study.config.model.model)


def run(study: Study, *, on_event: OnEvent) -> Standing:
    """Do every job that is left; call it again to continue after it was stopped.

    Args:
        study: The plan.
        on_event: Called with each job's progress and end, and with messages.

    Raises:
        ConfigError: the folder holds another study.
        InUseError: another process writes there.
        OutputError: the folder cannot be written; the same call continues when it can.
        ClusterError: the cluster cannot be used.
        UserError: the model or the judges cannot be loaded, or the model cannot draw with these
            settings; a study that has not begun leaves nothing behind.
        KeyboardInterrupt: the study was stopped.
    """
    record = _record(study)
    is_new = not record.is_file()
    held = claim(study)
    try:
        _do(study, on_event)
    except UserError:
        if is_new and visible(study.folder) == [record]:
            record.unlink()
        raise
    finally:
        held.release()
        with contextlib.suppress(OSError):  # it holds something
            study.folder.rmdir()
    return standing(study)


def _record(study: Study) -> Path:
    return study.folder / "study.json"


def _do(study: Study, on_event: OnEvent) -> None:
    """The jobs that are left, here or in processes or on a cluster."""
    left, config = standing(study).left, study.config
    if config.retry_failed:
        for spec in left:
            for place in (work.failure_file, work.absent_file):
                place(study.folder, spec).unlink(missing_ok=True)
    if left and config.cluster is not None:
        hands = config.workers or len(left)
        chunks = study.chunks(left, hands)
        job = partial(work.run_chunk, config)
        for _ in cluster.map_chunks(
            job, chunks, address=config.cluster, workers=config.workers, on_event=on_event
        ):
            pass
        for spec in _unfinished(study, left):
            _give_up(study, spec, "its worker died several times", on_event)
    elif left and config.num_processes > 1:
        _in_processes(study, left, on_event)
    elif left:
        for chunk in study.chunks(left, 1):
            work.run_chunk(config, chunk, on_event)


def _unfinished(study: Study, specs: Sequence[Spec]) -> list[Spec]:
    return [
        spec
        for spec in specs
        if not work.rows_file(study.folder, spec).is_file()
        and not work.failure_file(study.folder, spec).is_file()
        and not work.absent_file(study.folder, spec).is_file()
    ]


def _give_up(study: Study, spec: Spec, why: str, on_event: OnEvent) -> None:
    reason = f"{why}; run it alone to see why."
    write_json_atomic(work.failure_file(study.folder, spec), {"job": spec.name, "error": reason})
    on_event(work.ended(spec, reason))


# --- several processes of one machine


def _in_processes(study: Study, left: Sequence[Spec], on_event: OnEvent) -> None:
    config = study.config
    waiting = [(chunk, 0) for chunk in study.chunks(left, config.num_processes)]
    while waiting:
        with _pool(config) as (pool, tell):
            futures: dict[Future[list[str]], tuple[list[Spec], int]] = {
                pool.submit(_in_worker, config, chunk): (chunk, tries) for chunk, tries in waiting
            }
            waiting = []
            running = set(futures)
            while running:
                ended, running = wait(running, timeout=_WAIT_S, return_when=FIRST_COMPLETED)
                tell(on_event)
                for future in ended:
                    chunk, tries = futures[future]
                    try:
                        future.result()
                    except BrokenProcessPool:
                        waiting += _again(study, chunk, tries, on_event)
            tell(on_event)


def _again(
    study: Study, chunk: Sequence[Spec], tries: int, on_event: OnEvent
) -> list[tuple[list[Spec], int]]:
    """The jobs of a chunk to repeat after a process died; one by one, so that only one can fail."""
    specs = _unfinished(study, chunk)
    if len(specs) == 1 and tries >= _RETRIES:
        _give_up(study, specs[0], "its process died several times", on_event)
        return []
    on_event(Message("study", "A process died; its jobs are started again."))
    return [([spec], tries + 1) for spec in specs]


_events: Any = None


@contextmanager
def _pool(
    config: StudyConfig,
) -> Iterator[tuple[ProcessPoolExecutor, Callable[[OnEvent], None]]]:
    """Processes that report their jobs; Ctrl-C reaches them, and none outlives this process."""
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // config.num_processes)

    def tell(on_event: OnEvent) -> None:
        while True:
            try:
                on_event(events.get_nowait())
            except queue.Empty:
                return

    pool = ProcessPoolExecutor(
        config.num_processes, mp_context=context, initializer=_begin, initargs=(events, threads)
    )
    try:
        yield pool, tell
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()  # a word under training saves its state
        for process in processes:
            process.join()
        raise
    else:
        pool.shutdown()


def _begin(events: Any, threads: int) -> None:
    global _events
    _events = events
    torch.set_num_threads(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _in_worker(config: StudyConfig, chunk: Sequence[Spec]) -> list[str]:
    last = 0.0

    def tell(event: Event) -> None:
        nonlocal last
        if isinstance(event, Ended) or time.monotonic() - last > _WAIT_S:
            last = time.monotonic()
            _events.put(event)

    return work.run_chunk(config, chunk, tell)
