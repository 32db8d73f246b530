"""Reports for people: a single HTML file, with pictures before numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from oneword._escaping import terminal
from oneword._files import write_atomic
from oneword._typing import Pixels
from oneword._version import __version__
from oneword.evaluation.harness import TRAINING, Evaluation
from oneword.evaluation.tuned import Drift
from oneword.images import data_uri, to_images
from oneword.prompts import fill
from oneword.runs.sheets import Sheet, columns_of, spread


def seen(value: Any) -> Any:
    """Spell out invisible characters, and halves of surrogate pairs, which no page can hold."""
    return terminal(value, lines=True) if type(value) is str else value


_PAGE = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=seen
).from_string(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ report.title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; }
figure { display: inline-block; margin: 0 .5rem .6rem 0; vertical-align: top; }
figure img { display: block; width: var(--px); max-width: 100%; border-radius: 4px; }
.pixelated img { image-rendering: pixelated; }
figcaption { font-size: .85rem; max-width: var(--px); opacity: .8; }
h3 { font-size: 1rem; font-weight: 600; margin: 1rem 0 .3rem; }
table { border-collapse: collapse; } td, th { padding: .3rem .8rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
.wide { overflow-x: auto; }
table.prose td, table.prose th { text-align: left; vertical-align: top; }
table.grid td, table.grid th { text-align: left; vertical-align: top; padding: .3rem;
  min-width: var(--px); }
tbody tr { border-top: 1px solid #8885; } tbody tr.main { font-weight: 700; }
pre { background: #8882; padding: .7rem 1rem; border-radius: 4px; overflow-x: auto; }
.plot svg { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
footer { margin-top: 3rem; font-size: .85rem; opacity: .7; }
</style></head><body>
<h1>{{ report.title }}</h1>
{% for line in report.lead %}<p>{{ line }}</p>
{% endfor %}
{% for section in report.sections %}
<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% for row in section.rows %}
{% if row.label %}<h3>{{ row.label }}</h3>{% endif %}
<div class="{{ 'pixelated' if row.small else '' }}" style="--px: {{ row.px }}px">
{% for uri, caption in row.pictures %}<figure><img src="{{ uri }}" alt="{{ caption or row.label }}">
{% if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}</figure>{% endfor %}
</div>
{% endfor %}
{% if section.grid %}
<div class="wide"><table class="grid" style="--px: {{ section.grid.px }}px">
<thead><tr><th></th>
{% for head in section.grid.columns %}<th>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for label, cells in section.grid.lines %}
<tr><th>{{ label }}</th>{% for cell in cells %}<td>
{% for uri, caption in cell %}<figure><img src="{{ uri }}" alt="{{ caption or label }}">
{% if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}</figure>{% endfor %}
</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if section.plot %}<div class="plot">{{ section.plot | safe }}</div>{% endif %}
{% if section.table %}
<div class="wide"><table class="{{ 'prose' if section.prose else '' }}">
<thead><tr>{% for head in section.table[0] %}<th>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in section.table[1:] %}
<tr class="{{ 'main' if loop.first and section.bold else '' }}">
{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if section.note %}<p>{{ section.note }}</p>{% endif %}
{% if section.commands %}<pre>{{ section.commands | join("\n") }}</pre>{% endif %}
{% endfor %}
<footer>Made by oneword {{ version }}.</footer>
</body></html>
"""
)


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures in a row, under a label."""

    label: str
    pictures: Sequence[tuple[str, str]]
    """(data URI, caption) pairs."""
    px: int = 144
    small: bool = False
    """Whether small pictures are shown pixel by pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Pictures in rows and columns."""

    columns: Sequence[str]
    """Text above each column."""
    lines: Sequence[tuple[str, Sequence[Sequence[tuple[str, str]]]]]
    """A label, and for each column its (data URI, caption) pairs; a line can have fewer columns."""
    px: int = 128
    """Width of a picture, in px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and its contents, in this order."""

    title: str
    text: str = ""
    rows: Sequence[Row] = ()
    grid: Grid | None = None
    plot: str = ""
    """SVG."""
    table: Sequence[Sequence[str]] = ()
    """The table's lines, head first."""
    bold: bool = True
    """Whether the table's first line is bold."""
    prose: bool = False
    """Whether the table's cells are sentences."""
    note: str = ""
    commands: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One page."""

    title: str
    lead: Sequence[str] = ()
    sections: list[Section] = field(default_factory=list)


def write(report: Report, path: Path) -> Path:
    """Write a report as one HTML file.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(
        path, _PAGE.render(report=report, version=__version__).encode(errors="backslashreplace")
    )
    return path


