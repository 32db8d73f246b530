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
            left = task.time_remaining
            if (task.elapsed or 0) > SHORT_S and left:
                line(done, total, f"{what}: {done:.0f}/{total:.0f}  {duration(left)} left")

        yield show


def tenths(console: Console) -> Callable[[float, float, str], None]:
    """Plain lines where a bar cannot move, as in a log file: ``line(done, total, text)``.

    One line for each tenth that is done but the last; none on a terminal.
    """
    shown = 0

    def line(done: float, total: float, text: str) -> None:
        nonlocal shown
        now = int(10 * done / total) if total else 0
        if not console.is_terminal and shown < now < 10:
            shown = now
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    return line


def duration(seconds: float) -> str:
    """Minutes and seconds, as a person says them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"
