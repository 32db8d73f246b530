"""``oneword generate --grid``: everything drawn once for each value of one or two settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from oneword.cli import options, screen
from oneword.cli.arguments import GenerateArguments
from oneword.cli.words import on_base
from oneword.concepts.concept import Concept
from oneword.concepts.named import flat
from oneword.evaluation import choosing, grids
from oneword.evaluation.features import load_judge
from oneword.evaluation.grids import Cell
from oneword.generation.generate import SHEET, OnPicture
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work


def run(chosen: GenerateArguments, about: Callable[[Sequence[str], Sequence[Concept]], Any]) -> int:
    """Draw all cells and put them on one sheet.

    Args:
        chosen: The options.
        about: Says what is to be known of prompts and words before they are drawn.
    """
    cells = grids.cells_of(chosen)
    about(list(dict.fromkeys(prompt for cell in cells for prompt in cell.prompts)),
          [word for cell in cells for word in flat(cell.words)])  # fmt: skip
    cells = [
        dataclasses.replace(cell, model=on_base(cell.model, cell.words, say=cell.number == 0))
        for cell in cells
    ]
    work = Work(2 * chosen.batch_size, chosen.sampling.width, trains=False)
    listed: list[dict[str, str]] = []
    scores: list[str] = []
    for cell, drawing, files in grids.draw(
        chosen,
        cells,
        lambda model: load_backbone(model, work),
        _counting,
        (lambda backbone: load_judge(chosen.judge, backbone)) if chosen.score else None,
    ):
        listed += [{"file": str(f)} | drawing.metadata(i) for i, f in enumerate(files)]
        if chosen.score:
            scores += [f"{cell.label}, {line}" for line in choosing.means_told(drawing)]
    options.write_json(chosen.json, listed)
    for line in scores:
        options.tell(line)
    options.tell(
        f"{len(listed)} pictures in {chosen.output_dir}; sheet: {chosen.output_dir / SHEET} "
        f"({' by '.join(axis.name for axis in chosen.axes)})."
    )
    return 0


@contextmanager
def _counting(cell: Cell) -> Iterator[OnPicture]:
    with screen.warnings_said(), screen.counting(cell.label) as show:
        yield show
