"""``train``: the function behind ``oneword train``, from a folder of pictures to a concept file.

It prepares the job, lets the loop run inside a run folder, and tells of everything through one
callback; it prints nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from oneword import descriptions
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.inversion import (
    InversionConfig,
    SamplingConfig,
    TrainConfig,
    is_validated,
    plain_settings,
)
from oneword.images import PictureSet, contact_sheet, read_folder, save_png
from oneword.models.contract import Backbone, load
from oneword.models.memory.plan import Work
from oneword.models.speed.compiled import Compiled
from oneword.prompts import as_template, fill, names
from oneword.runs.folder import RunFolder, versions
from oneword.runs.mirror import Mirror
from oneword.training.extensions import form
from oneword.training.parts import Job, Progress, Result, effective_learning_rate
from oneword.training.tuning import BASELINES, method, tuner as tuning
from oneword.vocabulary.inject import injected


_USUAL_BATCH = 8  # the larger one of the presets
OnEvent = Callable[[str, Any], None]
"""``on_event(kind, data)``: "plan" (dict), "message" (str), "progress" (dict), "preview" (Path)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """What a call of ``train`` ended with."""

    result: Result
    folder: Path
    concept_file: Path | None
    """``None`` where there is nothing worth keeping, or the run is not at its end."""
    seconds: float
    """Time spent in this call, s."""
    was_finished: bool = False
    """The run had ended before, and nothing was done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can begin."""

    config: TrainConfig
    backbone: Backbone
    job: Job
    plan: dict[str, Any]
    record: dict[str, Any]


def dry_run(config: TrainConfig, backbone: Backbone | None = None) -> dict[str, Any]:
    """Everything that ``train`` would do, without writing or training.

    Returns:
        JSON-able plan: resolved ``config``, ``family``, effective ``learning_rate`` both ways,
        ``pictures`` found and ``skipped``, ``num_samples`` that training takes, ``run`` ("new",
        "resume" or "finished").

    Raises:
        UserError: training could not begin.
    """
    prepared = prepare(config, backbone)
    folder = folder_of(config)
    return prepared.plan | {"run": folder.standing(prepared.record)}


def train(
    config: TrainConfig, *, on_event: OnEvent | None = None, backbone: Backbone | None = None
) -> TrainOutcome:
    """Learn a word from the pictures in a folder, in a run folder that can be resumed.

    Ctrl-C and SIGTERM end the step, save the state, and give a result of status "interrupted".

    Args:
        config: What to do; ``output_dir`` may hold the same run, begun before.
        on_event: Told of the plan, of messages, progress and previews.
        backbone: Its model, where it is loaded already.

    Raises:
        UserError: the folder, the pictures, the model or the settings cannot be used.
    """
    tell = on_event or tell_nobody
    folder, prepared, standing = opened(config, backbone)
    learn = method(prepared.job.config.setup)
    tell("plan", prepared.plan | {"run": standing})
    if standing == "finished":
        result = learn(prepared.backbone, prepared.job, checkpoint=folder.kept())
        tell("message", f"The run in {folder.path} has ended before. {ending(result)}")
        return outcome_of(result, folder, 0.0, was_finished=True)
    if standing == "new":
        folder.write_record(prepared.record)
    started = time.monotonic()
    with asked_to_stop() as asked:
        watch = Watch(prepared, folder, tell, asked)
        result = learn(
            prepared.backbone, prepared.job, on_step=watch.on_step, checkpoint=folder.state
        )
    keep(result, folder, watch.elapsed())
    tell("message", ending(result))
    return outcome_of(result, folder, time.monotonic() - started)


def folder_of(config: TrainConfig) -> RunFolder:
    """The run's folder, with its mirror.

    Raises:
        MirrorError: its URL names no file system that is installed.
    """
    mirror = None if config.mirror is None else Mirror(config.mirror)
    return RunFolder(config.output_dir, steps=config.checkpointing_steps, mirror=mirror)


def opened(
    config: TrainConfig, backbone: Backbone | None = None
) -> tuple[RunFolder, Prepared, Literal["new", "resume", "finished"]]:
    """The run's folder, claimed; what ``prepare`` found; and how far the run has come.

    Raises:
        UserError: training could not begin; no empty folder stays behind.
    """
    folder = folder_of(config)
    folder.claim()
    try:
        prepared = prepare(config, backbone)
        return folder, prepared, folder.standing(prepared.record)
    except BaseException:
        folder.release()
        raise


def keep(result: Result, folder: RunFolder, elapsed_s: float) -> None:
    """Write the concept file of a run that has ended with something worth keeping."""
    if result.concept is not None and result.status in ("finished", "stopped", "diverged"):
        provenance = result.concept.provenance | {"train_time_s": round(elapsed_s, 1)}
        formats.save(dataclasses.replace(result.concept, provenance=provenance), folder.learned)
        folder.push()


