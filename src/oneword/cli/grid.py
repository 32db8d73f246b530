"""``oneword generate --grid``: everything drawn once for each value of one or two settings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from oneword.cli import options, screen
from oneword.cli.arguments import GenerateArguments
from oneword.cli.words import on_base
from oneword.concepts.concept import Concept
from oneword.concepts.named import flat, read_words
from oneword.config.drawing import SamplingConfig
from oneword.config.grid import Axis
from oneword.config.model import ModelConfig
from oneword.generation import from_config, generate as generation
from oneword.generation.generate import SHEET, Drawing
from oneword.images import grid_sheet, save_png, shrunk, to_images
from oneword.models import samplers
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work


_CELL_PX = 256  # largest side of a picture on the sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """One combination of values."""

    values: tuple[Any, ...]
    label: str
    words: Mapping[Path, Sequence[Concept]]
    model: ModelConfig
    sampling: SamplingConfig


def run(chosen: GenerateArguments, prompts: Sequence[str]) -> int:
    """Draw all cells and put them on one sheet."""
    cells = _cells(chosen)
    numbers = {cell.values: number for number, cell in enumerate(cells)}
    done: dict[tuple[Any, ...], Drawing] = {}
    listed: list[dict[str, str]] = []
    work = Work(2 * chosen.batch_size, chosen.sampling.width, trains=False)
    for model, own in itertools.groupby(
        sorted(cells, key=lambda cell: str(cell.model)), key=lambda cell: cell.model
    ):
        several = list(own)
        backbone = load_backbone(model, work)
        start = from_config.start_of(chosen, backbone)
        for cell in several:  # before the first one is drawn
            backbone.check_sampling(cell.sampling)
        for cell in several:
            changed = dataclasses.replace(
                chosen, model=model, sampling=cell.sampling, concepts=tuple(cell.words)
            )
            with screen.warnings_said(), screen.counting(cell.label) as show:
                drawing = from_config.draw(
                    changed, backbone, flat(cell.words), show, prompts=prompts, start=start
                )
            drawing = drawing.told([{"grid": cell.label}] * len(drawing.prompts))
            # numbered, since a label may be as long as a path and names are cut
            place = f"{numbers[cell.values]:02d} {cell.label}"
            files = generation.save_pictures(drawing, chosen.output_dir, mark=place)
            listed += [{"file": str(f)} | drawing.metadata(i) for i, f in enumerate(files)]
            done[cell.values] = drawing
    save_png(_sheet(chosen.axes, done), chosen.output_dir / SHEET)
    options.write_json(chosen.json, listed)
    options.tell(
        f"{len(listed)} pictures in {chosen.output_dir}; sheet: {chosen.output_dir / SHEET} "
        f"({' by '.join(axis.name for axis in chosen.axes)})."
    )
    return 0


def _cells(chosen: GenerateArguments) -> list[_Cell]:
    """Every combination of values, checked as far as it can be without a model."""
    found = []
    for values in itertools.product(*(axis.values for axis in chosen.axes)):
        given = {a.setting: v for a, v in zip(chosen.axes, values, strict=True)}
        checkpoint, model = given.pop("checkpoint", None), given.pop("model", None)
        sampling = dataclasses.replace(chosen.sampling, **given)
        samplers.check_names(sampling.sampler)
        words = read_words(chosen.concepts) if checkpoint is None else _with(chosen, checkpoint)
        base = chosen.model if model is None else dataclasses.replace(chosen.model, model=model)
        found.append(
            _Cell(
                values=values,
                label=", ".join(a.label(v) for a, v in zip(chosen.axes, values, strict=True)),
                words=words,
                model=on_base(base, words, say=not found),
                sampling=sampling,
            )
        )
    return found


def _with(chosen: GenerateArguments, checkpoint: str) -> dict[Path, list[Concept]]:
    """The words of a cell: its checkpoint's in the place of those of the same name."""
    own = read_words([Path(checkpoint)])
    names = {concept.placeholder_token for concept in flat(own)}
    others = {
        path: kept
        for path, concepts in read_words(chosen.concepts).items()
        if (kept := [c for c in concepts if c.placeholder_token not in names])
    }
    return others | own


def _sheet(axes: Sequence[Axis], drawn: Mapping[tuple[Any, ...], Drawing]) -> Image.Image:
    """A column for each value of the first axis; a row for each other value, prompt and seed."""
    across, *down = axes
    one = next(iter(drawn.values()))
    images = {values: to_images(drawing.pixels) for values, drawing in drawn.items()}
    rows: list[tuple[str, list[Image.Image]]] = []
    for i in range(len(one.prompts)):
        for values in itertools.product(*(axis.values for axis in down)):
            label = ", ".join(
                [*(a.label(v) for a, v in zip(down, values, strict=True)),
                 f"seed {one.seeds[i]}: {one.prompts[i]}"]
            )  # fmt: skip
            cells = [images[value, *values][i] for value in across.values]
            rows.append((label, [shrunk(cell, _CELL_PX) for cell in cells]))
    return grid_sheet([across.label(value) for value in across.values], rows)
