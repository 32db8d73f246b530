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
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.scoring import ChooseConfig
from oneword.errors import UserError
from oneword.models.memory.count import Work
from oneword.runs.events import Ended, Message, Plan, Preview, Stepped
from oneword.web.worker import Done, Left, Loaded, Queued, Rank, Share, Stop, Task, Teach, work


class WorkerError(UserError):
    """The worker could not do what it was asked for."""


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
        self._standings: dict[str, Standing] = {}
        self._futures: dict[int, Future[Any]] = {}
        self._shares: dict[int, Share] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._process: Any = None
        self._pipe: Connection | None = None

    # --- what can be asked ---

    def start(self) -> None:
        """Start the worker, if none runs."""
        with self._lock:
            if self._process is not None and self._process.is_alive():
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

    def close(self) -> None:
        """Let the worker save every state and end."""
        with self._lock:
            process, pipe = self._process, self._pipe
            self._process = self._pipe = None
        if process is None or pipe is None:
            return
        with contextlib.suppress(OSError):
            pipe.send(None)
        process.join(timeout=60)

    def teach(self, config: TrainConfig) -> None:
        """Put a word into the queue.

        Raises:
            WorkerError: it is there already, or the worker cannot be reached.
        """
        name = config.output_dir.name
        with self._lock:
            if self.standing(name).is_under_way:
                raise WorkerError(f"The word in {name} is being learned; stop it first.")
            self._standings[name] = Standing("waiting", "Waiting for its turn.")
            self._send(Teach(config))

    def stop(self, name: str) -> None:
        """Ask a word's learning to end after its step."""
        if self.standing(name).is_under_way:
            self._send(Stop(name))

    def ask(
        self, config: GenerateConfig | EditConfig | ChooseConfig | TrainConfig | Rank | Work
    ) -> tuple[int, Future[Any]]:
        """Draw, edit, plan a run, rank words to start from, or count the memory of some work.

        Returns:
            The task's number, for :meth:`share`, and its result to come.

        The result's exception is a ``WorkerError`` with a sentence.
        """
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._futures[number] = future
            self._send(Task(number, config))
        return number, future

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
            raise WorkerError(f"The worker cannot be reached: {error}") from error

    def _listen(self, process: Any, pipe: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._hear(pipe.recv())
        process.join(timeout=60)
        self._over(process.exitcode)

    def _hear(self, told: Any) -> None:
        with self._lock:
            match told:
                case Loaded():
                    self.loaded, self.problem = told, ""
                case Share():
                    self._shares[told.number] = told
                case Done(number=-1):
                    self.problem = told.error
                case Done():
                    self._shares.pop(told.number, None)
                    future = self._futures.pop(told.number, None)
                    if future is None:
                        return
                    if told.error:
                        future.set_exception(WorkerError(told.error))
                    else:
                        future.set_result(told.result)
                case Queued():
                    self._stands(told.name, "waiting", "Waiting for its turn.")
                case Left():
                    self._stands(told.name, "stopped", "Stopped; it can go on from here.")
                case Plan():
                    self._stands(told.job, "waiting", "Its pictures are read.")
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

    def _over(self, code: int | None) -> None:
        """The worker has ended: whatever it had to do has its reason."""
        with self._lock:
            if self._process is None:  # closed on purpose
                return
            self.loaded = None
            reason = self.problem or f"the worker ended with exit code {code}"
            for name, standing in self._standings.items():
                if standing.is_under_way:
                    self._stands(name, "failed", f"Stopped, because {reason}; it can go on.")
            for future in self._futures.values():
                future.set_exception(WorkerError(reason))
            self._futures.clear()
