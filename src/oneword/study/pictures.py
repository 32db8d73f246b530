"""The pictures pages of a study, as the paper's figures 3 and 5: a row for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from oneword.evaluation import report
from oneword.images import cells_of, jpeg_bytes, jpeg_uri, open_picture
from oneword.prompts import fill
from oneword.study import grid, work
from oneword.study.plan import CAPTIONS, FIGURE_3, FIGURE_5, GROUPS, VARIED, Spec, Study
from oneword.study.subjects import Subject


PAGES = {FIGURE_3: "pictures.html", FIGURE_5: "figure5.html"}
"""The page of each figure."""
_TITLES = {
    FIGURE_3: "The word next to descriptions",
    FIGURE_5: "The word next to other methods of drawing a thing in new scenes",
}
_PX = 128


def write(study: Study, *, command: str) -> list[Path]:
    """Write the jobs' pictures side by side: a row for each method, a column for each prompt.

    Figure 3 has a column for the first prompt of each kind, figure 5 for every prompt. A method
    that is not available here has a row that says so, with its reason below.

    Args:
        study: The plan; jobs that are not done, or whose pictures are not here, are left out.
        command: The command of the study.

    Returns:
        The pages, in the study's folder; empty if none was requested, or there are no pictures.

    Raises:
        OutputError: a page cannot be written.

    Source:
        Gal et al. 2022, arXiv:2208.01618, sections 4.1, 4.2 and 4.7, figures 3 and 5.
    """
    found = [_page(study, figure, command) for figure in study.figures]
    return [path for path in found if path is not None]


def _page(study: Study, figure: str, command: str) -> Path | None:
    several = len(study.config.seeds) > 1
    sections = []
    for subject in study.subjects.values():
        for seed in study.config.seeds:
            shown = _grid(study, figure, subject, seed)
            if shown.lines:
                title = f"{subject.name}, seed {seed}" if several else subject.name
                sections.append(report.Section(title=title, grid=shown))
    if not sections:
        return None
    columns = "the first prompt of each kind" if figure == FIGURE_3 else "each prompt"
    lead = [
        f"One row per method, one column for {columns}. Below each picture is the seed that it was "
        "drawn with: the first seeds, not selected. Descriptions are used in turn; each is shown "
        "below its picture."
    ]
    own = [label for label in _labels(study, figure) if study.arms[label].setup != "image-only"]
    if any(_has_best(study, label) for label in own):
        few = [label for label in own if study.arms[label].setup in VARIED]
        most = max(study.candidates(label) for label in own)
        less = (
            f", or {study.candidates(few[0])} for {' and '.join(few)}"
            if few and study.candidates(few[0]) < most
            else ""
        )
        lead.append(
            f"The last picture in each cell is the best of the first {most} seeds{less}, as ranked "
            "by the judge: by the mean of the similarities to the training pictures and to the "
            "prompt. The judge is a CLIP that guided none of the methods. In the paper, people "
            "made the choice."
        )
    if any(subject.held_out is not None for subject in study.subjects.values()):
        lead.append(
            "We wrote the descriptions of the embedded model's own things. In the paper, they come "
            "from annotators who were shown four pictures."
        )
    absent = {n: why for n, why in grid.absences(study).items() if n in own}
    if absent:
        table = [["not available", "why"], *([label, why] for label, why in absent.items())]
        sections.append(report.Section(title="Not available here", table=table, prose=True))
    sections.append(report.Section(title="Reproduce", commands=[command]))
    page = report.Report(title=_TITLES[figure], lead=lead, sections=sections)
    return report.write(page, study.folder / PAGES[figure])


def _labels(study: Study, figure: str) -> list[str]:
    """The setups of a figure's page: its own, and on figure 3's also those of no figure."""
    if figure == FIGURE_5:
        return [n for n in GROUPS[FIGURE_5] if n in study.arms and n != "prompt-only"]
    others = {*GROUPS[FIGURE_5]} - {*GROUPS[FIGURE_3]} if FIGURE_5 in study.figures else set()
    return [label for label in study.arms if label not in others]


def _has_best(study: Study, label: str) -> bool:
    return any(
        spec.setup == label and work.figure_file(study.folder, spec).is_file()
        for spec in study.specs
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A job's pictures for a prompt, as shown."""

    first: Sequence[Image.Image]
    """Pictures of the first seeds."""
    best: Image.Image | None = None
    best_seed: int | None = None


