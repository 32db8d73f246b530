"""What a run tells while it goes, and how it is asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


OnEvent = Callable[[str, Any], None]
"""``on_event(kind, data)``: "plan" (dict), "message" (str), "progress" (dict), "preview" (Path)."""


def tell_nobody(kind: str, data: Any) -> None:
    """Stand in for an absent ``on_event``."""


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends the process as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: Any) -> None:  # noqa: ARG001  (the shape of a handler)
        asked.set()
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()
