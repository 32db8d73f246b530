"""Curves during a run: ``--report-to``, through accelerate's trackers, in the run folder."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from oneword._files import OutputError, check_writable, read_text, write_atomic
from oneword.config.runs import TrackerName
from oneword.errors import ConfigError, why


FOLDER = "tracking"
"""Folder in a run folder for the files of trackers."""
_CSV = "metrics.csv"
_PROJECT = "oneword"
_MAX_CSV = 2**28  # bytes


class _CsvTracker(GeneralTracker):
    """A table with a line for each scoring, for spreadsheets; a resumed run continues it."""

    name = "csv"
    requires_logging_directory = True

    def __init__(self, folder: Path, step: int) -> None:
        """Take up the table.

        Args:
            folder: Where it lies.
            step: Lines beyond this step are dropped: their steps are done again.
        """
        super().__init__()
        self.path, self.lines = folder / _CSV, list[dict[str, Any]]()
        if self.path.is_file():
            text = read_text(self.path, most=_MAX_CSV, must=f"{self.path} must be a table")
            rows = csv.DictReader(io.StringIO(text))
            self.lines = [row for row in rows if int(row["step"]) <= step]

    @property
    def tracker(self) -> Path:
        return self.path

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """The settings are in ``config.json`` already."""

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.lines.append({"step": step} | values)
        columns = list(dict.fromkeys(name for line in self.lines for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.lines)
        write_atomic(self.path, text.getvalue().encode())


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if name == "tensorboard" and not importlib.util.find_spec("tensorboard"):
            raise ConfigError(
                "Cannot use the tracker 'tensorboard' because its package is not installed; pip "
                "install 'oneword[track]'."
            )
        if name != "csv" and not importlib.util.find_spec(name):  # each is called as its package
            raise ConfigError(
                f"Cannot use the tracker {name!r} because its package is not installed; pip "
                f"install {name.replace('_', '-')}."
            )


class Trackers:
    """The trackers of one run. If one fails during the run, it is dropped and the run continues."""

    def __init__(
        self,
        names: Sequence[TrackerName],
        folder: Path,
        job: str,
        *,
        step: int,
        say: Callable[[str], None],
    ) -> None:
        """Make them ready; nothing is written before ``begin``.

        Args:
            names: Which.
            folder: The run's.
            job: The run's name.
            step: From which it goes on; 0: it is new.
            say: Told of a tracker that is given up.
        """
        self.names, self.place, self.job = tuple(names), folder / FOLDER, job
        self.step, self.say = step, say
        self.trackers: list[Any] = []

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start them, with the run's settings.

        Raises:
            OutputError: one cannot be started.
        """
        for name in self.names:
            try:
                check_writable(self.place)
                tracker = self._made(name)
                tracker.store_init_configuration(_flat(settings))
            except Exception as error:  # of a dozen libraries
                raise OutputError(
                    f"Cannot start the tracker {name!r}: {why(error)}; fix that, or leave it out "
                    "of --report-to."
                ) from error
            self.trackers.append(tracker)

    def _made(self, name: TrackerName) -> Any:
        if name == "csv":
            return _CsvTracker(self.place, self.step)
        kind = LOGGER_TYPE_TO_CLASS[name]
        own: dict[str, Any] = {}
        if name == "tensorboard" and self.step:  # what is beyond is done again
            own["purge_step"] = self.step + 1
        if name in ("wandb", "trackio"):
            own["name"] = self.job
        places = [str(self.place)] if kind.requires_logging_directory else []
        tracker = kind(_PROJECT, *places, **own)
        tracker.start()
        return tracker

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of a step."""
        self._each(lambda tracker: tracker.log(dict(values), step=step))

    def log_pictures(self, name: str, images: Sequence[Image.Image], step: int) -> None:
        """Log pictures of a step, of one size, with the trackers that show some."""

        def show(tracker: Any) -> None:
            if tracker.name == "tensorboard":
                stack = np.stack([np.asarray(image) for image in images])
                tracker.log_images({name: stack}, step=step, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                tracker.log_images({name: list(images)}, step=step)

        self._each(show)

    def close(self) -> None:
        """Let them write what they still hold."""
        self._each(lambda tracker: tracker.finish())
        self.trackers = []

    def _each(self, do: Callable[[Any], None]) -> None:
        for tracker in tuple(self.trackers):
            try:
                do(tracker)
            except Exception as error:  # of a dozen libraries, networks and disks
                self.trackers.remove(tracker)
                self.say(f"The tracker {tracker.name!r} is off from now on: {why(error)}.")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """Settings as trackers take them: plain values under names with dots."""
    flat: dict[str, bool | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, bool | int | float) else str(value)
    return flat
