"""``train_encoder``: the function behind ``oneword encoder train``, in a folder of its own.

``config.json`` (settings, pictures and versions), ``metrics.jsonl`` (a line for each scoring),
``state.safetensors`` and, at the end, ``encoder.safetensors``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from oneword._files import (
    FormError,
    hold,
    parsed,
    read_json,
    visible,
    write_atomic,
    write_json_atomic,
)
from oneword.config.commands import command_for
from oneword.config.encoder import EncoderConfig
from oneword.errors import ConfigError
from oneword.images import from_uint8, read_folder
from oneword.microworld import weights
from oneword.microworld.world import sets
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work
from oneword.runs import threads
from oneword.runs.events import asked_to_stop
from oneword.runs.folder import RunError, versions
from oneword.training.encoder.files import FILE, About, Encoder, EncoderError, load, version_of
from oneword.training.encoder.learning import Standing, Training
from oneword.training.encoder.things import Thing, Things, gathered
from oneword.training.encoder.towers import tower_of


RECORD, METRICS, STATE = "config.json", "metrics.jsonl", "state.safetensors"
_KEY = "oneword"  # of the state's metadata
_RECORD_FORM = {"kind": str, "config": {str: object}, "pictures_sha256": str, "threads?": int}
_UNBOUND = ("output_dir", "data", "checkpointing_steps", "land")
"""Settings that may change when a training is resumed; pictures are compared by content."""
_UNBOUND_OF_MODEL = ("memory", "micro_batch_size", "gradient_checkpointing", "offload", "compile")

OnProgress = Callable[[str, int, int, str], None]
"""``on_progress(what, done, total, numbers)``: "pictures" of things, then "steps"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOutcome:
    """The outcome of a call of ``train_encoder``."""

    status: Literal["finished", "interrupted"]
    file: Path | None
    """The encoder's file; ``None`` if the training has not ended."""
    steps: int
    losses: list[tuple[int, float, float]]
    """(step, mean loss of the steps before, loss on held-out things)."""
    num_things: int
    samples_per_s: float
    """Training samples per second in this call; 0 if there were none."""
    was_finished: bool = False
    """Whether the training had already ended, so that nothing was done."""


