"""Several words learned together: pictures pasted into each other, and pictures with both things.

A batch has samples of all words, and the sentence of a sample may contain other words than its own;
its gradient then reaches all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from oneword.concepts import formats
from oneword.config.runs import ComposeConfig, plain_settings
from oneword.images import PictureSet, read_folder
from oneword.microworld import weights
from oneword.models.loading import load_backbone
from oneword.runs import longer
from oneword.runs.events import asked_to_stop
from oneword.runs.folder import RunFolder, versions
from oneword.training.job import Job, Progress, Result
from oneword.training.together import invert_together


# --- from folders --------------------------------------------------------------------------------


def compose(
    config: ComposeConfig,
    *,
    on_step: Callable[[int, int], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> tuple[list[Result], Path | None]:
    """Learn words together from folders of pictures, in a run folder that can be resumed.

    Ctrl-C, SIGTERM and SIGHUP finish the step and save the state. While it runs, no other process
    can write into the folder.

    Args:
        config: What to do.
        on_step: ``on_step(done, total)`` steps.
        on_message: Called with messages for the user.

    Returns:
        A result for each word, and the file of all of them; ``None`` if the run was stopped or one
        of the words failed.

    Raises:
        UserError: the folders, the pictures, the model or the settings cannot be used.
    """
    folder = RunFolder(config.output_dir, steps=config.checkpointing_steps)
    folder.claim()
    try:
        backbone = load_backbone(config.model)
        shared = config.inversion.resolved(backbone.family)

        def read(path: Path) -> PictureSet:
            return read_folder(
                path,
                resolution=backbone.resolution,
                fit=shared.fit,
                interpolation=shared.interpolation,
            )

        sets = [read(path) for path in config.images]
        both = config.together and read(config.together)
        jobs = [
            Job(
                name=token,
                pictures=found.pixels,
                masks=found.masks,
                opacity=found.opacity,
                captions=_captions(found),
                config=dataclasses.replace(
                    config.inversion, placeholder_token=token, initializer_token=start
                ),
            )
            for token, start, found in zip(
                config.placeholder_tokens, config.initializer_tokens, sets, strict=True
            )
        ]
        shown = (both.pixels, [caption or "" for caption in both.captions]) if both else None
        digest = hashlib.sha256()
        for found in (*sets, *([both] if both else [])):
            digest.update(found.pixels.contiguous().numpy().tobytes())
            digest.update(json.dumps(found.captions).encode())
        record = {
            "kind": "compose",
            "config": plain_settings(config),
            "pictures_sha256": digest.hexdigest(),
            "versions": versions(),
            **weights.told(backbone.name),
        }
        found = folder.standing(record)
        is_new = found.run == "new"
        if found.run == "resume":
            folder.as_begun()
        for note in longer.notes(found, shared):
            if on_message is not None:
                on_message(note)
        if found.before:
            folder.write_record(record)
        with folder.holding(is_new=is_new), asked_to_stop() as asked:

            def watch(progress: Progress) -> Literal["stop"] | None:
                if not folder.record.is_file():  # nothing was refused, or the folder vanished
                    folder.write_record(record)
                if on_step is not None and progress.job.name == jobs[0].name:
                    on_step(progress.step, progress.config.max_train_steps or 0)
                if asked.is_set():
                    raise KeyboardInterrupt
                return None

            results = invert_together(
                backbone,
                jobs,
                paste=config.paste,
                together=shown,
                seed=config.inversion.seed,
                replace=config.replace,
                on_step=watch,
                checkpoint=folder.state,
            )
        concepts = [r.concept for r in results if r.status in ("finished", "stopped") and r.concept]
        if len(concepts) < len(jobs):
            return results, None
        return results, formats.save_concept(concepts, folder.learned)[0]
    finally:
        folder.release()


def _captions(found: PictureSet) -> tuple[str, ...] | None:
    """The captions, if every picture has one."""
    given = tuple(caption for caption in found.captions if caption)
    return given if len(given) == len(found.names) else None
