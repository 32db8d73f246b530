"""The one place that shows how far work has come, on standard error so that results can be piped.

On a terminal these are bars; in a log file or pipe, where a bar cannot move, a line for each tenth.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from oneword._escaping import terminal
from oneword.cli.options import READER_GONE, say
from oneword.runs.events import Event, Message, Plan, Preview, Saved, Stepped


SHORT_S = 10.0
"""What is counted without a time of its own and takes no longer than this gets no lines."""


@runtime_checkable
class Counter(Protocol):
    """Shows how many things are done."""

    def __call__(self, done: float, total: float, numbers: str = "") -> None:
        """Show it, with what else is worth knowing."""
        ...


class Console(rich.console.Console):
    """rich's, but for texts that would command the terminal, and for pipes that nobody reads."""

    def print(self, *objects: Any, emoji: bool = False, **options: Any) -> None:
        """As rich's; of a text, control characters are spelled and ``:cat:`` stays what it is."""
        shown = (terminal(o, lines=True) if isinstance(o, str) else o for o in objects)
        super().print(*shown, emoji=emoji, **options)

    def on_broken_pipe(self) -> None:
        """End the process, as no ``Exception`` that could pass for the failure of a job."""
        self.quiet = True
        raise SystemExit(READER_GONE)


class Display:
    """Bars or lines, and what is to be read between them."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console, self.progress = console, progress
        self._bars: dict[str, Bar] = {}

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text, highlight=False, markup=False)

    def bar(self, what: str, total: float) -> Bar:
        """The bar of that name, made when it is first asked for."""
        if what not in self._bars:
            self._bars[what] = Bar(self, what, total)
        return self._bars[what]

    def remove(self, what: str) -> None:
        """Take a bar away, where there is one."""
        if what in self._bars:
            self.progress.remove_task(self._bars.pop(what).task)

    def counting(self, what: str) -> Counter:
        """A bar of things done: ``show(done, total)``."""
        bar = self.bar(what, 1)  # all is not known yet
        first: list[
            tuple[float, float]
        ] = []  # time and count: some of it may be of an earlier call

        def show(done: float, total: float, numbers: str = "") -> None:
            bar.total, now = total, time.monotonic()
            if not first:
                first.append((now, done))
            elapsed, more = now - first[0][0], done - first[0][1]
            left_s = elapsed / more * (total - done) if more > 0 else None
            bar.show(done, numbers, left_s=left_s, lines=elapsed > SHORT_S)

        return show

    def on_run(self, event: Event) -> None:
        """Show what a run of one word tells of."""
        match event:
            case Plan():
                for line in _plan_lines(event):
                    self.say(line)
            case Message():
                self.say(event.text)
            case Preview():
                self.say(f"preview: {event.path}")
            case Saved():
                self.say(f"word: {event.path}")
            case Stepped():
                numbers = (
                    f"loss {event.loss:.4f} (best {event.best_loss:.4f} at {event.best_step})  "
                    f"moved {event.distance:.2f}"
                )
                bar = self.bar("learning", event.max_train_steps)
                bar.show(event.step, numbers, left_s=event.left_s)
            case _:
                pass

    def close(self) -> None:
        """Leave the bars without a time left: work that stopped early has none."""
        for bar in self._bars.values():
            self.progress.update(bar.task, text=bar.numbers)


class Bar:
    """How far one thing has come."""

    def __init__(self, display: Display, what: str, total: float) -> None:
        self.display, self.what, self.total = display, what, total
        self.task = display.progress.add_task(what, total=total, text="")
        self.numbers = ""
        self.tenths = 0

    def show(
        self,
        done: float,
        numbers: str = "",
        *,
        left_s: float | None = None,
        now: str = "",
        lines: bool = True,
    ) -> None:
        """Move the bar.

        Args:
            done: Of ``total``.
            numbers: What else is worth knowing.
            left_s: Time left, s; ``None`` where it is not known, and then there are no lines.
            now: What is being worked on, for the terminal alone.
            lines: Whether a log file gets a line for each tenth that is done, but the last.
        """
        self.numbers, left = numbers, time_left(left_s)
        text = "  ".join(filter(None, [numbers, left, now]))
        self.display.progress.update(self.task, completed=done, total=self.total, text=text)
        tenths = int(10 * done / self.total) if self.total else 0
        console = self.display.console
        if console.is_terminal or not lines or left_s is None or not self.tenths < tenths < 10:
            return
        self.tenths = tenths
        line = "  ".join(filter(None, [f"{self.what}: {int(done)}/{self.total}", numbers, left]))
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def display(console: Console | None = None) -> Iterator[Display]:
    """Show progress until the block ends."""
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console) as progress:
        shown = Display(console, progress)
        yield shown
        shown.close()


@contextmanager
def counting(what: str) -> Iterator[Callable[[float, float], None]]:
    """A bar of things done: ``show(done, total)``."""
    with display() as shown:
        yield shown.counting(what)


@contextmanager
def warnings_said() -> Iterator[None]:
    """Say what a piece of work warns of, each text once, when it is over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        say(text)


def time_left(seconds: float | None) -> str:
    """Seconds, minutes or hours, as a person says them; empty where they are not known."""
    if seconds is None:
        return ""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h left"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min left" if minutes else f"{rest} s left"


def _plan_lines(event: Plan) -> list[str]:
    """A run's plan in short."""
    plan = event.plan
    inversion = plan["config"]["inversion"]
    rates = ", ".join(
        f"{rate['absolute']:.3g} for {name} ({rate['relative']:.2g} of the vocabulary's deviation)"
        for name, rate in plan["learning_rate"].items()
    )
    preset = inversion["preset"]
    validated = "" if plan["preset_validated"] else " (published values, not validated here)"
    lines = [
        f"model {plan['config']['model']['model']} ({plan['family']}, {plan['dtype']} on "
        f"{plan['device']}), preset {preset}{validated}",
        f"{len(plan['pictures'])} pictures: {', '.join(plan['pictures'])}",
        *(f"skipped {item}" for item in plan["skipped"]),
        *plan["notes"],
        *filter(None, [plan["memory"]]),
    ]
    if plan["num_samples"]:  # otherwise a note says that nothing is trained
        lines.append(
            f"learning rate {rates}; up to {inversion['max_train_steps']} steps of "
            f"{inversion['train_batch_size']} samples"
        )
    if plan["run"] == "resume":
        lines.append("resuming this run")
    return lines