def tell_nobody(kind: str, data: Any) -> None:
    """Stand in for an absent ``on_event``."""


def outcome_of(
    result: Result, folder: RunFolder, seconds: float, *, was_finished: bool = False
) -> TrainOutcome:
    """What a call ended with, by what lies in the folder."""
    ended = result.status != "interrupted" and folder.learned.is_file()
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
        return f"Stopped after step {result.steps}; run the same command again to go on."
    reason = f": {result.reason.rstrip('.')}" if result.reason else ""
    return f"{words[result.status]} at step {result.steps}{reason}."


# --- before training -----------------------------------------------------------------------------


def work_of(config: TrainConfig, slots: int = 1) -> Work:
    """What a run will ask of its model, by which its memory is planned."""
    inversion = config.inversion
    return Work(
        samples=slots * (inversion.train_batch_size or _USUAL_BATCH),
        resolution=config.resolution,
        through_encoders=inversion.vectors_at == "input",
    )


def prepare(config: TrainConfig, backbone: Backbone | None = None) -> Prepared:
    """Read the pictures and check everything that can be checked before training.

    Args:
        config: What to do.
        backbone: Its model, where it is loaded already.

    Raises:
        UserError: training could not begin.
    """
    backbone = backbone or load(config.model, work_of(config))
    inversion = config.inversion.resolved(backbone.family)
    if inversion.setup in BASELINES:
        tuning.check(backbone, inversion)
    assert inversion.max_train_steps is not None
    token = inversion.placeholder_token
    steps = inversion.max_train_steps
    if inversion.setup == "pivotal":
        steps += inversion.tuning.tuning_steps or 0
    config = dataclasses.replace(
        config,
        inversion=inversion,
        resolution=config.resolution or backbone.resolution,
        validation_prompt=config.validation_prompt or f"a photo of a {token}",
        validation_steps=(
            max(1, steps // 4) if config.validation_steps is None else config.validation_steps
        ),
    )
    assert config.validation_prompt is not None
    assert config.resolution is not None
    as_template(config.validation_prompt, token)  # refuses a prompt without the placeholder
    pictures = read_folder(
        config.train_data_dir,
        resolution=config.resolution,
        center_crop=config.center_crop,
        masks=config.masks,
        mask_dir=config.mask_dir,
    )
    captions, notes = _captions(pictures, token, prefix=config.prefix_captions)
    described = descriptions.read(config.train_data_dir)
    job = Job(
        name=token,
        pictures=pictures.pixels,
        config=inversion,
        crops=pictures.crops,
        masks=pictures.masks,
        captions=None if captions is None else tuple(captions),
        descriptions=described,
    )
    with injected(backbone, [_first_word(backbone, job)], replace=config.replace):
        pass
    assert inversion.train_batch_size is not None
    rates = {
        name: dict(
            zip(("absolute", "relative"), effective_learning_rate(inversion, v), strict=True)
        )
        for name, v in backbone.vocabularies.items()
    }
    if inversion.vectors_at == "output":
        notes = [
            *notes,
            "the word's vectors stand in the text encoders' output: it will work in oneword alone, "
            "and the rate is in units of these vectors' own spread",
        ]
    learns_a_word = inversion.setup == "pivotal" or inversion.setup not in BASELINES
    if learns_a_word and isinstance(getattr(backbone, "denoiser", None), Compiled):
        notes = [*notes, "the first step compiles the denoiser, which takes a minute or two"]
    plain = plain_settings(config)
    plan = {
        "config": plain,
        "family": backbone.family,
        "device": str(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "memory": backbone.memory,
        "preset_validated": is_validated(inversion.preset, backbone.family),
        "learning_rate": rates,
        "pictures": list(pictures.names),
        "skipped": [str(item) for item in pictures.skipped],
        "captions": captions is not None,
        "masks": pictures.masks is not None,
        "notes": notes + _tuning_notes(inversion),
        "num_samples": steps * inversion.train_batch_size,
    }
    digest = hashlib.sha256(pictures.pixels.contiguous().numpy().tobytes())
    digest.update(json.dumps(captions).encode())
    if form(inversion).described and described is not None:
        digest.update(json.dumps(dataclasses.asdict(described)).encode())
    if pictures.masks is not None:
        digest.update(pictures.masks.contiguous().numpy().tobytes())
    record = {
        "kind": "train",
        "config": plain,
        "pictures": list(pictures.names),
        "pictures_sha256": digest.hexdigest(),
        "versions": versions(),
    }
    return Prepared(config, backbone, job, plan, record)


def _tuning_notes(inversion: InversionConfig) -> list[str]:
    """What a setup that changes weights will do, in a sentence."""
    if inversion.setup not in BASELINES:
        return []
    own = inversion.tuning
    what = {
        "full": "every weight of the denoiser",
        "lora": f"a LoRA of rank {own.rank} of the denoiser's attention",
        "kv": "the denoiser's keys and values of the text",
    }[own.tuned_weights or "full"]
    prior = ""
    if own.prior_loss_weight:
        source = own.class_data_dir or f"{own.num_class_images} drawn ones"
        prior = f", and as many of pictures of the class ({source})"
    then = "then " if inversion.setup == "pivotal" else ""
    return [
        f"{inversion.setup}: {then}{own.tuning_steps} steps of {inversion.train_batch_size} "
        f"samples{prior} change {what}, at the rate {own.tuning_learning_rate:.3g}"
    ]


def _first_word(backbone: Backbone, job: Job) -> Concept:
    """What the job starts from, so that initialiser and placeholder are checked by those who know.

    An initialiser that is yet to be chosen counts as zeros; output vectors count as the rows that
    are read for them, so that no text encoder runs.
    """
    config = dataclasses.replace(job.config, vectors_at="input")
    assert config.num_vectors is not None
    token, own = config.placeholder_token, form(config)
    if config.initializer_token is None and not own.described:
        rows = {
            name: torch.zeros(config.num_vectors, vocabulary.dim)
            for name, vocabulary in backbone.vocabularies.items()
        }
        return Concept(placeholder_token=token, rows=rows, provenance={})
    words = own.words(own.rows(backbone, job, config), config, 0)
    tensors = dict(words.tensors)
    return Concept(placeholder_token=token, rows=dict(words.rows), kind=words.kind, tensors=tensors)


def _captions(
    pictures: PictureSet, token: str, *, prefix: bool
) -> tuple[list[str] | None, list[str]]:
    """The captions, if every picture has one; and what to say about it."""
    given = [caption for caption in pictures.captions or () if caption]
    if not given:
        return None, []
    if len(given) < len(pictures.names):
        return None, [
            f"{len(given)} of {len(pictures.names)} pictures have a caption: captions are used "
            "only where every picture has one, so the templates are."
        ]
    if prefix:
        given = [c if names(c, token) else f"{token}, {c}" for c in given]
    for caption in given:
        as_template(caption, token)
    return given, []


# --- while training ------------------------------------------------------------------------------


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


class Watch:
    """Writes metrics and previews, and tells of progress, as the loop goes."""

    def __init__(
        self, prepared: Prepared, folder: RunFolder, tell: OnEvent, asked: threading.Event
    ) -> None:
        self.prepared, self.folder, self.tell, self.asked = prepared, folder, tell, asked
        self.config = prepared.config
        self.started = time.monotonic()
        state = folder.state.load()
        active = state.info["active"] if state else []
        self.first_step = active[0]["step"] if active else 0
        self.before_s = folder.rewind_metrics(self.first_step if active else None)
        if active:
            tell("message", f"Going on from step {self.first_step}.")

    def elapsed(self) -> float:
        """Time spent on this run in all its parts, s."""
        return self.before_s + time.monotonic() - self.started

    def on_step(self, progress: Progress) -> Literal["stop"] | None:
        if progress.message:
            self.tell("message", progress.message)
        numbers = {
            "step": progress.step,
            "loss": progress.loss,
            "distance": progress.distance,
            "lr": progress.learning_rate,
            "time_s": round(self.elapsed(), 3),
        }
        # A scoring that was not finite has no loss of its own.
        if progress.evaluated and progress.losses and progress.losses[-1][0] == progress.step:
            self.folder.add_metrics(numbers)
        total = progress.config.max_train_steps or 0
        done = progress.step - self.first_step
        step_s = (time.monotonic() - self.started) / done if done > 0 else None
        more = {
            "max_train_steps": total,
            "best_loss": progress.best_loss,
            "best_step": progress.best_step,
            "evaluated": progress.evaluated,
            "left_s": None if step_s is None else step_s * (total - progress.step),
        }
        self.tell("progress", numbers | more)
        self._stop_if_asked()
        every = self.config.validation_steps
        if every and progress.step % every == 0:
            self._preview(progress)
        return None

    def _stop_if_asked(self, *_: int) -> None:
        if self.asked.is_set():
            raise KeyboardInterrupt

    def _preview(self, progress: Progress) -> None:
        """Draw with the rows as they are, through the sampler that ``oneword generate`` uses."""
        config, count = self.config, self.config.num_validation_images
        assert config.validation_prompt is not None
        template = as_template(config.validation_prompt, progress.config.placeholder_token)
        pixels = self.prepared.backbone.draw(
            [fill(template, progress.token)] * count,
            [progress.config.seed + i for i in range(count)],
            SamplingConfig(negative_prompt=progress.negative_prompt),
            on_step=self._stop_if_asked,
        )
        path = self.folder.preview(progress.step)
        save_png(contact_sheet(pixels), path)
        self.tell("preview", path)
