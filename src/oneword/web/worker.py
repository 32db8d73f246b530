"""The process that holds the model: it learns the words in its queue, and draws between steps.

The server talks to it through a pipe. Where the server is gone, it saves every state and ends.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from oneword.concepts.library import how_learned
from oneword.concepts.named import flat, read_words
from oneword.config.checks import seeds_of
from oneword.config.drawing import EditConfig, GenerateConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.scoring import ChooseConfig
from oneword.errors import UserError, why
from oneword.evaluation import choosing, grids, steps
from oneword.evaluation.features import Judge, load_judge
from oneword.evaluation.grids import Cell
from oneword.generation import editing, from_config, generate as generation
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone, needed_memory
from oneword.models.memory.count import Work
from oneword.runs import prepare
from oneword.runs.events import Ended, Event, Stepped
from oneword.runs.many import train_many
from oneword.runs.train import rank_initializers
from oneword.runs.words import read_saved


@dataclass(frozen=True, slots=True)
class Teach:
    """Learn a word, after those that wait already."""

    config: TrainConfig


@dataclass(frozen=True, slots=True)
class Stop:
    """End a word's learning after its step, with its state saved."""

    name: str


@dataclass(frozen=True, slots=True)
class Rank:
    """Say which existing words a run could start from, the best first."""

    config: TrainConfig


@dataclass(frozen=True, slots=True)
class Task:
    """Something that takes seconds and has a result: it is done before the next step."""

    number: int
    config: GenerateConfig | EditConfig | ChooseConfig | TrainConfig | Rank | Work
    """Draw; edit; draw what a run's saved words draw; say what a run would do, or which words it
    could start from; or what memory some work would need."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is ready."""

    family: str
    name: str
    resolution: int
    memory: str
    """How memory is saved, and the expected peak, in words; empty where nothing was asked."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A word waits for its turn."""

    name: str


@dataclass(frozen=True, slots=True)
class Left:
    """A word learns no longer, since somebody stopped it."""

    name: str


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a task is done."""

    number: int
    done: float
    total: int


@dataclass(frozen=True, slots=True)
class Done:
    """A task's result, or why there is none."""

    number: int
    result: Any = None
    error: str = ""


_NICE = 5
"""What the worker adds to its niceness: the server and the browser go first on a busy machine."""


