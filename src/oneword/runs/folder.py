"""The run folder: its files, and how it survives being stopped at any moment.

``config.json`` (resolved settings and versions), ``metrics.jsonl`` (one line per scoring),
``state.safetensors`` (for resuming), ``previews/``, words saved during training
(``learned_embeds-steps-500.safetensors``) and, at the end, ``learned_embeds.safetensors``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch

from oneword._files import (
    FormError,
    Hold,
    OutputError,
    check,
    hold,
    open_regular,
    parsed,
    read_json,
    read_lines,
    visible,
    write_atomic,
    write_json_atomic,
)
from oneword._version import __version__
from oneword.concepts.formats import LEARNED
from oneword.config.runs import fits_of_old
from oneword.errors import ConfigError, UserError
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.runs import threads
from oneword.runs.mirror import Mirror
from oneword.training.state import State


class RunError(UserError):
    """A run folder cannot be used in its present state."""


_MAX_METRICS = 2**30  # bytes
_MAX_STATE = 2**40
_FREE_MB = 16  # least room on the disk; state, previews and result of a run take a few MB

_RECORD = {
    "config": {str: object},
    "pictures_sha256": str,
    "initializer_sha256?": str,
    "encoder_sha256?": str,
    "world?": int,
}
"""Form of ``config.json``, for the parts that are read again."""
_METRICS = {
    "step": int,
    "time_s": float,
    "loss?": float,
    "distance?": float,
    "word_distance?": float,
    "lr?": float,
}
"""Form of a line of ``metrics.jsonl``."""

_SAVED = re.compile(rf"{Path(LEARNED).stem}-steps-(\d{{1,12}}){Path(LEARNED).suffix}", re.ASCII)
"""File name of a word saved during training."""

_RENAMED = {"fit": "inversion.fit"}
"""Settings by their names in older records."""
_ONCE = {
    "inversion.fit": "crop",
    "inversion.interpolation": "lanczos",
    "inversion.backgrounds": "none",
    "num_processes": 1,
    "inversion.initializer": "word",
    "inversion.optimizer": "adamw",
    "inversion.lr_num_cycles": 1,
    "inversion.lr_power": 1.0,
    "inversion.lr_step_rules": "",
    "inversion.loss_type": "l2",
    "inversion.huber_c": 0.1,
    "inversion.huber_schedule": "snr",
    "inversion.snr_gamma": 0.0,
    "inversion.noise_offset": 0.0,
    "inversion.caption_dropout_rate": 0.0,
    "inversion.caption_tag_dropout_rate": 0.0,
    "inversion.shuffle_caption": False,
    "inversion.keep_tokens": 0,
    "inversion.random_crops": 0,
    "inversion.crop_scale": 0.8,
}
"""What older versions did that had no such setting."""
_UNBOUND = (
    "output_dir",
    "inversion.initializer_file",
    "inversion.encoder",
    "model.memory",
    "model.micro_batch_size",
    "model.gradient_checkpointing",
    "model.offload",
    "model.compile",
    "train_data_dir",
    "caption_dir",
    "checkpointing_steps",
    "num_processes",
    "save_steps",
    "validation_prompt",  # as it was called when there was one
    "validation_prompts",
    "validation_negative_prompt",
    "validation_seeds",
    "validation_height",
    "validation_width",
    "validation_steps",
    "num_validation_images",
    "mirror",
    "report_to",
    "model.safety_checker",
    "replace",
)
"""Settings that may change when a run is resumed: none of them changes the rows.

The pictures themselves, and a file to start from, are compared by content, wherever they are.
"""
STEPS, TUNING_STEPS = COUNTS = ("inversion.max_train_steps", "inversion.tuning.tuning_steps")
"""Settings that may be raised when a run is resumed."""


@dataclass(frozen=True, slots=True)
class HowFar:
    """The progress of the run in a folder, for resuming it."""

    run: Literal["new", "resume", "finished"]
    step: int = 0
    """Steps done; for a run to be resumed, those of the present stage."""
    setting: str = STEPS
    """The setting among ``COUNTS`` that gives that stage's steps."""
    before: Mapping[str, int] = field(default_factory=dict)
    """Former numbers of steps that have been raised since, by setting."""
    more: str = ""
    """The setting that would let a finished run continue, if it were raised."""
    num_processes: int | None = None
    """Former number of processes, if it is different now."""


