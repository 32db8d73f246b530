"""``train``: the function behind ``oneword train``, from a folder of pictures to a concept file.

It prepares the job, runs the loop inside a run folder, and reports everything through one callback;
it prints nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from oneword._files import write_together
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.runs import TrainConfig
from oneword.errors import ConfigError, UserError
from oneword.generation.generate import slug
from oneword.models.contract import Backbone
from oneword.runs import longer
from oneword.runs.events import (
    Message,
    OnEvent,
    Plan,
    Preview,
    Saved,
    Stepped,
    asked_to_stop,
    tell_nobody,
)
from oneword.runs.folder import HowFar, RunFolder
from oneword.runs.mirror import Mirror
from oneword.runs.prepare import Prepared, prepare
from oneword.runs.requests import Requests, What, by_signal
from oneword.runs.sheets import INITIALIZER, Previews, preview_of
from oneword.runs.trackers import Trackers
from oneword.runs.words import file_of_training, note_of
from oneword.training.batches import Batches
from oneword.training.extensions import LOSS, form
from oneword.training.initializer import best_first, noun_losses
from oneword.training.job import Progress, Result
from oneword.training.loop import invert
from oneword.training.processes import ALONE, ProcessError, Processes
from oneword.training.tuning import method
from oneword.vocabulary.vocabulary import distance_to_words


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """The outcome of a call of ``train``."""

    result: Result
    folder: Path
    concept_file: Path | None
    """``None`` if there is nothing worth keeping, or the run has not ended."""
    seconds: float
    """Time spent in this call, in s."""
    was_finished: bool = False
    """Whether the run had already ended, so that nothing was done."""


def dry_run(config: TrainConfig, backbone: Backbone | None = None) -> dict[str, Any]:
    """Everything that ``train`` would do, without writing or training.

    Returns:
        The plan, as JSON values: resolved ``config``, ``family``, effective ``learning_rate`` in
        both units, ``pictures`` found and ``skipped``, ``num_samples`` of training, ``run`` ("new",
        "resume" or "finished").

    Raises:
        UserError: training could not begin.
    """
    prepared = prepare(config, backbone)
    folder = folder_of(config)
    found = folder.standing(prepared.record)
    notes = prepared.plan["notes"] + longer.notes(found, prepared.config.inversion)
    return prepared.plan | {"run": found.run, "notes": notes}


def rank_initializers(config: TrainConfig, backbone: Backbone | None = None) -> dict[str, float]:
    """Existing words that a run could start from, by how well they explain its pictures.

    Nothing is written. Without an initializer token, ``train`` starts from the first.

    Args:
        config: The settings; their initializer token is ranked as well, if there is one.
        backbone: Its model, if it is already loaded.

    Returns:
        The loss of each word on a few samples of the fixed batch, the lowest first.

    Raises:
        UserError: training could not begin, or would not start from an existing word.

    Source:
        Gal et al. 2022, arXiv:2208.01618, equation 2, for words that are not learned.
    """
    prepared = prepare(config, backbone)
    inversion, given = prepared.config.inversion, prepared.config.inversion.initializer_token
    own = form(inversion)
    if own.described or not (inversion.wants_initializer or given is not None):
        raise ConfigError(
            "Cannot rank initializers because the word would not start from an existing word; "
            "leave out the encoder, the learned file, or a setup with captions."
        )
    batches = Batches(
        prepared.backbone, prepared.job, inversion, prompts=own.prompts, against=own.against
    )
    return best_first(noun_losses(batches, LOSS, also=[] if given is None else [given]))


def train(
    config: TrainConfig,
    *,
    on_event: OnEvent | None = None,
    backbone: Backbone | None = None,
    processes: Processes = ALONE,
) -> TrainOutcome:
    """Learn a word from the pictures in a folder, in a run folder that can be resumed.

    Ctrl-C, SIGTERM and SIGHUP (a closed terminal) finish the step, save the state, and give a
    result of status "interrupted". SIGUSR1 or a file ``preview-now`` in the folder requests a
    preview, SIGUSR2 or ``save-now`` the word as it is. While it runs, no other process can write
    into the folder.

    Args:
        config: The settings; ``output_dir`` may have the same run, begun before.
        on_event: Called with the plan, messages, steps and previews.
        backbone: Its model, if it is already loaded.
        processes: Processes that share the run, from ``processes.joined``; each calls this with the
            same config. Only the first writes into the folder and reports events.

    Raises:
        UserError: the folder, the pictures, the model or the settings cannot be used, or another
            process has failed.
    """
    if config.num_processes not in (1, processes.count):
        raise ConfigError(
            f"num_processes must be the number of running processes, {processes.count}, got "
            f"{config.num_processes}; leave it out, or let oneword train start them."
        )
    config = dataclasses.replace(config, num_processes=processes.count)
    with by_signal() as signals:
        if not processes.is_first:
            return _followed(config, processes, backbone)
        return _led(config, on_event or tell_nobody, backbone, processes, signals)


def _led(
    config: TrainConfig,
    tell: OnEvent,
    backbone: Backbone | None,
    processes: Processes,
    signals: Mapping[What, int],
) -> TrainOutcome:
    """The part of the first process, or of the only one."""
    name = config.output_dir.name
    with contextlib.ExitStack() as held:
        with processes.agreed():
            folder, prepared, found = opened(config, backbone)
            held.callback(folder.release)
        _check_alike(prepared, processes)
        learn = _method(prepared, processes)
        tell_plan(prepared, found, name, tell)
        if found.run == "finished":
            result = learn(prepared.backbone, prepared.job, checkpoint=folder.kept())
            outcome = ended_before(result, folder)
            more = f" To continue it, pass a higher {found.more}." if found.more else ""
            said = f"The run in {folder.path} has already finished. {ending(result)}{more}"
            tell(Message(name, said))
            tell_choice(folder, tell)
            return outcome
        started, is_new = time.monotonic(), found.run == "new"
        with folder.holding(is_new=is_new), asked_to_stop() as asked:
            watch = Watch(prepared, folder, tell, asked, signals, found)
            try:
                result = learn(
                    prepared.backbone, prepared.job, on_step=watch.on_step, checkpoint=folder.state
                )
            finally:
                watch.trackers.close()
        keep(result, folder, watch.elapsed())
        tell(Message(name, ending(result)))
        tell_choice(folder, tell)
        return outcome_of(result, folder, time.monotonic() - started)


def _followed(config: TrainConfig, processes: Processes, backbone: Backbone | None) -> TrainOutcome:
    """The part of a process that is not the first: it trains along, and writes nothing."""
    with processes.agreed():
        prepared = prepare(config, backbone)
    _check_alike(prepared, processes)
    started = time.monotonic()
    with asked_to_stop() as asked:

        def on_step(progress: Progress) -> None:  # noqa: ARG001  (its shape)
            if asked.is_set():
                raise KeyboardInterrupt

        result = _method(prepared, processes)(prepared.backbone, prepared.job, on_step=on_step)
    return TrainOutcome(
        result=result,
        folder=config.output_dir,
        concept_file=None,
        seconds=time.monotonic() - started,
    )


def _check_alike(prepared: Prepared, processes: Processes) -> None:
    """Refuse processes that see other pictures than the first, for example on another machine.

    Raises:
        ProcessError: one does.
    """
    own = prepared.record["pictures_sha256"]
    first = processes.from_first(own)
    with processes.agreed():
        if own != first:
            raise ProcessError(
                "All processes of a run must see the same pictures and captions, got others in "
                f"{prepared.config.train_data_dir} on this one's machine."
            )


def _method(prepared: Prepared, processes: Processes) -> Callable[..., Result]:
    """``invert`` of the run's setup, for these processes."""
    if processes.count == 1:
        return method(prepared.job.config.setup)
    return partial(invert, processes=processes)  # no other setup has several


