"""What runs tell of while they go, and how they are asked to stop.

Every event is plain data, so that it can travel between processes; ``job`` is the name of its run's
folder, or of the study's job.
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
    """A run is about to begin, or to go on."""

    job: str
    plan: dict[str, Any]
    """What ``runs.train.dry_run`` returns."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something to be read."""

    job: str
    text: str


@dataclass(frozen=True, slots=True)
class Preview:
    """Pictures were drawn with the word as it is."""

    job: str
    path: Path


@dataclass(frozen=True, slots=True)
class Saved:
    """The word as it is was saved on the way."""

    job: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """A run has taken a step."""

    job: str
    step: int
    max_train_steps: int
    loss: float
    """On the fixed batch, when it was scored last."""
    best_loss: float
    best_step: int
    distance: float
    """How far the rows have moved from where they started."""
    learning_rate: float
    time_s: float
    """Time spent on the run in all its parts, s."""
    left_s: float | None
    """Time that the rest takes at this speed, s; ``None`` before there is a speed."""
    evaluated: bool
    """Whether this step was scored."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """A study's job has come further."""

    job: str
    doing: Literal["learning", "drawing"]
    share: float
    """How much of that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One of many jobs is at its end, for this call."""

    job: str
    text: str
    """How, in a few words."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A process takes up jobs on a cluster."""

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
    """SIGTERM and a closed terminal interrupt as Ctrl-C does: for those who have others to stop."""

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