class RunFolder:
    """A folder that holds one run.

    Args:
        path: The folder; it need not exist.
        steps: Steps between saves of the state.
        mirror: The folder's mirror.
    """

    def __init__(self, path: Path, *, steps: int, mirror: Mirror | None = None) -> None:
        self.path, self.mirror = path, mirror
        self.record, self.metrics = path / "config.json", path / "metrics.jsonl"
        self.learned = path / LEARNED
        self.trained = self.learned.with_stem(f"{self.learned.stem}-trained")
        self.state = StateFile(path / "state.safetensors", steps, self.push)
        self._held: Hold | None = None

    def claim(self) -> None:
        """Make the folder and claim it for writing, before costly work.

        Leftovers of a killed run are removed; ``release`` ends the claim.

        Raises:
            RunError: the folder has something else in it.
            InUseError: another process writes there, or into its mirror.
            OutputError: it cannot be written, or its disk is full.
            MirrorError: its mirror cannot be used.
        """
        self._check_ours()
        self._held = hold(self.path, below=True)
        try:
            if self.mirror is not None:
                self.mirror.claim()
                self.mirror.pull(self.path)
            self._check_ours()
            self._check_room()
        except BaseException:
            self.release()
            raise

    def _check_ours(self) -> None:
        path = self.path
        if path.is_dir() and visible(path) and not self.record.is_file():
            raise RunError(
                f"The output folder {path} must be empty or contain a run, got other files; pass "
                "a new --output-dir."
            )

    def _check_room(self) -> None:
        path = self.path
        free_mb = shutil.disk_usage(path).free / 1e6
        if free_mb < _FREE_MB:
            raise OutputError(
                f"{path} must have {_FREE_MB} MB of free disk space, got {free_mb:.1f} MB; free "
                "some, or pass another --output-dir."
            )

    def push(self) -> None:
        """Copy the folder to its mirror, if it has one.

        Raises:
            MirrorError: the mirror cannot be written.
        """
        if self.mirror is not None:
            self.mirror.push(self.path)

    def release(self) -> None:
        """Let others write there, and remove the folder if nothing was put into it."""
        if self.mirror is not None:
            self.mirror.release()
        if self._held is not None:
            self._held.release()
            self._held = None
        with contextlib.suppress(OSError):  # it holds something, or is gone
            self.path.rmdir()

    def abandon(self) -> None:
        """Remove what a refused run wrote before it had a state; then release the folder."""
        if self.state.path.exists():
            return
        previews = self.preview(0).parent
        for path in (self.record, self.metrics, *self.previews(), *self.words().values()):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there are none, or others beside them
            previews.rmdir()

    @contextmanager
    def holding(self, *, is_new: bool) -> Iterator[None]:
        """Context of a run at work here; if a new run is refused, nothing stays behind."""
        try:
            yield
        except UserError:
            if is_new:
                self.abandon()
            raise

    def standing(self, record: Mapping[str, Any]) -> HowFar:
        """The progress of the run in the folder, for continuing with ``record``.

        A run may get more steps than it had; ``state`` is then that of the longer run.

        Raises:
            RunError: the folder's own record or state cannot be read.
            ConfigError: the folder has a run with other settings or pictures, or one whose numbers
                of steps cannot be changed.
        """
        if not self.record.is_file():
            return HowFar("new")
        must = f"{self.record} must be the record of a run (or pass another --output-dir)"
        found = read_json(self.record, _RECORD, must=must, error=RunError)
        world, now = (one.get("world", FIRST_WORLD) for one in (found, record))
        if world != now:
            raise ConfigError(
                f"{self.path} holds a run on the embedded model's world of version {world}, got a "
                f"model of version {now}; pass another --output-dir, or the folder of a model of "
                f"version {world} as --model."
            )
        ours = _flat(record["config"])
        theirs, pictures = _as_today(_flat(found["config"]), ours), found["pictures_sha256"]
        differing = [
            f"{name.removeprefix('inversion.')} was {theirs.get(name)!r} and is {ours.get(name)!r}"
            for name in sorted(theirs.keys() | ours.keys())
            if name not in _UNBOUND
            and theirs.get(name) != ours.get(name)
            and not _both_counts(name, theirs, ours)
        ]
        if pictures != record["pictures_sha256"]:
            differing.append("the pictures or their captions have changed")
        for name, what in (("initializer", "learned file"), ("encoder", "encoder")):
            if found.get(f"{name}_sha256") != record.get(f"{name}_sha256"):
                differing.append(f"the {what} to start from has changed")
        if differing:
            raise ConfigError(
                f"Cannot resume in {self.path} because its settings differ: "
                f"{'; '.join(differing)}. Use its settings, or pass another --output-dir."
            )
        before = {
            name: theirs[name]
            for name in COUNTS
            if _both_counts(name, theirs, ours) and theirs[name] != ours[name]
        }
        fewer = {name: count for name, count in before.items() if ours[name] < count}
        if fewer:
            raise ConfigError(
                f"Cannot resume in {self.path} with fewer steps ({changed(fewer, ours)}) because "
                "steps can only be added; pass its number or a higher one, or another "
                "--output-dir."
            )
        had = theirs.get("num_processes")
        other = had if had != ours.get("num_processes") else None
        return replace(self._how_far(before, ours), num_processes=other)

    def _how_far(self, before: Mapping[str, int], ours: Mapping[str, Any]) -> HowFar:
        """How far the run has come, which may have more steps now than ``before``."""
        kept = self.state.load()
        if kept is None:
            return HowFar("resume", before=before)
        is_pivotal = ours.get("inversion.setup") == "pivotal"
        if STEPS in before and is_pivotal and (kept.tuning is not None or kept.done):
            raise ConfigError(
                f"Cannot add steps to the word in {self.path} "
                f"({changed({STEPS: before[STEPS]}, ours)}) because it is finished, and the "
                f"weights are trained around it. Pass --max-train-steps {before[STEPS]} with a "
                "higher --tuning-steps, or another --output-dir."
            )
        if isinstance(ours.get(STEPS), int):
            self.state.lengths = (ours[STEPS], ours.get(TUNING_STEPS))
        state = self.state.lengthened(kept)
        if state.active or state.queue or not state.done:
            in_tuning = state.tuning is not None
            step = state.tuning.record.step if state.tuning is not None else state.step
            setting = TUNING_STEPS if in_tuning else STEPS
            return HowFar("resume", step=step or 0, setting=setting, before=before)
        if before and not all(one.is_settled for one in state.done):
            raise ConfigError(
                f"Cannot continue the run in {self.path} ({changed(before, ours)}) because it "
                f"ended after {state.done[0].steps} steps without a checkpoint. Setups that train "
                "every weight, and older versions, keep none; pass another --output-dir."
            )
        goes_on = [one.last for one in state.done if one.last is not None]
        more = "" if not goes_on else "--tuning-steps" if is_pivotal else "--max-train-steps"
        return HowFar("finished", step=state.done[0].steps, before=before, more=more)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write ``config.json``, which makes the folder that of this run."""
        write_json_atomic(self.record, {**record, "threads": torch.get_num_threads()})

    def made_anew(self, record: Mapping[str, Any]) -> bool:
        """Make the folder again if it disappeared during its run; return whether it had.

        Its old contents are lost; the run's state is written at its next checkpoint.

        Args:
            record: The run's.

        Raises:
            OutputError: it cannot be made.
            InUseError: another process writes there by now.
        """
        if self.record.is_file():
            return False
        if self._held is not None:  # of the folder that is gone
            self._held.release()
        self._held = hold(self.path)
        self.write_record(record)
        return True

    def as_begun(self) -> None:
        """Let torch use as many threads as the run began with, so that its bits stay the same.

        Raises:
            RunError: the folder's record cannot be read.
        """
        must = f"{self.record} must be the record of a run (or pass another --output-dir)"
        record = read_json(self.record, {"threads?": int}, must=must, error=RunError)
        if "threads" in record:  # older ones do not tell
            threads.use_again(record["threads"])

    def kept(self) -> KeptState:
        """The state, for reading only."""
        return KeptState(self.state.load())

    def word(self, step: int) -> Path:
        """Path of the saved word of a step."""
        return self.learned.with_stem(f"{self.learned.stem}-steps-{step}")

    def words(self) -> dict[int, Path]:
        """The words saved during training, by step."""
        found = {}
        for path in self.path.iterdir():
            match = _SAVED.fullmatch(path.name)
            if match and path == self.word(int(match[1])):  # no zeros before the number
                found[int(match[1])] = path
        return dict(sorted(found.items()))

    def preview(self, step: int) -> Path:
        """Path of the preview of a step."""
        return self.path / "previews" / f"step-{step:06d}.png"

    def previews(self) -> list[Path]:
        """The previews, oldest first."""
        return sorted((self.path / "previews").glob("step-*.png"))

    def last_preview(self) -> Path | None:
        """The preview of the latest step; ``None`` if none was drawn after the first one."""
        found = self.previews()
        return found[-1] if found and found[-1] != self.preview(0) else None

    def course(self) -> list[dict[str, Any]]:
        """The metrics, a line each; ``step`` and ``time_s`` (s) are in all of them.

        Raises:
            RunError: the file cannot be read.
        """
        found = []
        if self.metrics.exists():
            for line in read_lines(self.metrics, most=_MAX_METRICS, error=RunError):
                with contextlib.suppress(FormError):  # torn by a crash
                    found.append(check(parsed(line), _METRICS))
        return found

    def rewind_metrics(self, step: int | None) -> float:
        """Drop the metrics after a step, or all; return the time that the others took, in s."""
        kept = [entry for entry in self.course() if step is not None and entry["step"] <= step]
        write_atomic(self.metrics, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        return float(kept[-1]["time_s"]) if kept else 0.0

    def add_metrics(self, numbers: Mapping[str, Any]) -> None:
        """Append one line.

        Raises:
            OutputError: the disk is full or the folder has become read-only.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(numbers) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self.metrics} must be writable, got: {error.strerror or error}; make room, then "
                "run the same command again to resume."
            ) from error