def tell_plan(prepared: Prepared, found: HowFar, name: str, tell: OnEvent) -> None:
    """Report the plan of a run, and what other numbers of steps change."""
    tell(Plan(name, prepared.plan | {"run": found.run}))
    for note in longer.notes(found, prepared.config.inversion):
        tell(Message(name, note))
    if found.num_processes is not None and found.run == "resume":
        now = prepared.config.num_processes
        said = f"num_processes was {found.num_processes} and is {now}"
        tell(Message(name, f"{said}: the run continues; its result is the same up to rounding."))


def tell_choice(folder: RunFolder, tell: OnEvent) -> None:
    """Report a chosen word, which training does not replace."""
    if note := note_of(folder):
        tell(Message(folder.path.name, note))


def folder_of(config: TrainConfig) -> RunFolder:
    """The run's folder, with its mirror.

    Raises:
        MirrorError: its URL names no file system that is installed.
    """
    mirror = None if config.mirror is None else Mirror(config.mirror)
    return RunFolder(config.output_dir, steps=config.checkpointing_steps, mirror=mirror)


def opened(
    config: TrainConfig, backbone: Backbone | None = None
) -> tuple[RunFolder, Prepared, HowFar]:
    """The run's claimed folder, the result of ``prepare``, and the run's progress.

    The caller releases the folder.

    Raises:
        UserError: training could not begin; no empty folder stays behind.
    """
    folder = folder_of(config)
    folder.claim()
    try:
        prepared = prepare(config, backbone)
        found = folder.standing(prepared.record)
        if found.run == "resume":
            folder.as_begun()
        return folder, prepared, found
    except BaseException:
        folder.release()
        raise


