"""How long training takes on this machine, from earlier runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneword._files import read_json
from oneword.config.runs import ResolvedTrainConfig, plain_settings
from oneword.errors import UserError
from oneword.runs.folder import RunFolder


_MOST = 5  # runs, the latest
_SAME = (
    ("model", "model"), ("model", "device"), ("model", "dtype"), ("model", "micro_batch_size"),
    ("resolution",), ("num_processes",), ("inversion", "setup"),
)  # fmt: skip
"""Settings that a run must share for its time to be comparable."""
_RECORD = {"config": {"inversion": {"train_batch_size": int}}}


@dataclass(frozen=True, slots=True)
class Pace:
    """The time of a step."""

    step_s: float
    """Seconds, including its share of scorings and previews: the median over runs."""
    num_runs: int
    """Number of runs that it is based on."""


def pace(folders: Iterable[Path], config: ResolvedTrainConfig) -> Pace | None:
    """The expected time of a run's step, from the runs in some folders.

    Runs of other models, sizes or setups do not count, nor do those without two scorings. Of the
    others, the latest five are used, with a step's time divided by its samples.

    Args:
        folders: Run folders, and perhaps others.
        config: Of the run to come.

    Returns:
        ``None``: nothing is known yet.
    """
    own, found = plain_settings(config), []
    for folder in folders:
        seconds = _sample_s(folder, own)
        if seconds is not None:
            found.append((RunFolder(folder, steps=1).metrics, seconds))
    if not found:
        return None
    latest = sorted(found, key=lambda one: _written(one[0]))[-_MOST:]
    batch = config.inversion.train_batch_size
    return Pace(statistics.median(seconds for _, seconds in latest) * batch, len(latest))


def _sample_s(folder: Path, own: dict[str, Any]) -> float | None:
    """Seconds a sample of a step took in a run like this one."""
    try:
        theirs = read_json(folder / "config.json", _RECORD)["config"]
        course = RunFolder(folder, steps=1).course()
    except UserError:  # none of ours, or gone meanwhile
        return None
    if any(_at(theirs, names) != _at(own, names) for names in _SAME) or len(course) < 2:
        return None
    steps = course[-1]["step"] - course[0]["step"]
    seconds = course[-1]["time_s"] - course[0]["time_s"]
    if steps <= 0 or seconds <= 0:
        return None
    return seconds / steps / theirs["inversion"]["train_batch_size"]


def _at(settings: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
