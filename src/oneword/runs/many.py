"""``train_many``: many folders of pictures, each a word with a run folder of its own, in one batch.

Each run folder is the same as from ``oneword train``: it can be resumed alone, and it is complete
as soon as its word is, even if others still train.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch

from oneword._files import OutputError, write_together
from oneword.config.runs import TrainConfig
from oneword.errors import ConfigError, why
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.models.speed.compiled import aside
from oneword.runs.events import Ended, OnEvent, asked_to_stop, tell_nobody
from oneword.runs.folder import RunFolder
from oneword.runs.prepare import Prepared, work_of
from oneword.runs.requests import What, by_signal
from oneword.runs.train import (
    TrainOutcome,
    Watch,
    ended_before,
    ending,
    kept_files,
    opened,
    outcome_of,
    tell_choice,
    tell_plan,
    train,
)
from oneword.training.job import Job, Progress, Result
from oneword.training.loop import invert, invert_many
from oneword.training.state import Active, State
from oneword.training.tuning import BASELINES


_CPU_SLOTS = 4  # a CPU gains nothing from more, and each costs memory
_SHARE = 0.8  # of a GPU's free memory that slots may fill


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """The outcome of one of many jobs."""

    name: str
    outcome: TrainOutcome | None
    """``None`` if the job could not be trained."""
    error: str = ""
    """Why it could not."""
    cause: Exception | None = None
    """The exception, if there was one."""


@runtime_checkable
class Guest(Protocol):
    """Uses the model between two steps of many words, and can add jobs."""

    def waits(self) -> bool:
        """Whether the guest wants the model now; asked after every round of steps."""
        ...

    def served(self) -> Sequence[TrainConfig]:
        """Use the model; the returned jobs, for the same model, join the queue."""
        ...


@dataclass(slots=True)
class _Run:
    prepared: Prepared
    folder: RunFolder
    watch: Watch
    begun_s: float | None = None
    """``time.monotonic()`` of its first step in this call."""
    problem: Exception | None = None
    """The exception that ended it, if it was neither ended by the loop nor on request."""

    @property
    def name(self) -> str:
        return self.folder.path.name

    @property
    def job(self) -> Job:
        """As the loop knows it among others."""
        return replace(self.prepared.job, name=self.name)


def train_many(
    configs: Sequence[TrainConfig],
    *,
    slots: int | None = None,
    backbone: Backbone | None = None,
    on_event: OnEvent | None = None,
    guest: Guest | None = None,
) -> list[JobOutcome]:
    """Learn many words, ``slots`` of them in one batch; each has its own run folder.

    If a job cannot be trained, or its folder can no longer be written, only that job fails. Setups
    that change the model's weights share no batch: they are trained one by one after the others.
    Ctrl-C, SIGTERM and SIGHUP finish the step and save every state; the same call resumes. SIGUSR1
    requests a preview of each word in training, SIGUSR2 saves each word as it is; a file
    ``preview-now`` or ``save-now`` in a word's folder does the same for that word.

    Args:
        configs: The jobs, all for one model; the names of their output folders must differ.
        slots: Words that train at once; ``None``: as many as fit into the memory of a GPU, or 4 on
            a CPU.
        backbone: The jobs' model, if it is already loaded.
        on_event: Called with each job's plan, messages, steps, previews and end.
        guest: Uses the model between two steps; its jobs take free slots, so there may be more
            slots than jobs.

    Returns:
        One outcome per config, in order, then those of jobs that joined.

    Raises:
        ConfigError: there are no jobs, they have different models, two folders have the same name,
            or one asks for several processes.
        UserError: the model cannot be loaded.
    """
    tell = on_event or tell_nobody
    check_jobs(configs)
    backbone = backbone or load_backbone(configs[0].model, work_of(configs[0], slots or 1))
    configs = list(configs)
    outcomes: dict[str, JobOutcome] = {}
    begun: list[_Run] = []

    def end(outcome: JobOutcome) -> None:
        outcomes[outcome.name] = outcome
        tell(_ended(outcome))

    with asked_to_stop() as asked, by_signal() as signals, contextlib.ExitStack() as held:

        def begin(some: Sequence[TrainConfig]) -> list[_Run]:
            """The jobs that take part in the batch; the ends of the others are reported."""
            runs: list[_Run] = []
            for config in some:
                name = config.output_dir.name
                if config.inversion.setup in BASELINES:
                    continue
                try:
                    made = _begin(config, backbone, tell, asked, signals)
                except Exception as error:
                    end(failed(name, error))
                    continue
                if isinstance(made, TrainOutcome):
                    end(JobOutcome(name=name, outcome=made))
                    continue
                held.callback(made.folder.release)
                runs.append(made)
            begun.extend(runs)
            return runs

        def join() -> list[tuple[Job, Active | None]]:
            """What the guest brings."""
            joining = [] if guest is None else guest.served()
            check_jobs([*configs, *joining])
            configs.extend(joining)
            runs = begin(joining)
            many.add(runs)
            states = [run.folder.state.load() for run in runs]
            return [
                (run.job, None if state is None else state.active[0])
                for run, state in zip(runs, states, strict=True)
            ]

        begin(configs)
        if begun:
            many = _Many(begun, end)
            most = slots or _slots_for(begun)
            results = invert_many(
                backbone,
                [run.job for run in begun],
                slots=most if guest is not None else min(len(begun), most),
                on_step=many.on_step,
                checkpoint=many,
                visitor=None if guest is None else _Visitor(guest.waits, join),
            )
            for run, result in zip(begun, results, strict=True):
                if run.name not in outcomes:
                    many.end(run, result)
        for config in configs:  # weights belong to a single concept, so these share no batch
            if config.inversion.setup in BASELINES and not asked.is_set():
                end(_train_alone(config, backbone, tell, asked))
    return [
        outcomes.get(name) or JobOutcome(name=name, outcome=None, error="stopped before it began")
        for name in (config.output_dir.name for config in configs)
    ]


@dataclass(frozen=True, slots=True)
class _Visitor:
    """A guest as the loop knows one."""

    waits: Callable[[], bool]
    served: Callable[[], Sequence[tuple[Job, Active | None]]]


def _train_alone(
    config: TrainConfig, backbone: Backbone, tell: OnEvent, asked: threading.Event
) -> JobOutcome:
    name = config.output_dir.name
    try:
        outcome = train(config, on_event=tell, backbone=backbone)
    except Exception as error:
        return failed(name, error)
    if outcome.result.status == "interrupted":  # by the same signal that all are stopped with
        asked.set()
    return JobOutcome(name=name, outcome=outcome)


def failed(name: str, error: Exception) -> JobOutcome:
    """The outcome of a job that something was raised for."""
    return JobOutcome(name=name, outcome=None, error=why(error), cause=error)


def _ended(one: JobOutcome) -> Ended:
    if one.outcome is None:
        return Ended(one.name, f"failed: {one.error}", failed=True)
    before = "already finished. " if one.outcome.was_finished else ""
    return Ended(one.name, before + ending(one.outcome.result))


def check_jobs(configs: Sequence[TrainConfig]) -> None:
    """Refuse jobs that have the same name or different models.

    Raises:
        ConfigError: see ``train_many``.
    """
    if not configs:
        raise ConfigError("Cannot train without a job; pass at least one.")
    several = next((c.num_processes for c in configs if c.num_processes > 1), None)
    if several is not None:
        raise ConfigError(
            f"Cannot use num_processes {several} for words that share a batch because they must "
            "train in one process; to share the words among processes, pass --cluster local "
            f"--workers {several}."
        )
    models = {config.model for config in configs}
    if len(models) > 1:
        raise ConfigError(
            "All jobs of a call must have the same model and model settings, got "
            f"{', '.join(sorted(str(m) for m in models))}; train each model's jobs in a call of "
            "their own."
        )
    names = [config.output_dir.name for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"The names of the jobs' output folders must differ, got {', '.join(twice)} twice."
        )


def _begin(
    config: TrainConfig,
    backbone: Backbone,
    tell: OnEvent,
    asked: threading.Event,
    signals: Mapping[What, int],
) -> _Run | TrainOutcome:
    """Prepare a job and make its folder; return the outcome if it ended in an earlier call."""
    folder, prepared, found = opened(config, backbone)
    with contextlib.ExitStack() as unless_begun:
        unless_begun.callback(folder.release)
        tell_plan(prepared, found, config.output_dir.name, tell)
        if found.run == "finished":
            result = invert(backbone, prepared.job, checkpoint=folder.kept())
            outcome = ended_before(result, folder)
            tell_choice(folder, tell)
            return outcome
        watch = Watch(prepared, folder, tell, asked, signals, found)
        run = _Run(prepared, folder, watch)
        unless_begun.pop_all()
    return run


def _slots_for(runs: Sequence[_Run]) -> int:
    """How many words fit into memory, by the model's own measure of a step."""
    backbone = runs[0].prepared.backbone
    if backbone.device.type != "cuda":
        return _CPU_SLOTS
    job = runs[0].prepared.job
    torch.cuda.reset_peak_memory_stats(backbone.device)
    before = torch.cuda.memory_allocated(backbone.device)
    trial = replace(job, config=replace(job.config, max_train_steps=1))
    with aside(backbone):
        invert_many(backbone, [trial], slots=1)
    one = max(1, torch.cuda.max_memory_allocated(backbone.device) - before)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(backbone.device)
    return max(1, int(_SHARE * free / one))


