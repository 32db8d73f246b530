"""A study's results as files: raw rows, figures, one HTML page, and the same in Markdown."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from oneword._files import (
    check_target,
    read_bytes,
    read_text,
    sweep,
    write_atomic,
    write_json_atomic,
)
from oneword.errors import UserError
from oneword.evaluation import report
from oneword.images import jpeg_bytes, jpeg_uri, open_picture
from oneword.study import findings as judged, grid, pictures, plots, statistics, work
from oneword.study.findings import Finding
from oneword.study.plan import BASE, Spec, Study
from oneword.study.statistics import METRICS, Estimate
from oneword.study.work import TRAINING, Row


REPORT, MARKDOWN = "report.html", "report.md"
PARQUET = "results.parquet"
ROWS = "results.jsonl.gz"
"""All rows, stored next to a page so that it can be printed again."""
BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"
"""The results are written between these two lines of a page."""
_MAX_SHEET = 2**28  # bytes of a figure or a gallery
_SHOWN = 3  # concepts whose pictures are in the report


class StudyError(UserError):
    """A study has nothing to report, or a page has no place for it."""


def gather(study: Study) -> list[Row]:
    """Rows of every job that is done, in the order of the plan."""
    return [row for spec in study.specs for row in work.read_rows(study.folder, spec)]


def write(
    study: Study, *, command: str, markdown: Path | None = None, figures: Path | None = None
) -> Path:
    """Write all results of a study so far into its folder.

    ``results.jsonl`` (and ``results.parquet`` where pyarrow is installed), ``summary.json``,
    ``figures/``, ``report.md`` and ``report.html``; with the setups "fig3" ``pictures.html``, with
    "fig5" ``figure5.html``.

    Args:
        study: The plan; jobs that are not done are left out.
        command: The command of the study.
        markdown: A page into which the results are written, between its marks; it is created if it
            does not exist.
        figures: Folder for the page's figures and all rows; ``None``: next to the page, with the
            same name.

    Returns:
        The HTML page.

    Raises:
        StudyError: no job is done, or the page has no marks.
        OutputError: a file cannot be written.
    """
    rows = gather(study)
    if not rows:
        raise StudyError(
            f"Cannot write a report because no job in {study.folder} is finished; run the study "
            "first."
        )
    folder = study.folder
    scale = study.guidance_scale
    setups = [label for label in study.arms if any(row["setup"] == label for row in rows)]
    # a claim about a method that is not available here says what it needs
    claimed = [*setups, *(label for label in study.baselines if label not in setups)]
    groups = _groups(rows, setups, claimed, scale)
    _write_rows(rows, folder)
    summary = {
        "command": command,
        "jobs": grid.standing(study).counts,
        "not_available": grid.absences(study),
        "scores": {
            group.kind: {
                setup: {metric: asdict(mean) for metric, mean in line.items()}
                for setup, line in group.means.items()
            }
            for group in groups
        },
        "findings": [
            {"of": group.kind, "summary": found.summary, "numbers": found.numbers} | asdict(found)
            for group in groups
            for found in group.found
        ],
    }
    write_json_atomic(folder / "summary.json", summary)
    drawn = plots.draw(groups[0].rows, setups, scale)
    if len(groups) > 1:
        drawn = {
            name: (f"{caption} Only {groups[0].kind} are shown.", figure)
            for name, (caption, figure) in drawn.items()
        }
    for name, (_, figure) in drawn.items():
        write_atomic(folder / "figures" / f"{name}.svg", plots.svg(figure).encode())
        write_atomic(folder / "figures" / f"{name}.png", plots.png(figure))
    if markdown is not None and figures is None:
        figures = markdown.with_suffix("")
    galleries = _galleries(study, setups) or _landed_galleries(study, figures)
    for name, sheet in galleries.items():
        write_atomic(folder / "figures" / f"gallery-{name}.jpg", sheet)
    lead = _lead(study, rows)
    parts = _Parts(study, lead, setups, groups, drawn, galleries, command)
    text = parts.markdown("figures")
    write_atomic(folder / MARKDOWN, f"# The study\n\n{text}".encode())
    if markdown is not None and figures is not None:
        _put_into(markdown, figures, parts, rows)
    pictures.write(study, command=command)
    return report.write(parts.page(), folder / REPORT)


@dataclass(frozen=True, slots=True)
class _Group:
    """Concepts of one kind, whose scores are comparable."""

    kind: str
    rows: Sequence[statistics.Row]
    means: dict[str, dict[str, Estimate]]
    found: Sequence[Finding]

    @property
    def num(self) -> int:
        """Concepts."""
        return len({row["concept"] for row in self.rows})


def _groups(
    rows: Sequence[Row], setups: Sequence[str], claimed: Sequence[str], scale: float
) -> list[_Group]:
    """The results for each kind of concept; claims need a kind with two concepts or more."""
    found = []
    for kind, own in statistics.apart(rows).items():
        judges = not found or len({row["concept"] for row in own}) > 1
        found.append(
            _Group(
                kind,
                own,
                statistics.table(own, setups, scale),
                judged.findings(own, claimed, scale) if judges else [],
            )
        )
    return found


def _json_lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _write_rows(rows: Sequence[Row], folder: Path) -> None:
    write_atomic(folder / "results.jsonl", _json_lines(rows))
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    write_atomic(folder / PARQUET, stream.getvalue())


def _lead(study: Study, rows: Sequence[Row]) -> list[str]:
    """What was done, in sentences that do not depend on time or place."""
    config, now = study.config, grid.standing(study)
    jobs = {(r["concept"], r["setup"], r["seed"], r["set_size"]) for r in rows}
    concepts, seeds = {job[0] for job in jobs}, {job[2] for job in jobs}
    setups = {job[1] for job in jobs}
    trained = sum(r.get("train_time_s") or 0.0 for r in rows if r["kind"] == TRAINING)
    drawing = {(r["concept"], r["setup"], r["seed"], r["set_size"]): r["draw_time_s"] for r in rows}
    lines = [
        f"{_count(len(jobs), 'run')} on {config.model.model}: {_count(len(concepts), 'concept')}, "
        f"{_count(len(setups), 'setup')}, {_count(len(seeds), 'seed')}; "
        f"{config.num_images_per_prompt} pictures per prompt, "
        f"{config.sampling.num_inference_steps} DDIM steps, guidance "
        f"{config.sampling.guidance_scale:g}, prompts “{study.prompt_set}”.",
    ]
    if now.left or now.failed:
        lines.append(
            f"{_count(len(now.left), 'job')} still to run, {len(now.failed)} failed; the results "
            "below are from the finished ones."
        )
    if absent := grid.absences(study):
        told = "; ".join(f"{label} ({why})" for label, why in absent.items())
        lines.append(f"Not available here: {told}.")
    hours = trained / 3600, sum(drawing.values()) / 3600
    lines.append(
        f"Training took {hours[0]:.2f} hours, summed over words (which may share a batch); drawing "
        f"and scoring {hours[1]:.2f} hours, summed over processes."
    )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# --- pictures


def _galleries(study: Study, setups: Sequence[str]) -> dict[str, bytes]:
    """For the first concepts: the training pictures, then each setup's first pictures, as JPEG."""
    found: dict[str, bytes] = {}
    for name in study.subjects:
        by_seed = {
            seed: [
                (label, work.gallery_file(study.folder, spec))
                for label in setups
                for spec in [Spec(concept=name, setup=label, seed=seed)]
                if label != "image-only" and work.gallery_file(study.folder, spec).is_file()
            ]
            for seed in study.config.seeds
        }
        # imported rows have no pictures: prefer a seed with the method's own, then one with most
        seed = max(by_seed, key=lambda s: (BASE in dict(by_seed[s]), len(by_seed[s])))
        shown = by_seed[seed]
        if not shown or len(found) == _SHOWN:
            continue
        own = work.gallery_file(study.folder, Spec(concept=name, setup="image-only", seed=seed))
        if own.is_file():
            shown.insert(0, ("training pictures", own))
        strips = [open_picture(path).convert("RGB") for _, path in shown]
        width = max(strip.width for strip in strips)
        height = max(strip.height for strip in strips)
        columns = 4
        sheet = _sheet(strips, [label for label, _ in shown], width, height, columns)
        found[name] = jpeg_bytes(sheet)
    return found


