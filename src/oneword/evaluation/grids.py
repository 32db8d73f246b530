"""Grids: everything drawn once for each value of one or two settings, such as files of words."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from oneword.concepts.concept import Concept
from oneword.concepts.named import flat, read_words
from oneword.config.drawing import GenerateConfig, SamplingConfig
from oneword.config.grid import Axis
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError
from oneword.evaluation import choosing
from oneword.evaluation.features import Judge
from oneword.generation import from_config, generate as generation
from oneword.generation.generate import SHEET, Drawing, OnPicture
from oneword.images import grid_sheet, save_png, shrunk, to_images
from oneword.models import samplers
from oneword.models.contract import Backbone
from oneword.prompts import replaced


_CELL_PX = 256  # largest side of a picture on the sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination of values."""

    number: int
    """From 0."""
    values: tuple[Any, ...]
    """One for each axis."""
    label: str
    words: Mapping[Path, Sequence[Concept]]
    """By file."""
    prompts: tuple[str, ...]
    """With the cell's own words in the templates."""
    model: ModelConfig
    sampling: SamplingConfig

    def template(self, prompt: str) -> str:
        """One of its prompts with "{}" for each of its words."""
        return replaced(prompt, {word.placeholder_token: "{}" for word in flat(self.words)})


def cells_of(chosen: GenerateConfig) -> list[Cell]:
    """Every combination of the values of a grid's axes, checked as far as possible without a model.

    Raises:
        UserError: a value cannot be used, or the prompts of two cells are not as many.
    """
    found: list[Cell] = []
    for number, values in enumerate(itertools.product(*(axis.values for axis in chosen.axes))):
        given = {a.setting: v for a, v in zip(chosen.axes, values, strict=True)}
        checkpoint, model = given.pop("checkpoint", None), given.pop("model", None)
        sampling = dataclasses.replace(chosen.sampling, **given)
        samplers.check_names(sampling.sampler)
        words = read_words(chosen.concepts) if checkpoint is None else _with(chosen, checkpoint)
        cell = Cell(
            number=number,
            values=values,
            label=", ".join(a.label(v) for a, v in zip(chosen.axes, values, strict=True)),
            words=words,
            prompts=from_config.prompts_of(chosen, flat(words)),
            model=chosen.model if model is None else dataclasses.replace(chosen.model, model=model),
            sampling=sampling,
        )
        if found and len(cell.prompts) != len(found[0].prompts):
            raise ConfigError(
                "The words of a grid must fill the prompts equally often, got "
                f"{len(found[0].prompts)} prompts for {found[0].label} and {len(cell.prompts)} for "
                f"{cell.label}; name files with one word each, and prompts that suit all of them."
            )
        found.append(cell)
    return found


def _with(chosen: GenerateConfig, checkpoint: str) -> dict[Path, list[Concept]]:
    """The words of a cell: its checkpoint's in the place of those of the same name."""
    own = read_words([Path(checkpoint)])
    names = {concept.placeholder_token for concept in flat(own)}
    others = {
        path: kept
        for path, concepts in read_words(chosen.concepts).items()
        if (kept := [c for c in concepts if c.placeholder_token not in names])
    }
    return others | own


def draw(
    chosen: GenerateConfig,
    cells: Sequence[Cell],
    load: Callable[[ModelConfig], Backbone],
    counting: Callable[[Cell], AbstractContextManager[OnPicture]],
    judge_of: Callable[[Backbone], Judge] | None = None,
) -> Iterator[tuple[Cell, Drawing, list[Path]]]:
    """Draw the cells one after the other, so that none has a part in another's pictures.

    Each is drawn with its own words alone: changes of the model's weights, negative words and the
    sampler of a word are not those of the next. The pictures and a sheet of all go to the config's
    folder; the sheet has a column for each value of the first axis.

    Args:
        chosen: The config.
        cells: Those of :func:`cells_of`, whose models are named.
        load: Loads a model; called once for each.
        counting: Gives, for a cell, a context with what is told the progress of its drawing.
        judge_of: Gives the CLIP that scores every picture; ``None``: none are scored.

    Yields:
        Each cell, its pictures, and their files.

    Raises:
        UserError: a word, a prompt, a setting or the folder cannot be used.
    """
    done: dict[tuple[Any, ...], tuple[Cell, Drawing]] = {}
    for model, own in itertools.groupby(
        sorted(cells, key=lambda cell: str(cell.model)), key=lambda cell: cell.model
    ):
        several = list(own)
        backbone = load(model)
        start = from_config.start_of(chosen, backbone)
        judge = None if judge_of is None else judge_of(backbone)
        for cell in several:  # before the first one is drawn
            backbone.check_sampling(cell.sampling)
        for cell in several:
            changed = dataclasses.replace(
                chosen, model=model, sampling=cell.sampling, concepts=tuple(cell.words)
            )
            with counting(cell) as show:
                drawing = from_config.draw(
                    changed, backbone, flat(cell.words), show, prompts=cell.prompts, start=start
                )
                if judge is not None:
                    known = choosing.references_of(
                        cell.words, backbone.resolution, given=chosen.train_data_dir
                    )
                    drawing = choosing.scored(drawing, judge, references=known)
            drawing = drawing.told([{"grid": cell.label}] * len(drawing.prompts))
            # numbered, since a label may be as long as a path and names are cut
            place = f"{cell.number:02d} {cell.label}"
            files = generation.save_pictures(drawing, chosen.output_dir, mark=place)
            done[cell.values] = cell, drawing
            yield cell, drawing, files
    save_png(_sheet(chosen.axes, done), chosen.output_dir / SHEET)


def _sheet(
    axes: Sequence[Axis], drawn: Mapping[tuple[Any, ...], tuple[Cell, Drawing]]
) -> Image.Image:
    """A column for each value of the first axis; a row for each other value, prompt and seed."""
    across, *down = axes
    cell, one = next(iter(drawn.values()))
    images = {values: to_images(drawing.pixels) for values, (_, drawing) in drawn.items()}
    rows: list[tuple[str, list[Image.Image]]] = []
    for i, prompt in enumerate(one.prompts):
        is_shared = all(drawing.prompts[i] == prompt for _, drawing in drawn.values())
        said = prompt if is_shared else cell.template(prompt)
        for values in itertools.product(*(axis.values for axis in down)):
            label = ", ".join(
                [*(a.label(v) for a, v in zip(down, values, strict=True)),
                 f"seed {one.seeds[i]}: {said}"]
            )  # fmt: skip
            cells = [images[value, *values][i] for value in across.values]
            rows.append((label, [shrunk(picture, _CELL_PX) for picture in cells]))
    return grid_sheet([across.label(value) for value in across.values], rows)