_KEPT = ("finished", "stopped", "diverged")  # ends with something worth keeping


def keep(result: Result, folder: RunFolder, elapsed_s: float) -> None:
    """Write the concept file of a run that ended with something worth keeping."""
    files = kept_files(result, folder, elapsed_s)
    if files:
        write_together(files)
        folder.push()


def kept_files(result: Result, folder: RunFolder, elapsed_s: float) -> dict[Path, bytes]:
    """The files that :func:`keep` writes, by path."""
    if result.concept is None or result.status not in _KEPT:
        return {}
    provenance = result.concept.provenance | {"train_time_s": round(elapsed_s, 1)}
    target = file_of_training(folder)
    files = formats.files_of(dataclasses.replace(result.concept, provenance=provenance), target)
    if target != folder.learned:
        return files
    return files | preview_of(result.concept.placeholder_token, folder, folder.last_preview())


def ended_before(result: Result, folder: RunFolder) -> TrainOutcome:
    """The outcome of a run that had ended; what its process, killed then, still owed is written."""
    if result.concept is not None and not _is_kept(result.concept, folder):
        course = folder.course()
        keep(result, folder, float(course[-1]["time_s"]) if course else 0.0)
    folder.push()
    return outcome_of(result, folder, 0.0, was_finished=True)


def _is_kept(concept: Concept, folder: RunFolder) -> bool:
    """Whether training's file exists and has this word, not that of a shorter run."""
    try:
        return formats.load_concept(file_of_training(folder)).sha256() == concept.sha256()
    except UserError:
        return False


def outcome_of(
    result: Result, folder: RunFolder, seconds: float, *, was_finished: bool = False
) -> TrainOutcome:
    """The outcome of a call, from the contents of the folder."""
    ended = result.status in _KEPT and folder.learned.is_file()
    return TrainOutcome(
        result=result,
        folder=folder.path,
        concept_file=folder.learned if ended else None,
        seconds=seconds,
        was_finished=was_finished,
    )


def ending(result: Result) -> str:
    """How a run ended, in a sentence."""
    words = {
        "finished": "Finished",
        "stopped": "Stopped early",
        "nothing-learned": "Nothing was learned",
        "diverged": "Diverged",
    }
    if result.status == "interrupted":
        return f"Stopped after step {result.steps}. To resume, run the same command again."
    reason = f": {result.reason.rstrip('.')}" if result.reason else ""
    return f"{words[result.status]} at step {result.steps}{reason}."


# --- while training ------------------------------------------------------------------------------