class _Many:
    """The checkpoint of many runs, with each job's part in the job's own folder."""

    def __init__(self, runs: Sequence[_Run], end: Callable[[JobOutcome], None]) -> None:
        self.runs: list[_Run] = []
        self.tell_end = end
        self.steps = min(run.folder.state.steps for run in runs)
        self.ended: set[int] = set()
        self.by_name: dict[str, _Run] = {}
        self.add(runs)

    def add(self, runs: Sequence[_Run]) -> None:
        """Runs that join."""
        self.runs.extend(runs)
        self.by_name |= {run.name: run for run in runs}

    def on_step(self, progress: Progress) -> Literal["stop"] | None:
        run = self.by_name[progress.job.name]
        if run.begun_s is None:  # its time begins when it leaves the queue
            run.begun_s = run.watch.started = time.monotonic()
        if run.problem is None:
            with self._alone(run):
                return run.watch.on_step(progress)
        return "stop"

    @contextlib.contextmanager
    def _alone(self, run: _Run) -> Iterator[None]:
        """Let an error end only this run, at its next step."""
        try:
            yield
        except Exception as error:
            run.problem = error

    def load(self) -> State | None:
        """Combine the folders' states; jobs that never began form the queue."""
        return State.joined(
            [run.name for run in self.runs], [run.folder.state.load() for run in self.runs]
        )

    def save(self, state: State) -> None:
        """Write each job's share into its folder, and the results of those that have ended.

        All at once, so that the same words continue together after a kill; if that fails, one by
        one.
        """
        names = [run.prepared.job.name for run in self.runs]
        files: dict[int, dict[Path, bytes]] = {}
        results: dict[int, Result] = {}
        slots = {one.index: one.slot for one in state.active}
        for index, share in state.split(names).items():
            run = self.runs[index]
            if index in self.ended:
                continue
            kept: dict[Path, bytes] = {}
            if share.done:
                result = results[index] = share.done[0].result(run.prepared.job)
                kept = kept_files(result, run.folder, run.watch.elapsed())
            for one in share.active:  # by its slot, ``joined`` puts it beside the same words again
                share = replace(share, active=(replace(one, slot=slots[index]),))
            if run.problem is None and (share.active or kept):
                files[index] = kept | {run.folder.state.path: run.folder.state.data_of(share)}
        try:
            write_together({path: data for own in files.values() for path, data in own.items()})
        except OutputError:
            for index, own in files.items():
                with self._alone(self.runs[index]):
                    write_together(own)
        for index in files:
            if self.runs[index].problem is None:
                with self._alone(self.runs[index]):
                    self.runs[index].folder.push()
        for index, result in results.items():
            self.ended.add(index)
            self.end(self.runs[index], result)

    def end(self, run: _Run, result: Result) -> None:
        """Report a job that has ended for this call."""
        if result.status == "failed":
            run.folder.abandon()
        run.watch.trackers.close()
        run.folder.release()
        if run.problem is not None:
            self.tell_end(failed(run.name, run.problem))
            return
        if result.status == "failed":
            self.tell_end(
                JobOutcome(name=run.name, outcome=None, error=result.reason, cause=result.cause)
            )
            return
        seconds = 0.0 if run.begun_s is None else time.monotonic() - run.begun_s
        outcome = outcome_of(result, run.folder, seconds)
        if outcome.concept_file is not None:
            tell_choice(run.folder, run.watch.tell)
        self.tell_end(JobOutcome(name=run.name, outcome=outcome))
