"""Requests to a run in progress: a preview or the word, now.

A request is a file in the run folder, which is removed once it is served, or a signal on systems
that have it. Files are checked at most once a second, between steps, so that steps cost no more.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal


What = Literal["preview", "save"]
FILES: dict[What, str] = {"preview": "preview-now", "save": "save-now"}
"""Names of the files, by what they request."""
SIGNALS: dict[What, str] = {"preview": "SIGUSR1", "save": "SIGUSR2"}  # Windows has neither
_EVERY_S = 1.0


@contextlib.contextmanager
def by_signal() -> Iterator[Mapping[What, int]]:
    """Inside the context: how often each has been requested by its signal."""
    asked: Counter[What] = Counter()

    def count(what: What) -> Callable[..., None]:
        return lambda *_: asked.update((what,))

    with _handled({what: count(what) for what in SIGNALS}):
        yield asked


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Inside the context, the signals do nothing if no run listens (by default they kill)."""
    with _handled(dict.fromkeys(SIGNALS, signal.SIG_IGN)):
        yield


@contextlib.contextmanager
def _handled(handlers: Mapping[What, Callable[..., None] | signal.Handlers]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    numbers: dict[What, Any] = {what: getattr(signal, name, None) for what, name in SIGNALS.items()}
    before = {
        number: signal.signal(number, handlers[what])
        for what, number in numbers.items()
        if number is not None
    }
    try:
        yield
    finally:
        for number, handler in before.items():  # None: not set by Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Requests:
    """The requests to one run.

    Args:
        folder: The run's folder.
        signals: From ``by_signal``.
        say: Called if a file cannot be removed.
    """

    def __init__(
        self, folder: Path, signals: Mapping[What, int], say: Callable[[str], None]
    ) -> None:
        self.paths: dict[What, Path] = {what: folder / name for what, name in FILES.items()}
        self.signals, self.say = signals, say
        self._seen: dict[What, int] | None = None
        self._waiting: set[What] = set()
        self._next_s = -float("inf")

    def due(self) -> set[What]:
        """The requests due between two steps; a signal before the first step was for others."""
        now = dict(self.signals)
        before, self._seen = now if self._seen is None else self._seen, now
        self._waiting |= {what for what, count in now.items() if count > before.get(what, 0)}
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _EVERY_S
            for what, path in self.paths.items():
                with contextlib.suppress(OSError):
                    if path.is_file():
                        self._waiting.add(what)
        return {*self._waiting}

    def served(self, what: What) -> None:
        """Mark a request as done: remove its file."""
        self._waiting.discard(what)
        path = self.paths.get(what)
        try:
            if path is not None:
                path.unlink(missing_ok=True)
        except OSError as error:
            del self.paths[what]
            self.say(
                f"{path} was served but cannot be removed ({error.strerror or error}); this run "
                "will not look for it again."
            )
