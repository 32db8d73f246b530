"""What learning a word will take, said before it begins: steps, time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from oneword.config.model import ModelConfig
from oneword.config.runs import ResolvedTrainConfig, TrainConfig
from oneword.config.tuning import TUNING
from oneword.models.memory.count import Work
from oneword.models.memory.plan import Plan, gb
from oneword.runs.pace import pace
from oneword.runs.prepare import work_of
from oneword.web.desk import Desk, WorkerError
from oneword.web.workspace import Workspace


_PATIENCE_S = 120.0  # for the worker, which may be drawing
_LONG_S, _LONGER_S = 90, 90 * 60  # from which on a time is told in minutes, and in hours


class Foreseen:
    """What words will take.

    Time is what words like it took in this workspace, or said to be unknown; memory is counted from
    the model's shapes, by the worker and once for all settings that need the same.

    Args:
        workspace: Where the words are that were learned here.
        desk: The worker's.
    """

    def __init__(self, workspace: Workspace, desk: Desk) -> None:
        self.workspace, self.desk = workspace, desk
        self._needs: dict[tuple[ModelConfig, Work], Future[Any]] = {}

    def lines(self, config: TrainConfig) -> Iterator[str]:
        """What a run will take; the last line is the whole one.

        Args:
            config: Of the run.
        """
        loaded = self.desk.loaded
        if loaded is None:
            yield "Unknown until the model is loaded."
            return
        resolved = config.resolved(loaded.family, loaded.resolution)
        time = self._time(resolved)
        if resolved.inversion.setup in TUNING:
            yield f"{time} Memory: unknown for setups that change the model's weights."
        elif loaded.memory:  # which the model was loaded by
            yield f"{time} {loaded.memory[:1].upper()}{loaded.memory[1:]}."
        else:
            yield f"{time} Memory: being estimated."
            yield f"{time} {self._memory(resolved)}"

    def _time(self, config: ResolvedTrainConfig) -> str:
        own = config.inversion
        if not own.total_steps:
            return "No training: the encoder makes the word from the pictures in one step."
        steps = f"At most {own.total_steps} steps of {own.train_batch_size} samples"
        found = pace(self.workspace.words.glob("*"), config)
        if found is None:
            return f"{steps}; the time is unknown until a similar word has been trained."
        words = (
            "the last similar word"
            if found.num_runs == 1
            else f"the last {found.num_runs} similar words"
        )
        return (
            f"{steps}, about {told(own.total_steps * found.step_s)}, based on {words} "
            f"({found.step_s:.2g} s per step)."
        )

    def _memory(self, config: ResolvedTrainConfig) -> str:
        work = work_of(config)
        key = self.desk.model, work
        if key not in self._needs:
            _, self._needs[key] = self.desk.ask(work)
        try:
            plan: Plan = self._needs[key].result(timeout=_PATIENCE_S)
        except TimeoutError:
            return "Memory: still being estimated."
        except WorkerError:
            self._needs.pop(key, None)  # another worker may know
            return "Memory: unknown."
        if plan.expected is None:
            return "Memory: unknown for this kind of file."
        least = "" if plan.counted else "at least "
        return (
            f"Memory: {least}{gb(plan.expected)} expected at the peak, including the model; "
            f"{gb(plan.free)} free on top of what is in use."
        )


def told(seconds: float) -> str:
    """A time as a person says it."""
    if seconds >= _LONGER_S:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= _LONG_S else f"{seconds:.0f} s"