def _landed_galleries(study: Study, place: Path | None) -> dict[str, bytes]:
    """Sheets from an earlier version of the page, because landed rows have no pictures."""
    if place is None:
        return {}
    files = {name: place / f"gallery-{name}.jpg" for name in study.subjects}
    found = {name: file for name, file in files.items() if file.is_file()}
    return {
        name: read_bytes(file, most=_MAX_SHEET, error=StudyError) for name, file in found.items()
    }


def _sheet(
    strips: Sequence[Image.Image], labels: Sequence[str], width: int, height: int, columns: int
) -> Image.Image:
    from PIL import ImageDraw, ImageFont

    gap, label_px = 10, 24
    rows = math.ceil(len(strips) / columns)
    sheet = Image.new(
        "RGB",
        (gap + columns * (width + gap), gap + rows * (height + label_px + gap)),
        (255, 255, 255),
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for i, (strip, label) in enumerate(zip(strips, labels, strict=True)):
        row, column = divmod(i, columns)
        x, y = gap + column * (width + gap), gap + row * (height + label_px + gap)
        pen.text((x, y), label, fill=(30, 30, 30), font=font)
        sheet.paste(strip, (x, y + label_px))
    return sheet


# --- the page


class _Parts:
    """The parts of a report, in order."""

    def __init__(
        self,
        study: Study,
        lead: Sequence[str],
        setups: Sequence[str],
        groups: Sequence[_Group],
        drawn: dict[str, tuple[str, Any]],
        galleries: dict[str, bytes],
        command: str,
    ) -> None:
        self.study, self.lead, self.setups = study, lead, setups
        self.groups, self.drawn = groups, drawn
        self.galleries, self.command = galleries, command

    @property
    def gallery_text(self) -> str:
        subject = self.study.subjects[next(iter(self.galleries))]
        kinds = dict.fromkeys(self.study.templates(subject).values())
        return (
            "The first pictures of each setup that was drawn here, not selected. Rows: the first "
            f"prompt of each kind ({', '.join(kinds)}). Columns: the same seeds."
        )

    def tables(self) -> Iterator[_Table]:
        """The tables, for each kind of concept."""
        for group in self.groups:
            of = f": {group.kind}" if len(self.groups) > 1 else ""
            alone = " A single concept has no interval." if group.num == 1 else ""
            how = _SCORES_TEXT if group is self.groups[0] else "Scores and intervals as above."
            if any("background leaked" in line for line in group.means.values()):
                how += _LEAKED_TEXT
            text = f"{_count(group.num, group.kind[:-1])}. {how}{alone}"
            bold = BASE in group.means
            yield _Table(f"Scores{of}", text, _scores(group.means), bold=bold)
            changes = _changes(group.means)
            if changes:
                yield _Table(f"Differences from {BASE}{of}", _CHANGES_TEXT + alone, changes)
        for group in self.groups:
            of = f": {group.kind}" if len(self.groups) > 1 else ""
            if group.found:
                lines = _verdicts(group.found)
                text = _FINDINGS_TEXT + _refuted(group.found)
                yield _Table(f"The paper's findings{of}", text, lines, prose=True)

    def page(self) -> report.Report:
        sections = []
        if self.galleries:
            rows = [
                report.Row(name, [(jpeg_uri(sheet), "")], px=960)
                for name, sheet in self.galleries.items()
            ]
            sections.append(
                report.Section(title="Example pictures", text=self.gallery_text, rows=rows)
            )
        for name, (caption, figure) in self.drawn.items():
            sections.append(
                report.Section(title=_TITLES[name], plot=plots.svg(figure), note=caption)
            )
        sections += [
            report.Section(
                title=one.title, text=one.text, table=one.lines, bold=one.bold, prose=one.prose
            )
            for one in self.tables()
        ]
        sections.append(report.Section(title="Reproduce", commands=[self.command]))
        title = f"The study: {_count(len(self.study.subjects), 'concept')}, " + _count(
            len(self.setups), "setup"
        )
        return report.Report(title=title, lead=self.lead, sections=sections)

    def markdown(self, figures: str) -> str:
        """The same as Markdown; ``figures`` is the folder of the pictures for links."""
        out = ["```", self.command, "```", "", " ".join(self.lead), ""]
        if self.galleries:
            out += ["## Example pictures", "", self.gallery_text, ""]
            for name in self.galleries:
                out += [f"{name}:", "", f"![{name}]({figures}/gallery-{name}.jpg)", ""]
        for name, (caption, _) in self.drawn.items():
            out += [f"## {_TITLES[name]}", "", f"![{_TITLES[name]}]({figures}/{name}.svg)", "",
                    caption, ""]  # fmt: skip
        for one in self.tables():
            out += [f"## {one.title}", "", one.text, "", *_lines(one.lines), ""]
        return "\n".join(out)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table with its title; the first line is the head."""

    title: str
    text: str
    lines: list[list[str]]
    bold: bool = False
    prose: bool = False


def _scores(means: Mapping[str, Mapping[str, Estimate]]) -> list[list[str]]:
    """Table of means, with the method first."""
    shown = [m for m in METRICS if any(m in line for line in means.values())]
    table = [["setup", *shown, "runs"]]
    for setup in sorted(means, key=lambda s: s != BASE):
        line = means[setup]
        cells = [str(line[m]) if m in line else "–" for m in shown]
        table.append([setup, *cells, str(max(e.runs for e in line.values()))])
    return table


def _changes(means: Mapping[str, Mapping[str, Estimate]]) -> list[list[str]]:
    """Table of paired differences from the method; empty if there is none."""
    shown = [m for m in METRICS if any(f"Δ {m}" in line for line in means.values())]
    table = [[f"minus {BASE}", *shown]]
    for setup, line in means.items():
        if any(name.startswith("Δ") for name in line):
            cells = [line[f"Δ {m}"].told("+.3f") if f"Δ {m}" in line else "–" for m in shown]
            table.append([setup, *cells])
    return table if len(table) > 1 else []


def _verdicts(found: Sequence[Finding]) -> list[list[str]]:
    """Table of findings; a claim with several parts has a row for each."""
    reads = any(one.oracle for one in found)
    head = ["by the judge", "corrected", "by the oracle", "corrected"][: 4 if reads else 2]
    table = [[*head, "the paper's claim", "numbers"]]

    def line(own: Sequence[str], oracle: Sequence[str], claim: str, numbers: str) -> None:
        table.append([*own, *(oracle if reads else ()), claim, numbers])

    for one in found:
        claim = f"{one.claim} ({one.where})"
        parts = (*one.parts, *one.oracle, *one.beside)
        numbers = one.missing if not parts else parts[0].numbers if len(parts) == 1 else ""
        own = (one.summary, one.corrected) if parts else (one.verdict, "")
        line(own, (one.by_oracle or "", one.by_oracle_corrected or ""), claim, numbers)
        if len(parts) < 2:
            continue
        for part in one.parts:
            line((part.verdict, part.corrected), ("", ""), "", part.numbers)
        for part in one.oracle:
            line(("", ""), (part.verdict, part.corrected), "", part.numbers)
        for part in one.beside:
            line((part.verdict, ""), ("", ""), "for information only:", part.numbers)
    return table


def _refuted(found: Sequence[Finding]) -> str:
    """The paper's claims that the study refutes, in a sentence; empty if there are none."""
    told = []
    for one in found:
        readers = [
            name
            for name, verdict in (("the judge", one.verdict), ("the oracle", one.by_oracle))
            if verdict == "does not hold"
        ]
        if readers:
            kept = "does not hold" in (one.corrected, one.by_oracle_corrected)
            after = "" if kept else ", not after the correction"
            told.append(f"“{one.claim.rstrip('.')}” (by {' and '.join(readers)}{after})")
    return f" These claims do not hold here: {'; '.join(told)}." if told else ""


_TITLES = {
    "plane": "Reconstruction and editability",
    "set-size": "Number of pictures",
    "learning-rate": "Learning rate",
    "guidance": "Guidance",
}
_SCORES_TEXT = (
    "Means over concepts, each of which is the mean of its seeds, with 95 % intervals over "
    "concepts (Student's t). For shares near 0 or 1 an interval can extend beyond 0 or 1. "
    "Image and DINO similarity: mean cosine over pairs of drawn and training pictures. Text "
    "similarity: cosine between the edit prompt, without the placeholder, and the mean embedding "
    "of the pictures (code: mean of the cosines with each picture). Diversity: 1 minus the mean "
    "cosine within a prompt. Plain similarity and silhouette overlap (intersection over union): "
    "pictures on a plain background compared with true drawings. Concept seen, edits obeyed: "
    "shares of pictures, as read by the oracle."
)
_LEAKED_TEXT = (
    " Background leaked: for prompts that name no place, the share of pictures that show a place "
    "from the training pictures; the initializer's value is the chance level."
)
_CHANGES_TEXT = "Paired by concept and seed, with 95 % intervals over concepts (Student's t)."
_FINDINGS_TEXT = (
    "Paired differences with the same intervals as above. A claim with several parts has a row "
    "for each part. It holds if every part holds, and does not hold if any part does not. The "
    "judge is a CLIP; where an oracle reads the pictures, it gives its own verdict. "
    "Corrected: the verdict after Holm's correction over all deciding comparisons in the table. "
    "The number of concepts that would decide a comparison assumes the same mean and spread."
)


def _lines(table: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table]
    return [lines[0], "|" + "---|" * len(table[0]), *lines[1:]]


def around(page: Path) -> tuple[str, str]:
    """The text before and after the results in a page, which need not exist yet.

    Raises:
        StudyError: the page has no marks, or is not text.
        OutputError: it cannot be written.
    """
    check_target(page)
    if not page.is_file():
        return "# The study\n\n", "\n"
    text = read_text(page, error=StudyError)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise StudyError(
            f"The page {page} must contain the lines {BEGIN} and {END} once each, in this order; "
            "put them where the results belong."
        )
    return text.split(BEGIN)[0], text.split(END)[1]


def _put_into(page: Path, place: Path, parts: _Parts, rows: Sequence[Row]) -> None:
    """Put results between a page's marks; figures and rows go into a separate folder."""
    before, after = around(page)
    body = parts.markdown(Path(os.path.relpath(place, page.parent)).as_posix())
    for source in sorted((parts.study.folder / "figures").iterdir()):
        if source.suffix in (".svg", ".jpg"):
            write_atomic(place / source.name, read_bytes(source, most=_MAX_SHEET, error=StudyError))
    # the archive has no time stamp, so that the same rows give the same file
    write_atomic(place / ROWS, gzip.compress(_json_lines(rows), mtime=0))
    write_atomic(page, f"{before}{BEGIN}\n\n{body}\n{END}{after}".encode())
    for folder in {place, page.parent}:
        sweep(folder, below=False)