class Watch:
    """Writes metrics and previews, and reports progress, while the loop runs.

    The record of a new run is written at its first step, so that a run that is refused before
    leaves nothing.
    """

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        tell: OnEvent,
        asked: threading.Event,
        signals: Mapping[What, int],
        found: HowFar,
    ) -> None:
        self.is_new = found.run == "new"
        self.prepared, self.folder, self.tell, self.asked = prepared, folder, tell, asked
        self.config, self.name = prepared.config, folder.path.name
        self.previews = Previews(self.config, prepared.backbone, folder)
        self.requests = Requests(folder.path, signals, lambda text: tell(Message(self.name, text)))
        self.started = time.monotonic()
        state = folder.state.load()
        step = state.step if state else None
        self.first_step = step or 0
        scored = state.scored if state else None
        self.before_s = 0.0 if self.is_new else folder.rewind_metrics(scored)
        if found.before or found.num_processes is not None:
            folder.write_record(prepared.record)
        self.trackers = Trackers(
            self.config.report_to,
            folder.path,
            self.name,
            # the scoring at a shorter run's end is undone
            step=(scored or 0) if found.before else self.first_step,
            say=lambda text: tell(Message(self.name, text)),
        )
        self.is_tracked = False
        if step is not None:
            tell(Message(self.name, f"Resuming from step {self.first_step}."))

    def elapsed(self) -> float:
        """Total time spent on this run, in s."""
        return self.before_s + time.monotonic() - self.started

    def on_step(self, progress: Progress) -> Literal["stop"] | None:
        if self.is_new:
            self.folder.write_record(self.prepared.record)
            self.folder.rewind_metrics(None)
            self.is_new = False
        elif self.folder.made_anew(self.prepared.record):
            text = "was deleted and is created again: its contents are lost, but the run continues."
            self.tell(Message(self.name, f"The folder {self.folder.path} {text}"))
        if not self.is_tracked:
            self.trackers.begin(self.prepared.record["config"])
            self.is_tracked = True
        if progress.message:
            self.tell(Message(self.name, progress.message))
        time_s = round(self.elapsed(), 3)
        # A scoring that was not finite has no loss of its own.
        if progress.evaluated and progress.losses and progress.losses[-1][0] == progress.step:
            metrics = {
                "loss": progress.loss,
                "distance": progress.distance,
                "lr": progress.learning_rate,
                "time_s": time_s,
            }
            far = distance_to_words(self.prepared.backbone.vocabularies, progress.rows)
            if far is not None:
                metrics["word_distance"] = far
            self.folder.add_metrics({"step": progress.step} | metrics)
            self.trackers.log(metrics, progress.step)
        total = progress.config.max_train_steps or 0
        done = progress.step - self.first_step
        step_s = (time.monotonic() - self.started) / done if done > 0 else None
        self.tell(
            Stepped(
                job=self.name,
                step=progress.step,
                max_train_steps=total,
                loss=progress.loss,
                best_loss=progress.best_loss,
                best_step=progress.best_step,
                distance=progress.distance,
                learning_rate=progress.learning_rate,
                time_s=time_s,
                left_s=None if step_s is None else step_s * (total - progress.step),
                evaluated=progress.evaluated,
            )
        )
        asked, step = self.requests.due(), progress.step
        # before the run may be stopped, since it goes on behind this step
        if step and _is_turn(step, self.config.save_steps):
            self._save(progress)
            self.requests.served("save")
        elif "save" in asked:
            self._serve("save", self._save, progress)
        self._stop_if_asked()
        if _is_turn(step, self.config.validation_steps):
            self._preview(progress)
            self.requests.served("preview")
        elif "preview" in asked:
            self._serve("preview", self._preview, progress)
        return None

    def _serve(self, what: What, do: Callable[[Progress], None], progress: Progress) -> None:
        """Serve requests; if one cannot be met, the run continues without it."""
        try:
            do(progress)
        except UserError as error:
            self.tell(Message(self.name, f"Cannot do what was asked: {error}"))
        self.requests.served(what)

    def _stop_if_asked(self, *_: int) -> None:
        if self.asked.is_set():
            raise KeyboardInterrupt

    def _save(self, progress: Progress) -> None:
        """Save the present word."""
        path = self.folder.word(progress.step)
        write_together(formats.files_of(progress.word(), path))
        self.tell(Saved(self.name, path))

    def _preview(self, progress: Progress) -> None:
        """Draw with the present word."""
        sheet, is_new = self.previews.draw(progress, self._stop_if_asked)
        path = self.folder.preview(progress.step)
        sheet.save(path, progress.config.placeholder_token)
        for i, prompt in enumerate(sheet.prompts):
            # as it was when there was one prompt
            end = "" if len(sheet.prompts) == 1 else f"/{i}-{slug(prompt)}"
            self.trackers.log_pictures(f"previews{end}", sheet.of(i), progress.step)
            if is_new:
                self.trackers.log_pictures(f"{INITIALIZER}{end}", sheet.beside_of(i), progress.step)
        self.tell(Preview(self.name, path))


def _is_turn(step: int, every: int) -> bool:
    """Whether something that is done at regular steps is due; 0: never."""
    return every > 0 and step % every == 0
