"""Events of runs in progress, and requests to stop.

Every event is plain data, so that it can be sent between processes; ``job`` is the name of its
run's folder, or of the study's job.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Plan:
    """A run is about to begin or resume."""

    job: str
    plan: dict[str, Any]
    """What ``runs.train.dry_run`` returns."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message for the user."""

    job: str
    text: str


@dataclass(frozen=True, slots=True)
class Preview:
    """Pictures were drawn with the present word."""

    job: str
    path: Path


@dataclass(frozen=True, slots=True)
class Saved:
    """The present word was saved during training."""

    job: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """A run has taken a step."""

    job: str
    step: int
    max_train_steps: int
    loss: float
    """Loss on the fixed batch at the last scoring."""
    best_loss: float
    best_step: int
    distance: float
    """How far the rows have moved from where they started."""
    learning_rate: float
    time_s: float
    """Total time spent on the run, in s."""
    left_s: float | None
    """Time left at this speed, in s; ``None`` before the speed is known."""
    evaluated: bool
    """Whether this step was scored."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """A study's job has made progress."""

    job: str
    doing: Literal["learning", "drawing"]
    share: float
    """Share of that which is done, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One of many jobs has ended, for this call."""

    job: str
    text: str
    """How it ended, in a few words."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A process starts to work on jobs on a cluster."""

    pid: int


Event = Plan | Message | Preview | Saved | Stepped | Advanced | Ended | WorkerStarted
OnEvent = Callable[[Event], None]


def tell_nobody(event: Event) -> None:
    """Stand in for an absent ``on_event``."""


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets; a second one ends the process."""
    asked = threading.Event()
    with _handled(asked.set):
        yield asked


@contextmanager
def interrupted() -> Iterator[None]:
    """SIGTERM and a closed terminal interrupt like Ctrl-C, for callers that have to stop others."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextmanager
def _handled(act: Callable[[], Any]) -> Iterator[None]:
    """Call ``act`` at the first signal that asks to stop; later ones do what they did before."""
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    hangup = getattr(signal, "SIGHUP", None)
    if before.get(hangup) is signal.SIG_IGN:  # by nohup
        del before[hangup]

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:  # noqa: ARG001  (the shape of a handler)
        restore()
        act()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


_STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