class StateFile:
    """The checkpoint of a run: one safetensors file, replaced as a whole."""

    def __init__(self, path: Path, steps: int, saved: Callable[[], None]) -> None:
        self.path, self.steps, self.saved = path, steps, saved
        self.lengths: tuple[int, int | None] | None = None

    def lengthened(self, state: State) -> State:
        """A state with the run's present number of steps, if that is known."""
        return state if self.lengths is None else state.lengthened(*self.lengths)

    def load(self) -> State | None:
        """The last saved state, with the run's present number of steps.

        Raises:
            RunError: the file is damaged.
        """
        if not self.path.exists():
            return None
        must = f"{self.path} must be the state of a run (delete it to start this run again)"
        open_regular(self.path, most=_MAX_STATE, must=must, error=RunError).close()
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                info = parsed((file.metadata() or {})["oneword"])
                if not isinstance(info, dict):
                    raise FormError(f"its metadata is {type(info).__name__}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return self.lengthened(State.unpacked(tensors, info))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            FormError,
            safetensors.SafetensorError,
        ) as error:
            raise RunError(
                f"Cannot read {self.path}, the state of a run ({error}); delete it to start this "
                "run again."
            ) from error

    def save(self, state: State) -> None:
        """Replace the file."""
        write_atomic(self.path, self.data_of(state))
        self.saved()

    @staticmethod
    def data_of(state: State) -> bytes:
        """What the file holds."""
        tensors, info = state.packed()
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        return safetensors.torch.save(tensors, {"oneword": json.dumps(info)})