def drift(found: Drift) -> Section:
    """How a concept changes prompts that do not name it: the same noise without and with it."""
    num = len(found.before) // len(found.prompts)
    return Section(
        title="What else has changed",
        text="The word changes the model's weights, which also changes pictures of prompts without "
        "it. Above: without the word; below: with it, from the same noise.",
        rows=[
            row(prompt if pixels is found.before else "", pixels[i * num : (i + 1) * num])
            for i, prompt in enumerate(found.prompts)
            for pixels in (found.before, found.after)
        ],
        table=[
            ["", "similarity before and after", "text similarity before", "after"],
            [
                "all prompts",
                *(
                    f"{value:.3f}"
                    for value in (found.similarity, found.text_before, found.text_after)
                ),
            ],
            *([prompt, f"{value:.3f}", "", ""] for prompt, value in found.by_prompt.items()),
        ],
        note="A similarity of 1 means that nothing has changed.",
    )


def row(
    label: str,
    pictures: Pixels | Sequence[Image.Image],
    captions: Sequence[str] = (),
    *,
    px: int = 144,
    most_px: int | None = None,
) -> Row:
    """A row of pictures, stored at their own size or at most at this size."""
    images = list(pictures) if isinstance(pictures, Sequence) else to_images(pictures)
    captions = captions or [""] * len(images)
    pairs = [(data_uri(image, most_px), text) for image, text in zip(images, captions, strict=True)]
    return Row(label, pairs, px, small=all(image.width < px for image in images))


_COLUMN_IN, _LABELS_IN, _EDGE_IN = 4.5, 1.0, 0.1  # a curve's plot, what stands left of it, right


def curves(
    losses: Sequence[tuple[int, float]],
    distances: Sequence[tuple[int, float]],
    best_step: int,
    word_distances: Sequence[tuple[int, float]] = (),
) -> str:
    """Loss on the fixed batch and distances over steps, as SVG.

    Args:
        losses: (step, loss).
        distances: (step, distance moved).
        best_step: The step whose rows were kept.
        word_distances: (step, distance to the nearest words); empty: no such curve.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    columns = 3 if word_distances else 2
    figure = Figure(figsize=(_COLUMN_IN * columns, 3))
    FigureCanvasSVG(figure)
    # fixed margins: a layout that looks for its own takes longer than all else of the report
    own = _COLUMN_IN - _LABELS_IN  # width of one plot
    figure.subplots_adjust(
        left=_LABELS_IN / (_COLUMN_IN * columns),
        right=1 - _EDGE_IN / (_COLUMN_IN * columns),
        bottom=0.17,
        top=0.91,
        wspace=_LABELS_IN / (own - _EDGE_IN / columns),
    )
    axes = list(figure.subplots(1, columns))
    axes[0].plot(*zip(*losses, strict=True))
    axes[0].axvline(best_step, color="grey", linestyle=":", label=f"kept: step {best_step}")
    axes[0].set(xlabel="step", ylabel="loss on the fixed batch")
    axes[0].legend()
    if distances:
        axes[1].plot(*zip(*distances, strict=True), color="tab:orange")
    axes[1].set(xlabel="step", ylabel="distance moved,\nrelative to the initial norm")
    if word_distances:
        axes[2].plot(*zip(*word_distances, strict=True), color="tab:green")
        axes[2].set(xlabel="step", ylabel="distance to the nearest words")
    for one in axes:
        one.grid(alpha=0.3)
    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "oneword"}):  # the same figure gives the same text
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def drawings(evaluation: Evaluation, words: Mapping[str, str], *, num_pictures: int = 6) -> Section:
    """The first pictures of every method's prompts."""
    first = next(iter(words))
    rows = []
    for template in evaluation.protocol.templates:
        for method, text in words.items():
            if method != first and template != evaluation.protocol.photo:
                continue
            label = fill(template, text) + ("" if method == first else f" ({method})")
            rows.append(row(label, evaluation.pictures[method][template][:num_pictures]))
    return Section(
        title="Pictures of the word",
        text="The first seeds, not selected. Below the word: its initializer and the best existing "
        "noun, with the same seeds.",
        rows=rows,
    )


