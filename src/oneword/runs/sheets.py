"""Previews: what a word draws during training, for each prompt and seed, with its initialiser.

A preview is a sheet whose file records where each picture is, so that pages and later sheets can
extract the pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from oneword._files import FormError, check, parsed
from oneword._typing import Pixels
from oneword.concepts import previews
from oneword.config.drawing import SamplingConfig
from oneword.config.presets import sampler_of
from oneword.config.runs import ResolvedTrainConfig
from oneword.config.tuning import TUNING
from oneword.errors import UserError
from oneword.images import (
    Box,
    contact_sheet,
    grid_sheet,
    groups_sheet,
    open_picture,
    save_png,
    shrunk,
    to_images,
)
from oneword.models.contract import Backbone
from oneword.prompts import as_template, fill, replaced
from oneword.runs.folder import RunFolder
from oneword.training.job import Progress


STEPS = "steps.png"
"""Sheet of a run's steps, in its folder."""
INITIALIZER = "initializer"
"""Label above the initialiser's pictures."""
MOST_STEPS = 24
"""Most steps that a sheet or page shows."""
_CELL_PX = 256  # largest side of a picture on the sheet of steps
_ENTRY = "oneword-sheet"  # the text entry that says where the pictures are
_FORM = {
    "step": int,
    "prompts": [str],
    "seeds": [int],
    "initializer": str,
    "drawn": {str: object},
    "size": [int],
    "boxes": [[int]],
    "beside": [[int]],
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One preview."""

    step: int
    prompts: tuple[str, ...]
    """The prompts as given, with the word's placeholder."""
    seeds: tuple[int, ...]
    pictures: Sequence[Image.Image]
    """The pictures, prompt after prompt, each with every seed."""
    initializer: str = ""
    """The word that the new one starts from, if there is one."""
    beside: Sequence[Image.Image] = ()
    """What the initialiser draws instead, in the same order; empty, or the same number."""
    drawn: Mapping[str, Any] = field(default_factory=dict)
    """The settings: model, sampler, size, negative prompt."""

    def of(self, prompt: int) -> list[Image.Image]:
        """The word's pictures for a prompt."""
        return _part(self.pictures, prompt, len(self.seeds))

    def beside_of(self, prompt: int) -> list[Image.Image]:
        """The initialiser's pictures for a prompt; empty if it has none."""
        return _part(self.beside, prompt, len(self.seeds))

    def save(self, path: Path, placeholder_token: str) -> None:
        """Write the sheet: for each prompt the initialiser's pictures above the word's.

        Raises:
            OutputError: the folder cannot be written.
        """
        groups: list[tuple[str, list[Image.Image]]] = []
        for i, prompt in enumerate(self.prompts):
            if self.beside:
                said = replaced(prompt, {placeholder_token: self.initializer})
                groups.append((f"{said} ({INITIALIZER})", self.beside_of(i)))
            groups.append((prompt, self.of(i)))
        sheet, found = groups_sheet(groups)
        each = 2 if self.beside else 1
        told = {
            "step": self.step,
            "prompts": self.prompts,
            "seeds": self.seeds,
            "initializer": self.initializer,
            "drawn": self.drawn,
            "size": self.pictures[0].size,
            "boxes": [box for boxes in found[each - 1 :: each] for box in boxes],
            "beside": [box for boxes in found[::2] for box in boxes] if self.beside else [],
        }
        save_png(sheet, path, {_ENTRY: json.dumps(told)})


def read_sheet(path: Path) -> Sheet | None:
    """A preview's pictures; ``None`` if it is from an older version, or another picture.

    Raises:
        ImageError: it is not a picture, or is damaged.
    """
    image = open_picture(path)
    text = image.info.get(_ENTRY)
    if not isinstance(text, str):
        return None
    try:
        told = check(parsed(text), _FORM)
    except FormError:
        return None
    count, size = len(told["prompts"]) * len(told["seeds"]), tuple(told["size"])
    boxes, beside = ([tuple(box) for box in told[name]] for name in ("boxes", "beside"))
    right = (
        count
        and len(boxes) == count
        and len(beside) in (0, count)
        and len(size) == 2
        and all(_lies_in(box, image, size) for box in (*boxes, *beside))
    )
    if not right:
        return None
    return Sheet(
        step=told["step"],
        prompts=tuple(told["prompts"]),
        seeds=tuple(told["seeds"]),
        pictures=[_taken(image, box, size) for box in boxes],
        initializer=told["initializer"],
        beside=[_taken(image, box, size) for box in beside],
        drawn=told["drawn"],
    )


def _lies_in(box: Sequence[int], image: Image.Image, size: Sequence[int]) -> bool:
    """Whether a box is inside a picture and has the enlarged size of a picture of this size."""
    if len(box) != 4 or min(size) < 1:
        return False
    left, top, right, bottom = box
    inside = 0 <= left < right <= image.width and 0 <= top < bottom <= image.height
    factor = (right - left) // size[0]
    return inside and (right - left, bottom - top) == (factor * size[0], factor * size[1])


def _taken(image: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
    """A picture of a sheet, at its own size."""
    return image.crop(box).convert("RGB").resize(size, Image.Resampling.NEAREST)


def _part(images: Sequence[Image.Image], place: int, count: int) -> list[Image.Image]:
    return list(images[place * count : (place + 1) * count])


def read_sheets(folder: RunFolder) -> list[Sheet]:
    """A run's previews, oldest first, without those of other prompts than the last one's.

    Raises:
        ImageError: one is damaged.
    """
    found = [sheet for path in folder.previews() if (sheet := read_sheet(path)) is not None]
    if not found:
        return []
    asked = (found[-1].prompts, found[-1].seeds)
    return [sheet for sheet in found if (sheet.prompts, sheet.seeds) == asked]


def spread(items: Sequence[T], most: int = MOST_STEPS) -> list[T]:
    """At most this number of items, evenly spread, including the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def columns_of(
    sheets: Sequence[Sheet], saved: Collection[int] = ()
) -> list[tuple[str, Sequence[Image.Image]]]:
    """The columns for comparing steps: the initialiser, then every step.

    Args:
        sheets: Of the same prompts and seeds, oldest first.
        saved: Steps whose word was saved, which the labels say.
    """
    beside = next((sheet for sheet in sheets if sheet.beside), None)
    first = [] if beside is None else [(f"{INITIALIZER}: {beside.initializer}", beside.beside)]
    marks = {True: ", saved", False: ""}
    return [
        *first,
        *((f"step {one.step}{marks[one.step in saved]}", one.pictures) for one in spread(sheets)),
    ]


def save_steps(
    columns: Sequence[tuple[str, Sequence[Image.Image]]],
    prompts: Sequence[str],
    seeds: Sequence[int],
    path: Path,
) -> None:
    """Write a sheet with a column for each step and a row for each prompt and seed.

    Args:
        columns: For each, its label and its pictures, prompt after prompt.
        prompts: The prompts.
        seeds: The seeds of every prompt.
        path: The file.

    Raises:
        OutputError: it cannot be written.
    """
    labels = [f"seed {seed}: {prompt}" for prompt in prompts for seed in seeds]
    rows = [
        (label, [shrunk(images[i], _CELL_PX) for _, images in columns])
        for i, label in enumerate(labels)
    ]
    save_png(grid_sheet([name for name, _ in columns], rows), path)


def preview_of(token: str, folder: RunFolder, preview: Path | None) -> dict[Path, bytes]:
    """A preview as the picture next to the run's word, unless there is a user's own picture.

    Args:
        token: The word.
        folder: The run's.
        preview: Of one of its steps; ``None`` or not there: nothing is to be written.
    """
    target = previews.beside(folder.learned)
    if preview is None or not preview.is_file() or not previews.may_write(target):
        return {}
    sheet = read_sheet(preview)
    picture = open_picture(preview) if sheet is None else contact_sheet(sheet.pictures)
    facts = {"word": token, "preview": preview.stem}
    return {target: previews.preview_bytes(picture, facts)}


class Previews:
    """Draws the previews of one run."""

    def __init__(self, config: ResolvedTrainConfig, backbone: Backbone, folder: RunFolder) -> None:
        self.config, self.backbone, self.folder = config, backbone, folder
        self.token = config.inversion.placeholder_token
        self.templates = [as_template(p, self.token) for p in config.validation_prompts]
        self._beside: tuple[str, list[Image.Image]] | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every prompt's pictures."""
        return self.config.preview_seeds

    def draw(self, progress: Progress, on_step: Callable[[int, int], None]) -> tuple[Sheet, bool]:
        """Draw with the present word, with the sampler of ``oneword generate``.

        Args:
            progress: State of the run, whose word can be drawn.
            on_step: Called at every step of the drawing, which it may end by an exception.

        Returns:
            The sheet, and whether the initialiser's pictures on it are new.
        """
        own = self._pictures(progress, progress.token, progress.negative_prompt, on_step)
        is_new = self._beside is None
        if self._beside is None:
            self._beside = self._earlier(progress)
            is_new = self._beside is None
        if self._beside is None:
            self._beside = self._initializer(progress, own, on_step)
        word, beside = self._beside
        sheet = Sheet(
            step=progress.step,
            prompts=tuple(self.config.validation_prompts),
            seeds=self.seeds,
            pictures=own,
            initializer=word if beside else "",
            beside=beside,
            drawn=self._told(progress),
        )
        return sheet, is_new and bool(beside)

    def _sampling(self, progress: Progress, word: str, negative: str) -> SamplingConfig:
        """How pictures of a word are drawn.

        Args:
            progress: Where the run stands.
            word: What stands in the placeholder's place.
            negative: A further negative prompt.
        """
        asked = replaced(self.config.validation_negative_prompt, {self.token: word})
        return SamplingConfig(
            negative_prompt=", ".join(filter(None, [asked, negative])),
            sampler=sampler_of(progress.config.preset, self.backbone.family),
            height=self.config.validation_height,
            width=self.config.validation_width,
        )

    def _told(self, progress: Progress) -> dict[str, Any]:
        """How they are drawn, for the file; equal where the initialiser's pictures would be."""
        asked = self._sampling(progress, self.token, "")
        settings = dataclasses.asdict(self.backbone.sampling_for(asked))
        return {"model": self.backbone.name, **settings}

    def _pictures(
        self, progress: Progress, word: str, negative: str, on_step: Callable[[int, int], None]
    ) -> list[Image.Image]:
        sampling = self._sampling(progress, word, negative)
        drawn: list[Pixels] = [
            self.backbone.draw(
                [fill(template, word)] * len(self.seeds), self.seeds, sampling, on_step=on_step
            )
            for template in self.templates
        ]
        return [image for pixels in drawn for image in to_images(pixels)]

    def _earlier(self, progress: Progress) -> tuple[str, list[Image.Image]] | None:
        """The initialiser's pictures of an earlier part of the run, if they were drawn alike."""
        told = json.loads(json.dumps(self._told(progress)))
        for path in reversed(self.folder.previews()):
            sheet = None
            with contextlib.suppress(UserError):  # damaged: it is drawn again
                sheet = read_sheet(path)
            if (
                sheet is not None
                and sheet.beside
                and (sheet.initializer, sheet.drawn) == (progress.config.initializer_token, told)
                and (sheet.prompts, sheet.seeds) == (self.config.validation_prompts, self.seeds)
            ):
                return sheet.initializer, list(sheet.beside)
        return None

    def _initializer(
        self, progress: Progress, own: list[Image.Image], on_step: Callable[[int, int], None]
    ) -> tuple[str, list[Image.Image]]:
        """The initialiser's pictures; none where it is a file, or the model is no longer itself."""
        word = progress.config.initializer_token
        if not word or (progress.step and progress.config.setup in TUNING):
            return "", []
        if self._is_still(progress, word):
            return word, own
        return word, self._pictures(progress, word, "", on_step)

    def _is_still(self, progress: Progress, word: str) -> bool:
        """Whether the word is its initialiser yet, row for row, and draws what that does."""
        known = self.backbone.vocabularies
        return (
            progress.step == 0
            and progress.config.form == "rows"
            and not progress.negative_prompt
            and progress.rows.keys() == known.keys()
            and all(_equal(rows, known[name].rows_of(word)) for name, rows in progress.rows.items())
        )


def _equal(rows: torch.Tensor, others: torch.Tensor) -> bool:
    return rows.shape == others.shape and torch.equal(rows, others.to(rows))
