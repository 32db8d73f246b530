"""Progress lines, on standard error so that results can be piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from rich.console import Console


SHORT_S = 10.0
"""What takes no longer than this is counted without lines."""


@contextmanager
def counting(what: str) -> Iterator[Callable[[float, float], None]]:
    """A bar of things done, with time left: ``show(done, total)``."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    line = tenths(console)
    with Progress(*columns, console=console) as bar:
        number = bar.add_task(what, total=1)
        task = bar.tasks[0]

        def show(done: float, total: float) -> None:
            bar.update(number, completed=done, total=total)
            if (task.elapsed or 0) > SHORT_S:
                line(done, total, task.time_remaining, f"{what}: {done:.0f}/{total:.0f}")

        yield show


def tenths(console: Console) -> Callable[[float, float, float | None, str], None]:
    """Plain lines where a bar cannot move, as in a log file: ``line(done, total, left_s, text)``.

    One line for each tenth that is done but the last, as soon as its time left is known; none on a
    terminal.
    """
    shown = 0

    def line(done: float, total: float, left_s: float | None, text: str) -> None:
        nonlocal shown
        now = int(10 * done / total) if total else 0
        if not console.is_terminal and left_s is not None and shown < now < 10:
            shown = now
            text = f"{text}  {time_left(left_s)}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    return line


def time_left(seconds: float | None) -> str:
    """Seconds, minutes or hours, as a person says them; empty where they are not known."""
    if seconds is None:
        return ""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h left"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min left" if minutes else f"{rest} s left"