def scores(evaluation: Evaluation, words: Mapping[str, str]) -> Section:
    """Scores of all methods, with explanations."""
    plain = any(not math.isnan(s.plain_similarity) for s in evaluation.scores.values())
    head = ["", "image similarity", *(["plain similarity"] if plain else []), "text similarity",
            "text similarity (code)"]  # fmt: skip
    table = [head]
    for method, score in evaluation.scores.items():
        name = f"{method}: {words[method]}" if method in words else TRAINING
        values = [score.image_similarity, *([score.plain_similarity] if plain else []),
                  score.text_similarity, score.text_similarity_code]  # fmt: skip
        table.append([name, *(_number(value) for value in values)])
    note = ""
    if not math.isnan(evaluation.reached):
        note = (
            f"On plain backgrounds the word has gone {evaluation.reached:.0%} of the way from its "
            "initializer to the similarity of the drawings to each other."
        )
    kinds = f"Cosines by {evaluation.judge}, {len(evaluation.protocol.seeds)} pictures per prompt. "
    return Section(
        title="Scores",
        text=kinds + "Image similarity: pictures of the word compared with the training pictures. "
        "Backgrounds count, so compare it with the training pictures' similarity to each other. "
        + ("Plain similarity: the same without backgrounds. " if plain else "")
        + (
            "Text similarity: how well the pictures match the edit prompts, without the "
            "placeholder token."
        ),
        table=table,
        note=note,
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


_WORD_DISTANCE = (
    "Distance to the nearest words: from all vectors of the word to the existing words nearest to "
    "them, in units of the median length of the vocabulary's embeddings. 0 is an existing word. A "
    "higher learning rate and more vectors lead farther away. The paper (section 5.3) finds that "
    "words that stay near are easier to edit but less faithful."
)


def steps(sheets: Sequence[Sheet], saved: Collection[int] = ()) -> Section:
    """What a word drew during training: a column per step, the initialiser first, a row per prompt.

    Args:
        sheets: Previews of the same prompts and seeds, oldest first.
        saved: Steps whose word was saved.
    """
    prompts, seeds = sheets[-1].prompts, sheets[-1].seeds
    count, columns, lines = len(seeds), columns_of(sheets, saved), []
    for i, prompt in enumerate(prompts):
        cells = [
            [
                (data_uri(image, _STEP_PX), f"seed {seed}" if count > 1 else "")
                for image, seed in zip(images[i * count : (i + 1) * count], seeds, strict=True)
            ]
            for _, images in columns
        ]
        lines.append((prompt, cells))
    left_out = len(sheets) - len(spread(sheets))
    return Section(
        title="Training",
        text="The same prompts and seeds at every step"
        + (f"; {left_out} steps in between are not shown." if left_out else "."),
        grid=Grid(columns=[label for label, _ in columns], lines=lines),
        note="Saved words: `oneword choose` makes one of them the run's word." if saved else "",
    )


_STEP_PX = 256  # largest side of a picture on the page


def learning(
    *,
    training: Pixels,
    names: Sequence[str],
    previews: Sequence[tuple[int, Image.Image]],
    sheets: Sequence[Sheet] = (),
    saved: Collection[int] = (),
    metrics: Sequence[Mapping[str, Any]],
    best_step: int,
) -> list[Section]:
    """Training pictures, previews over time and curves of a run.

    Args:
        training: The training pictures.
        names: Their names.
        previews: Whole sheets that cannot be compared with the others, by step.
        sheets: Previews of the same prompts and seeds, oldest first.
        saved: Steps whose word was saved.
        metrics: A line for each scoring.
        best_step: The step whose rows were kept.
    """
    sections = [
        Section(title="Training pictures", rows=[row("", training, names)]),
    ]
    if previews:
        images = [image for _, image in previews]
        captions = [f"step {step}" for step, _ in previews]
        sections.append(
            Section(
                title="Earlier previews" if sheets else "Training",
                rows=[row("", images, captions, px=220)],
            )
        )
    if sheets:
        sections.append(steps(sheets, saved))
    losses = [(m["step"], m["loss"]) for m in metrics]
    if losses:
        distances = [(m["step"], m["distance"]) for m in metrics]
        words = [(m["step"], m["word_distance"]) for m in metrics if "word_distance" in m]
        sections.append(
            Section(
                title="Curves",
                plot=curves(losses, distances, best_step, words),
                note=_WORD_DISTANCE if words else "",
            )
        )
    return sections