def train_encoder(
    config: EncoderConfig,
    *,
    backbone: Backbone | None = None,
    on_progress: OnProgress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> EncoderOutcome:
    """Train an encoder, in a folder that can be resumed.

    Ctrl-C, SIGTERM and a closed terminal finish the step and save the state; the same call resumes,
    to the same bits (on the same machine, with the same number of threads).

    Args:
        config: The settings; ``output_dir`` may have the same training, begun before.
        backbone: Its model, if it is already loaded.
        on_progress: Called with the progress of pictures and steps.
        on_message: Called with messages for the user.

    Raises:
        UserError: the folders, the pictures, the model or the settings cannot be used.
    """
    folder, show = config.output_dir, on_progress or _show_nobody
    say = on_message or _say_nobody
    if config.land is not None:
        weights.check_card(config.land)
    with hold(folder, below=True):
        if visible(folder) and not (folder / RECORD).is_file():
            raise RunError(
                f"The output folder {folder} must be empty or contain an encoder's training, got "
                "other files; pass a new --output-dir."
            )
        _use_threads_again(folder)
        backbone = backbone or load_backbone(config.model, _work(config))
        tower = tower_of(backbone, config.guide, allow_same_clip=config.allow_same_clip)
        total, shown = _shown(config, backbone)
        with asked_to_stop() as asked:

            def on_thing(done: int) -> None:
                show("pictures", done, total, "")
                if asked.is_set():
                    raise KeyboardInterrupt

            things = gathered(
                backbone, tower, shown, random_flip=config.random_flip, on_thing=on_thing
            )
            _begin(config, things)
            training = Training(backbone, things, config)
            file = folder / FILE
            was_finished = _resume(training, folder) and file.is_file()
            before = training.standing.step
            if before and not was_finished:
                say(f"Resuming from step {before}.")
            started = time.monotonic()

            def on_step(standing: Standing) -> None:
                show("steps", standing.step, config.max_train_steps, _numbers(standing.losses[-1]))
                if standing.losses[-1][0] == standing.step:
                    _write_metrics(folder, standing)
                if asked.is_set():
                    raise KeyboardInterrupt

            done = was_finished or training.run(
                on_step=on_step, save=lambda: _save(training, folder)
            )
        standing = training.standing
        elapsed = max(time.monotonic() - started, 1e-9)
        speed = config.train_batch_size * (standing.step - before) / elapsed
        if done and not was_finished:
            encoder = Encoder.of(training.network, _about(training), backbone, tower)
            write_atomic(file, encoder.data())
        if done and config.land is not None:
            made = dataclasses.replace(config, output_dir=EncoderConfig().output_dir, land=None)
            details = {"made_by": command_for("encoder train", made), "guide": config.guide}
            details |= load(file).about.trained
            weights.add_encoder(config.land, file.read_bytes(), config.num_vectors, details)
        return EncoderOutcome(
            status="finished" if done else "interrupted",
            file=file if done else None,
            steps=standing.step,
            losses=standing.losses,
            num_things=len(things.places),
            samples_per_s=speed,
            was_finished=was_finished,
        )


def _show_nobody(what: str, done: int, total: int, numbers: str) -> None:
    """Stand in for an absent ``on_progress``."""


def _say_nobody(text: str) -> None:
    """Stand in for an absent ``on_message``."""


def _work(config: EncoderConfig) -> Work:
    return Work(samples=config.train_batch_size, batch=config.train_batch_size, resolution=None)


def _numbers(losses: tuple[int, float, float]) -> str:
    """The last scoring, in words."""
    named = zip(("loss", "unseen"), losses[1:], strict=True)
    return "  ".join(f"{name} {loss:.4f}" for name, loss in named if not math.isnan(loss))


# --- pictures


def _shown(config: EncoderConfig, backbone: Backbone) -> tuple[int, Iterator[Thing]]:
    """How many things there are, and each with its pictures."""
    if config.data is None:
        return config.num_things, _drawn(config, backbone)
    folders = sorted(path for path in _folders(config.data))
    if len(folders) < 2:
        raise EncoderError(
            "--data must be a folder with two or more subfolders of pictures, one per thing, got "
            f"{config.data} with {len(folders)}."
        )
    return len(folders), _read(config, backbone, folders)


def _folders(data: Path) -> list[Path]:
    try:
        return [path for path in visible(data) if path.is_dir()]
    except OSError as error:
        raise EncoderError(
            f"--data must be a folder with one subfolder of pictures per thing, got {data} "
            f"({error.strerror})."
        ) from error


def _read(config: EncoderConfig, backbone: Backbone, folders: list[Path]) -> Iterator[Thing]:
    for folder in folders:
        found = read_folder(folder, resolution=backbone.resolution, masks=False)
        yield Thing(folder.name, config.learnable_property, found.pixels)


def _drawn(config: EncoderConfig, backbone: Backbone) -> Iterator[Thing]:
    """What the model's own world draws, of which nothing is held out."""
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    world = weights.world(backbone.name)
    for number in range(config.num_things):
        own = sets.sample_set(config.seed * 2**32 + number, config.pictures_per_thing, world=world)
        drawn = [wide_drawing.render(scene, backbone.resolution) for scene in own.scenes]
        yield Thing(f"{own.kind} {number}", own.kind, from_uint8(np.stack(drawn)))


# --- the folder


def _begin(config: EncoderConfig, things: Things) -> None:
    """Write the record of a new training, or compare with that of the one begun before.

    Raises:
        ConfigError: the folder holds a training with other settings or pictures.
    """
    path = config.output_dir / RECORD
    record = {
        "kind": "encoder",
        "config": config.plain(),
        "pictures_sha256": things.sha256,
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    if not path.is_file():
        write_json_atomic(path, record)
        return
    must = f"{path} must be the record of an encoder's training (or pass another --output-dir)"
    before = read_json(path, _RECORD_FORM, must=must, error=RunError)
    ours, theirs = (_bound(one["config"]) for one in (record, before))
    differing = [
        f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if before["kind"] != "encoder":
        differing.append("it is the run of a word")
    elif before["pictures_sha256"] != things.sha256:
        differing.append("the pictures have changed")
    if differing:
        raise ConfigError(
            f"Cannot resume in {config.output_dir} because its settings differ: "
            f"{'; '.join(differing)}. Use its settings, or pass another --output-dir."
        )


def _bound(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that may not change, by flat names."""
    flat = {name: value for name, value in settings.items() if name not in _UNBOUND}
    model = flat.pop("model", {})
    own = model.items() if isinstance(model, Mapping) else ()
    return flat | {f"model.{k}": value for k, value in own if k not in _UNBOUND_OF_MODEL}


def _use_threads_again(folder: Path) -> None:
    """Let torch use as many threads as the training began with, so that its bits stay the same."""
    path = folder / RECORD
    if path.is_file():
        must = f"{path} must be the record of an encoder's training (or pass another --output-dir)"
        record = read_json(path, {"threads?": int}, must=must, error=RunError)
        if "threads" in record:
            threads.use_again(record["threads"])


def _save(training: Training, folder: Path) -> None:
    info = {_KEY: json.dumps(training.standing.plain())}
    write_atomic(folder / STATE, safetensors.torch.save(training.tensors(), info))


def _resume(training: Training, folder: Path) -> bool:
    """Go on from the saved state; whether its last step was done.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return False
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            standing = Standing.read(parsed((file.metadata() or {})[_KEY]))
            tensors: dict[str, Tensor] = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
            }
        training.restore(tensors, standing)
    except (
        OSError, ValueError, KeyError, TypeError, FormError, safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise RunError(
            f"Cannot read {path}, the state of an encoder's training ({error}); delete it to "
            "start this training again."
        ) from error
    _write_metrics(folder, training.standing)
    return training.standing.step >= training.config.max_train_steps


def _write_metrics(folder: Path, standing: Standing) -> None:
    """All scorings so far, a line each."""
    names = ("loss", "unseen_loss")
    lines = [
        {"step": step} | {n: x for n, x in zip(names, own, strict=True) if not math.isnan(x)}
        for step, *own in standing.losses
    ]
    write_atomic(folder / METRICS, "".join(json.dumps(x) + "\n" for x in lines).encode())


def _about(training: Training) -> About:
    config, backbone, things = training.config, training.backbone, training.things
    steps, *losses = training.standing.losses[-1]
    own, unseen = (None if math.isnan(loss) else loss for loss in losses)
    return About(
        model=backbone.name,
        family=backbone.family,
        version=version_of(backbone),
        guide=config.guide,
        allow_same_clip=config.allow_same_clip,
        most_pictures=config.most_pictures,
        learns=tuple(sorted({*things.kinds})),
        trained={
            "steps": steps,
            "samples": steps * config.train_batch_size,
            "things": len(things.places),
            "pictures_sha256": things.sha256,
            "seed": config.seed,
            "loss": own,
            "unseen_loss": unseen,
        },
    )
