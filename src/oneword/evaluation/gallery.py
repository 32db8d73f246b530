"""Galleries: everything that was drawn, in order, on a page in a single file and as sheets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from oneword.evaluation import report
from oneword.evaluation.choosing import Choice
from oneword.generation.generate import Drawing, slug
from oneword.images import labelled_sheet, save_png, shrunk, to_images
from oneword.prompts import as_template, names


PAGE = "gallery.html"
CELL_PX = 256
"""Largest side of a picture on a page or sheet, in px."""
ROWS = 8
"""Number of prompts on a sheet."""
GRID_SEEDS = 3
"""Number of first seeds of each word on the grid of words."""


def words_of(drawing: Drawing) -> list[str]:
    """Placeholders that the prompts could use."""
    return list(json.loads(drawing.settings["concepts"]))


def groups(drawing: Drawing) -> dict[tuple[str, ...], dict[str, list[int]]]:
    """Picture indices, by the words in a prompt, then by prompt."""
    found: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for i, prompt in enumerate(drawing.prompts):
        words = tuple(w for w in words_of(drawing) if names(prompt, w))
        found.setdefault(words, {}).setdefault(prompt, []).append(i)
    return found


def grid(drawing: Drawing) -> dict[str, dict[str, list[int]]]:
    """Picture indices by template, then by word, for templates drawn with several words."""
    found: dict[str, dict[str, list[int]]] = {}
    for words, prompts in groups(drawing).items():
        for prompt, own in prompts.items() if len(words) == 1 else ():
            found.setdefault(as_template(prompt, words[0]), {})[words[0]] = own
    return {template: by_word for template, by_word in found.items() if len(by_word) > 1}


def save_gallery(
    drawing: Drawing, folder: Path, *, choice: Choice | None = None, commands: Sequence[str] = ()
) -> list[Path]:
    """Write everything that was drawn, not chosen.

    Args:
        drawing: All pictures, before any choice.
        folder: Folder for ``gallery.html`` and the sheets.
        choice: Which pictures were kept, to be marked.
        commands: Commands that made the page, to be printed on it.

    Returns:
        The page, then the sheets: a few prompts each, seeds from left to right, and ``grid.png`` if
        prompts were drawn with several words.

    Raises:
        OutputError: the folder cannot be written.
    """
    images = to_images(drawing.pixels)
    page = report.Report(
        title="All pictures that were drawn",
        lead=[
            f"{len(images)} pictures by {drawing.settings['model']}, guidance scale "
            f"{drawing.settings['guidance_scale']}, {drawing.settings['num_inference_steps']} "
            "steps: every seed of every prompt, none left out."
        ],
    )
    files: list[Path] = []
    for words, prompts in groups(drawing).items():
        title = " and ".join(words) or "Without a learned word"
        rows = [
            report.row(prompt, [images[i] for i in own], _captions(drawing, own, choice),
                       most_px=CELL_PX)
            for prompt, own in prompts.items()
        ]  # fmt: skip
        page.sections.append(report.Section(title=title, rows=rows))
        listed = list(prompts.items())
        for first in range(0, len(listed), ROWS):
            part = dict(listed[first : first + ROWS])
            number = f"-{first // ROWS + 1}" if len(listed) > ROWS else ""
            path = folder / f"sheet-{slug('-'.join(words) or 'plain')}{number}.png"
            while path in files:  # words that differ in signs alone
                path = path.with_name(f"{path.stem}-x.png")
            save_png(_sheet(images, part), path)
            files.append(path)
    if side_by_side := grid(drawing):
        by_row: dict[str, list[int]] = {}
        for template, by_word in side_by_side.items():
            label = template if by_row else f"{template}   ({', '.join(by_word)})"
            by_row[label] = [i for own in by_word.values() for i in own[:GRID_SEEDS]]
        save_png(_sheet(images, by_row, max(map(len, by_row.values()))), folder / "grid.png")
        files.append(folder / "grid.png")
    if commands:
        page.sections.append(report.Section(title="Reproduce", commands=commands))
    return [report.write(page, folder / PAGE), *files]


def _captions(drawing: Drawing, own: Sequence[int], choice: Choice | None) -> list[str]:
    kept = () if choice is None else choice.kept
    return [f"seed {drawing.seeds[i]}{', kept' * (i in kept)}" for i in own]


def _sheet(
    images: Sequence[Image.Image], rows: dict[str, list[int]], most_columns: int = 8
) -> Image.Image:
    groups = {label: [shrunk(images[i], CELL_PX) for i in own] for label, own in rows.items()}
    return labelled_sheet(groups, most_columns=most_columns)


def chosen_section(drawing: Drawing, choice: Choice, *, title: str = "Chosen") -> report.Section:
    """Report section: the kept pictures of each prompt, best first, above the dropped ones."""
    images, rows = to_images(drawing.pixels), []
    asked = [drawing.asked(i) for i in range(len(images))]
    for prompt in dict.fromkeys(asked):
        for label, those in (("kept", choice.kept), ("dropped", choice.dropped)):
            own = [i for i in those if asked[i] == prompt]
            if label == "dropped":
                own.sort(key=lambda i: -choice.scores[i])
            if not own:
                continue
            captions = [f"seed {drawing.seeds[i]}: {choice.scores[i]:.3f}" for i in own]
            heading = f"{prompt} ({label})"
            rows.append(report.row(heading, [images[i] for i in own], captions, most_px=CELL_PX))
    kinds = {"image": "similarity to the training pictures", "text": "similarity to the prompt"}
    how = kinds.get(choice.rank_by, "the mean of the similarities to pictures and prompt")
    unlike = (
        f" Diversity {choice.diversity:g}: pictures similar to one kept before were skipped."
        if choice.diversity
        else ""
    )
    return report.Section(
        title=title, text=f"Ranked by {how}, cosines by {choice.judge}.{unlike}", rows=rows
    )
