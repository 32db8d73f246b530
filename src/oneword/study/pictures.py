"""The pictures page of a study: the word beside descriptions, as in the paper's figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oneword.evaluation import report
from oneword.images import cells_of, jpeg_bytes, jpeg_uri, open_picture
from oneword.prompts import fill
from oneword.study import work
from oneword.study.plan import CAPTIONS, Spec, Study
from oneword.study.subjects import Subject


PAGE = "pictures.html"
_PX = 128


def write(study: Study, *, command: str) -> Path | None:
    """Lay what the jobs drew side by side: a row for each method, a column for each prompt.

    Args:
        study: The plan; jobs that are not done, or whose pictures are not here, are left out.
        command: What the study was made with.

    Returns:
        The page, in the study's folder; ``None``: the study was not asked for it, or there are no
        pictures.

    Raises:
        OutputError: it cannot be written.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.1 and figure 3.
    """
    if not study.wants_pictures:
        return None
    several = len(study.config.seeds) > 1
    sections = []
    for subject in study.subjects.values():
        for seed in study.config.seeds:
            grid = _grid(study, subject, seed)
            if grid.lines:
                title = f"{subject.name}, seed {seed}" if several else subject.name
                sections.append(report.Section(title=title, grid=grid))
    if not sections:
        return None
    lead = [
        "A row for each method, a column for the first prompt of each kind, and under each picture "
        "the seed that it was drawn with: the first seeds, not chosen. Descriptions take turns; "
        "each stands under its picture."
    ]
    if any(subject.held_out is not None for subject in study.subjects.values()):
        lead.append(
            "The descriptions of the embedded model's own things are ours, not people's: in the "
            "paper, annotators wrote them who had been shown four pictures."
        )
    sections.append(report.Section(title="Again", commands=[command]))
    page = report.Report(title="The word beside descriptions", lead=lead, sections=sections)
    return report.write(page, study.folder / PAGE)


def _grid(study: Study, subject: Subject, seed: int) -> report.Grid:
    """What every setup drew of a concept; without lines where no pictures are here."""
    first = {kind: template for template, kind in reversed(study.templates(subject).items())}
    kinds = list(dict.fromkeys(study.templates(subject).values()))
    token = study.config.inversion.placeholder_token
    lines = []
    for label, arm in study.arms.items():
        spec = Spec(concept=subject.name, setup=label, seed=seed)
        path = work.gallery_file(study.folder, spec)
        if not path.is_file():
            continue
        sheet = open_picture(path).convert("RGB")
        if arm.setup == "image-only":
            (shown,) = cells_of(sheet, 1)
            lines.append(
                ("training pictures", [[(jpeg_uri(jpeg_bytes(cell, 92)), "") for cell in shown]])
            )
            continue
        captions = subject.captions(arm.setup) if arm.setup in CAPTIONS else ()
        below = _captions(study.drawing_seeds(seed), captions)
        cells = [
            [(jpeg_uri(jpeg_bytes(cell, 92)), text) for cell, text in zip(row, below, strict=False)]
            for row in cells_of(sheet, len(kinds))
        ]
        lines.append((label, cells))
    drawn = [label for label, _ in lines if label != "training pictures"]
    heads = [fill(first[kind], token) for kind in kinds]
    return report.Grid(columns=heads, lines=lines if drawn else (), px=_PX)


def _captions(seeds: Sequence[int], descriptions: Sequence[str]) -> list[str]:
    """What stands under the pictures of one prompt; descriptions take turns as in drawing."""
    if not descriptions:
        return [f"seed {seed}" for seed in seeds]
    turns = (descriptions[i % len(descriptions)] for i in range(len(seeds)))
    return [f"seed {seed}: {text}" for seed, text in zip(seeds, turns, strict=True)]