class KeptState:
    """A state that is read and never written: to look at a run that has ended."""

    steps = 1

    def __init__(self, state: State | None) -> None:
        self.state = state

    def load(self) -> State | None:
        """The state."""
        return self.state

    def save(self, state: State) -> None:
        """Nothing was done, so there is nothing to keep."""


def pictures_of(run: Path) -> Path | None:
    """The training pictures that a run folder names, if they still exist.

    Args:
        run: The folder, or the file of a word that the run has written there.
    """
    is_word = run.name.startswith(Path(LEARNED).stem) and run.is_file()
    folder = run.parent if is_word else run
    try:
        record = read_json(folder / "config.json", {"config": {"train_data_dir": str}})
        pictures = Path(record["config"]["train_data_dir"])
    except UserError:
        return None
    return pictures if pictures.is_dir() else None


def versions() -> dict[str, str]:
    """Versions of this package and of those that affect its numbers."""
    others = {name: importlib.metadata.version(name) for name in _MATTER}
    return {"oneword": __version__, "python": platform.python_version()} | others


_MATTER = ("torch", "diffusers", "transformers")


def _as_today(settings: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a record, with present names, and with what older versions always did.

    Args:
        settings: The record's settings.
        ours: The present settings; what is unset there was unset then, too.
    """
    named = {_RENAMED.get(name, name): value for name, value in fits_of_old(settings).items()}
    return {name: once for name, once in _ONCE.items() if ours.get(name) is not None} | named


def _both_counts(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether a setting is a number of steps in both records."""
    return name in COUNTS and all(isinstance(own.get(name), int) for own in (theirs, ours))


def changed(before: Mapping[str, int], now: Mapping[str, Any]) -> str:
    """Numbers of steps and what has become of them, in words."""
    return " and ".join(
        f"{name.rpartition('.')[2]} was {count} and is {now[name]}"
        for name, count in before.items()
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