def work(model: ModelConfig, slots: int, pipe: Connection) -> None:
    """Serve one server until it goes; the body of the process."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which says so
    try:
        backbone = load_backbone(model)
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        pipe.send(Done(-1, error=why(error)))
        return
    worker = _Worker(model, backbone, slots, pipe)
    pipe.send(Loaded(backbone.family, backbone.name, backbone.resolution, backbone.memory))
    worker.run()


class _Worker:
    """What waits, what learns, and who asked for it."""

    def __init__(
        self, model: ModelConfig, backbone: Backbone, slots: int, pipe: Connection
    ) -> None:
        self.model, self.backbone, self.slots, self.pipe = model, backbone, slots, pipe
        self.asked: queue.Queue[Teach | Task | None] = queue.Queue()
        self.to_stop: set[str] = set()
        self.learning: list[TrainConfig] = []
        self.judge: Judge | None = None
        self.gone = False
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        """Do what is asked until the server has gone."""
        while not self.gone:
            asked = self.asked.get()
            if isinstance(asked, Task):
                self._do(asked)
            elif isinstance(asked, Teach):
                self._learn([asked.config])

    # --- as the guest of the words that learn ---

    def waits(self) -> bool:
        """Whether something was asked since the last round of steps."""
        return self.gone or bool(self.to_stop) or not self.asked.empty()

    def served(self) -> Sequence[TrainConfig]:
        """Do the tasks; the words that were asked for join."""
        joining: list[TrainConfig] = []
        if self.gone or self.to_stop:
            raise KeyboardInterrupt
        while not self.asked.empty():
            asked = self.asked.get()
            if isinstance(asked, Task):
                self._do(asked)
            elif isinstance(asked, Teach):
                joining.append(asked.config)
        self.learning += joining
        return joining

    # --- learning ---

    def _learn(self, configs: list[TrainConfig]) -> None:
        """Learn words until all have ended or been stopped."""
        while configs and not self.gone:
            self.learning = list(configs)
            try:
                outcomes = train_many(
                    configs, slots=self.slots, backbone=self.backbone, on_event=self._tell,
                    guest=self,
                )  # fmt: skip
            except UserError as error:
                for config in self.learning:
                    self._send(Ended(config.output_dir.name, f"failed: {error}", failed=True))
                return
            taken = self.to_stop & {config.output_dir.name for config in self.learning}
            self.to_stop.clear()
            interrupted = {
                one.name for one in outcomes
                if (one.outcome is not None and one.outcome.result.status == "interrupted")
                or one.error == "stopped before it began"
            }  # fmt: skip
            for name in taken & interrupted:  # the others have told of their ends
                self._send(Left(name))
            configs = [
                config for config in self.learning
                if config.output_dir.name in interrupted - taken
            ]  # fmt: skip
            for config in configs:
                self._send(Queued(config.output_dir.name))
        self.learning = []

    def _tell(self, event: Event) -> None:
        self._send(event)
        # setups that change weights have no guest
        if isinstance(event, Stepped) and (self.gone or event.job in self.to_stop):
            raise KeyboardInterrupt

    # --- tasks ---

    def _do(self, task: Task) -> None:
        try:
            result = self._result(task)
        except UserError as error:
            self._send(Done(task.number, error=str(error)))
        except Exception as error:
            traceback.print_exc()
            self._send(Done(task.number, error=f"Failed: {why(error)}"))
        else:
            self._send(Done(task.number, result))

    def _result(self, task: Task) -> Any:
        def show(done: float, total: int) -> None:
            self._send(Share(task.number, done, total))

        config = task.config
        if isinstance(config, GenerateConfig):
            if (config.keep is not None or config.score) and self.judge is None:
                self.judge = load_judge(config.judge, self.backbone)
            return drawn(self.backbone, config, show, judge=self.judge)
        if isinstance(config, EditConfig):
            return edited(self.backbone, config, show)
        if isinstance(config, ChooseConfig):
            return compared(self.backbone, config, show)
        if isinstance(config, Work):
            return needed_memory(self.model, config)
        if isinstance(config, Rank):
            return rank_initializers(config.config, self.backbone)
        return prepare.prepare(config, self.backbone).plan

    # --- the pipe ---

    def _listen(self) -> None:
        while True:
            try:
                asked = self.pipe.recv()
            except (EOFError, OSError):
                asked = None
            if asked is None:
                self.gone = True
                self.asked.put(None)
                return
            if isinstance(asked, Stop):
                self.to_stop.add(asked.name)
            else:
                self.asked.put(asked)

    def _send(self, message: Any) -> None:
        try:
            self.pipe.send(message)
        except OSError:
            self.gone = True


Pictures = list[tuple[Path, dict[str, str]]]
"""Files of pictures, each with what made it."""


def drawn(
    backbone: Backbone,
    config: GenerateConfig,
    on_picture: Callable[[float, int], None],
    *,
    judge: Judge | None = None,
) -> Pictures:
    """Draw as ``oneword generate`` does, into the config's folder; with ``keep``, the best alone.

    Args:
        backbone: The model.
        config: What to draw; of a grid, words alone are an axis.
        on_picture: Told how far it is.
        judge: The CLIP that ranks or scores, where that is asked for.

    Returns:
        The pictures; those of a grid have its "checkpoint" and how that was learned, too.

    Raises:
        UserError: a word, a prompt or the folder cannot be used.
    """
    if config.axes:
        return _columns(backbone, config, on_picture, judge)
    words = read_words(config.concepts)
    drawing = from_config.draw(config, backbone, flat(words), on_picture)
    if judge is not None and (config.keep is not None or config.score):
        references = choosing.references_of(words, backbone.resolution)
        if config.keep is None:
            drawing = choosing.scored(drawing, judge, references=references)
        else:
            choice = choosing.choose(drawing, judge, keep=config.keep, references=references)
            drawing, _ = choosing.apart(drawing, choice)
    files = generation.save_drawing(drawing, config.output_dir)
    return [(file, drawing.metadata(i)) for i, file in enumerate(files[:-1])]


def _columns(
    backbone: Backbone,
    config: GenerateConfig,
    on_picture: Callable[[float, int], None],
    judge: Judge | None,
) -> Pictures:
    """What each file of words draws for the same prompts and seeds."""
    cells = grids.cells_of(config)
    count = len(cells[0].prompts) * len(config.drawn_seeds)

    @contextmanager
    def counting(cell: Cell) -> Iterator[generation.OnPicture]:
        yield lambda done, _: on_picture(cell.number * count + done, len(cells) * count)

    made: Pictures = []
    for cell, drawing, files in grids.draw(
        config,
        cells,
        lambda _: backbone,
        counting,
        None if judge is None or not config.score else lambda _: judge,
    ):
        own = {"checkpoint": str(cell.values[0])} | how_learned(flat(cell.words)[-1])
        made += [(file, drawing.metadata(i) | own) for i, file in enumerate(files)]
    return made


def edited(
    backbone: Backbone, config: EditConfig, on_picture: Callable[[float, int], None]
) -> Pictures:
    """Edit as ``oneword edit`` does, into the config's folder.

    Raises:
        UserError: the picture, a word, the prompt or the folder cannot be used.
    """
    edits = from_config.edit(config, backbone, flat(read_words(config.concepts)), on_picture)
    files = editing.save_edits(edits, config.output_dir)
    return [(file, edits.drawing.metadata(i)) for i, file in enumerate(files[:-1])]


def compared(
    backbone: Backbone, config: ChooseConfig, on_picture: Callable[[float, int], None]
) -> Pictures:
    """What every saved word of a run draws, as ``oneword choose`` does, into ``steps/`` of the run.

    Returns:
        The pictures, each with "step" among what made it: "initialiser", or a number.

    Raises:
        UserError: the run has saved no words, or the folder cannot be written.
    """
    saved = read_saved(config.run)
    found = steps.compare(
        backbone,
        saved.words,
        config.prompts or saved.prompts,
        seeds_of(config.seeds) or saved.seeds,
        sampling=config.sampling,
        batch_size=config.batch_size,
        replace=bool(saved.config.get("replace")),
        on_picture=on_picture,
    )
    drawings = {str(step): drawing for step, drawing in found.steps.items()}
    if found.initializer is not None:
        drawings = {"initialiser": found.initializer} | drawings
    return [
        (file, drawing.metadata(i) | {"step": step})
        for step, drawing in drawings.items()
        for i, file in enumerate(
            generation.save_pictures(drawing, config.run / "steps", mark=f"step {step}")
        )
    ]
