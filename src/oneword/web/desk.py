"""The server's side of the worker: what was asked of it, and what became of it."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Literal

from oneword.config.drawing import EditConfig, GenerateConfig
from oneword.config.model import AUTO, ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.scoring import ChooseConfig
from oneword.errors import UserError
from oneword.models.loading import family_of
from oneword.models.memory.count import Work
from oneword.runs.events import Ended, Message, Plan, Preview, Stepped
from oneword.web.worker import Done, Left, Loaded, Queued, Rank, Share, Stop, Task, Teach, work


class WorkerError(UserError):
    """The worker could not do what it was asked for."""


Asked = GenerateConfig | EditConfig | ChooseConfig | TrainConfig | Rank | Work
"""What a worker does between steps."""
_Drawn = GenerateConfig | EditConfig | ChooseConfig
_GRACE_S = 10.0  # for a worker that has nothing to do


Phase = Literal["waiting", "learning", "stopped", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a word's learning stands."""

    phase: Phase
    text: str = ""
    """What was said last."""
    step: int = 0
    max_train_steps: int = 0
    loss: float | None = None
    left_s: float | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it learns, or will without being asked again."""
        return self.phase in ("waiting", "learning")


class Desk:
    """One worker, started when it is first needed, and again after it has ended.

    Args:
        model: What it loads.
        slots: Words that learn at once.
    """

    def __init__(self, model: ModelConfig, slots: int) -> None:
        self.model, self.slots = model, slots
        self.loaded: Loaded | None = None
        self.problem = ""
        self.refused = ""
        """Why the model that was chosen last is not there, if another one is instead."""
        self._good: ModelConfig | None = None
        """The model that was loaded last."""
        self._chosen: Future[Loaded] | None = None
        self._standings: dict[str, Standing] = {}
        self._futures: dict[int, Future[Any]] = {}
        self._asked: dict[int, Asked] = {}
        self._shares: dict[int, Share] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._process: Any = None
        self._pipe: Connection | None = None

    # --- what can be asked ---

    def start(self) -> None:
        """Start the worker, if none runs."""
        with self._lock:
            if self._process is not None and not self._process.is_alive():
                self._over(self._reason(self._process))  # before anyone has heard of it
            if self._process is not None:
                return
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=work, args=(self.model, self.slots, theirs), daemon=True
            )
            self._process.start()
            theirs.close()
            threading.Thread(
                target=self._listen, args=(self._process, self._pipe), daemon=True
            ).start()

    def use(self, model: ModelConfig) -> Future[Loaded]:
        """Load another model in place of the present one, for everyone.

        The two are never in memory together.

        Args:
            model: The other one, or another way to load the present one.

        Returns:
            The model to come. If it cannot be loaded, the exception is a ``WorkerError``, and the
            model that was loaded last is loaded again.

        Raises:
            ModelError: there is no such model; the present one stays.
            WorkerError: a word is being learned or waits, or pictures are being drawn.
        """
        family_of(model)
        with self._lock:
            self._check_idle()
            self._let_go()
            self.model, self.problem, self.refused = model, "", ""
            if self._chosen is not None:
                self._chosen.set_exception(
                    WorkerError(f"Not loaded because {model.model} was chosen in the meantime.")
                )
            self._chosen = chosen = Future[Loaded]()
            self.start()
        return chosen

    def _check_idle(self) -> None:
        """Refuse to take the model from what needs it.

        Raises:
            WorkerError: something does.
        """
        words = [name for name, one in self._standings.items() if one.is_under_way]
        if words:
            raise WorkerError(
                f"Cannot load another model because training is in progress ({', '.join(words)}); "
                "stop it or wait until it ends, then try again."
            )
        if any(isinstance(config, _Drawn) for config in self._asked.values()):
            raise WorkerError(
                "Cannot load another model because pictures are being drawn; try again when they "
                "are done."
            )

    def _let_go(self) -> None:
        """End a worker that has nothing to save."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is not None and pipe is not None:
            if self.loaded is not None:  # before, it does not listen
                with contextlib.suppress(OSError):
                    pipe.send(None)
                process.join(timeout=_GRACE_S)
            process.kill()
            process.join()
        self.loaded = None
        self._fail_tasks(
            "Cannot do this because another model is being loaded; try again when it is there."
        )

    def close(self) -> None:
        """Let the worker save every state and end."""
        with self._lock:
            process, pipe = self._process, self._pipe
            self._process = self._pipe = self._good = None
        if process is None or pipe is None:
            return
        with contextlib.suppress(OSError):
            pipe.send(None)
        process.join(timeout=60)

    def teach(self, config: TrainConfig) -> None:
        """Put a word into the queue.

        Raises:
            WorkerError: it is there already, it is for another model, or the worker cannot be
                reached.
        """
        name = config.output_dir.name
        with self._lock:
            self._check_model(config)
            if self.standing(name).is_under_way:
                raise WorkerError(
                    f"Cannot train {name} because it is already training; stop it first."
                )
            self._standings[name] = Standing("waiting", "Queued.")
            self._send(Teach(config))

    def stop(self, name: str) -> None:
        """Ask a word's learning to end after its step."""
        if self.standing(name).is_under_way:
            self._send(Stop(name))

    def ask(self, config: Asked) -> tuple[int, Future[Any]]:
        """Draw, edit, plan a run, rank words to start from, or count the memory of some work.

        Returns:
            The task's number, for :meth:`share`, and its result to come.

        The result's exception is a ``WorkerError`` with a sentence.

        Raises:
            WorkerError: it is for another model, or the worker cannot be reached.
        """
        future: Future[Any] = Future()
        with self._lock:
            self._check_model(config)
            number = next(self._numbers)
            self._futures[number], self._asked[number] = future, config
            self._send(Task(number, config))
        return number, future

    def _check_model(self, config: Asked) -> None:
        """Refuse what was asked for before another model took the place of its own.

        Raises:
            WorkerError: it was.
        """
        own = config.config if isinstance(config, Rank) else config
        if not isinstance(own, Work) and own.model.model not in (AUTO, self.model.model):
            raise WorkerError(
                f"Cannot use {own.model.model} because the model is now {self.model.model}; "
                "try again."
            )

    def share(self, number: int) -> float:
        """How much of a task is done, 0 to 1."""
        share = self._shares.get(number)
        return 0.0 if share is None or not share.total else min(1.0, share.done / share.total)

    def standing(self, name: str) -> Standing:
        """How a word's learning stands; one that nobody asked for since the start is "ended"."""
        return self._standings.get(name, Standing("ended"))

    def standings(self) -> dict[str, Standing]:
        """How all stand that were asked for since the start."""
        return dict(self._standings)

    # --- what comes back ---

    def _send(self, message: Any) -> None:
        self.start()
        assert self._pipe is not None
        try:
            self._pipe.send(message)
        except OSError as error:
            raise WorkerError(
                f"Cannot reach the worker process because {error}; try again."
            ) from error

    def _listen(self, process: Any, pipe: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                told = pipe.recv()
                with self._lock:
                    if self._process in (process, None):  # no other one has taken its place
                        self._hear(told)
        process.join(timeout=60)
        with self._lock:
            if self._process is process:  # and was not closed on purpose
                self._over(self._reason(process))

    def _hear(self, told: Any) -> None:
        with self._lock:
            match told:
                case Loaded():
                    self.loaded, self.problem, self._good = told, "", self.model
                    if self._chosen is not None:
                        self._chosen.set_result(told)
                        self._chosen = None
                case Share():
                    self._shares[told.number] = told
                case Done(number=-1):
                    self.problem = told.error
                    self._over(told.error)
                case Done():
                    self._shares.pop(told.number, None)
                    self._asked.pop(told.number, None)
                    future = self._futures.pop(told.number, None)
                    if future is None:
                        return
                    if told.error:
                        future.set_exception(WorkerError(told.error))
                    else:
                        future.set_result(told.result)
                case Queued():
                    self._stands(told.name, "waiting", "Queued.")
                case Left():
                    self._stands(told.name, "stopped", "Stopped; it can be resumed.")
                case Plan():
                    self._stands(told.job, "waiting", "Preparing to train.")
                case Message():
                    self._stands(told.job, None, told.text)
                case Ended():
                    self._stands(told.job, "failed" if told.failed else "ended", told.text)
                case Stepped():
                    before = self.standing(told.job)
                    self._standings[told.job] = replace(
                        before,
                        phase="learning",
                        text=before.text if before.phase == "learning" else "",
                        step=told.step,
                        max_train_steps=told.max_train_steps,
                        loss=told.loss,
                        left_s=told.left_s,
                    )
                case Preview():
                    pass  # it lies in the run folder, where the page looks

    def _stands(self, name: str, phase: Phase | None, text: str) -> None:
        before = self.standing(name)
        self._standings[name] = replace(before, phase=phase or before.phase, text=text)

    def _reason(self, process: Any) -> str:
        return self.problem or f"The worker process ended with exit code {process.exitcode}."

    def _over(self, reason: str) -> None:
        """The worker has ended: whatever it had to do has its reason."""
        was_loaded, self.loaded = self.loaded is not None, None
        self._process = self._pipe = None
        for name, standing in self._standings.items():
            if standing.is_under_way:
                self._stands(name, "failed", f"Stopped: {reason.rstrip('.')}. It can be resumed.")
        self._fail_tasks(reason)
        before = self._good
        if not was_loaded and before is not None and before != self.model:
            reason = f"Could not load {self.model.model}: {reason.rstrip('.')}."
            self.model, self.problem, self.refused = before, "", reason
            reason += f" Reloading {before.model}."
            self.start()
        if self._chosen is not None:
            self._chosen.set_exception(WorkerError(reason))
            self._chosen = None

    def _fail_tasks(self, reason: str) -> None:
        for future in self._futures.values():
            future.set_exception(WorkerError(reason))
        self._futures.clear()
        self._asked.clear()