def _drawn(study: Study, spec: Spec, templates: Sequence[str]) -> dict[str, _Drawn]:
    """A job's pictures by prompt; of jobs from before the best were kept, of fewer prompts."""
    path = work.figure_file(study.folder, spec)
    if path.is_file():
        best = {
            row["prompt"]: row["best_seed"]
            for row in work.read_rows(study.folder, spec)
            if row.get("best_seed") is not None
        }
        rows = cells_of(open_picture(path).convert("RGB"), len(templates))
        return {
            template: _Drawn(cells[:-1], cells[-1], best.get(template))
            for template, cells in zip(templates, rows, strict=True)
        }
    path = work.gallery_file(study.folder, spec)
    if not path.is_file():
        return {}
    first = _first(study, study.subjects[spec.concept])
    rows = cells_of(open_picture(path).convert("RGB"), len(first))
    return {t: _Drawn(cells) for t, cells in zip(first.values(), rows, strict=True)}


def _first(study: Study, subject: Subject) -> Mapping[str, str]:
    """The first prompt of each kind, in the order of the kinds."""
    templates = study.templates(subject)
    first = {kind: template for template, kind in reversed(templates.items())}
    return {kind: first[kind] for kind in dict.fromkeys(templates.values())}


def _grid(study: Study, figure: str, subject: Subject, seed: int) -> report.Grid:
    """What every setup drew of a concept; without lines where no pictures are here."""
    every = list(study.templates(subject))
    shown = list(_first(study, subject).values()) if figure == FIGURE_3 else every
    token = study.config.inversion.placeholder_token
    absent = {spec.name for spec in grid.standing(study).absent}
    lines: list[tuple[str, Sequence[Sequence[tuple[str, str]]]]] = []
    is_drawn = False
    for label in _labels(study, figure):
        arm, spec = study.arms[label], Spec(concept=subject.name, setup=label, seed=seed)
        if spec.name in absent:
            lines.append((f"{label}: not available", [()] * len(shown)))
            continue
        if arm.setup == "image-only":
            path = work.gallery_file(study.folder, spec)
            if path.is_file():
                (cells,) = cells_of(open_picture(path).convert("RGB"), 1)
                lines.append(("training pictures", [[(_uri(cell), "") for cell in cells]]))
            continue
        drawn = _drawn(study, spec, every)
        if not drawn:
            continue
        is_drawn = True
        captions = subject.captions(arm.setup) if arm.setup in CAPTIONS else ()
        below = _captions(study.drawing_seeds(seed), captions)
        lines.append((label, [_cell(drawn.get(template), below) for template in shown]))
    heads = [fill(template, token) for template in shown]
    return report.Grid(columns=heads, lines=lines if is_drawn else (), px=_PX)


def _cell(drawn: _Drawn | None, below: Sequence[str]) -> list[tuple[str, str]]:
    if drawn is None:
        return []
    cells = [(_uri(one), text) for one, text in zip(drawn.first, below, strict=False)]
    if drawn.best is not None and drawn.best_seed is not None:
        cells.append((_uri(drawn.best), f"best: seed {drawn.best_seed}"))
    return cells


def _uri(cell: Image.Image) -> str:
    return jpeg_uri(jpeg_bytes(cell, 92))


def _captions(seeds: Sequence[int], descriptions: Sequence[str]) -> list[str]:
    """Captions of the pictures of one prompt; descriptions are used in turn, as in drawing."""
    if not descriptions:
        return [f"seed {seed}" for seed in seeds]
    turns = (descriptions[i % len(descriptions)] for i in range(len(seeds)))
    return [f"seed {seed}: {text}" for seed, text in zip(seeds, turns, strict=True)]
