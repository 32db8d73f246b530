"""People's answers as files: a page, a figure, numbers, and tables for payment."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from oneword._files import check_writable, write_atomic, write_json_atomic
from oneword.evaluation import report
from oneword.evaluation.metrics import Mean
from oneword.study import plots
from oneword.study.statistics import Estimate
from oneword.study.userstudy import results
from oneword.study.userstudy.answers import REASONS, Collected
from oneword.study.userstudy.forms import LIKENESS, MATCH, QUESTIONNAIRES, Key
from oneword.study.userstudy.items import UserStudyError
from oneword.study.userstudy.results import Outcome


REPORT, NUMBERS, RANKINGS, COMPLETIONS, FIGURE = (
    "report.html", "results.json", "rankings.csv", "completions.csv", "figure"
)  # fmt: skip
_TITLES = {LIKENESS: "Likeness to the training pictures", MATCH: "Match to the text"}


def write(key: Key, collected: Collected, folder: Path, *, command: str) -> dict[str, Any]:
    """Write all results of the answers into a folder.

    ``report.html``, ``results.json``, ``figure.svg`` and ``figure.png`` where both questionnaires
    have answers, ``rankings.csv`` (a line for each page and model) and ``completions.csv`` (a line
    for each file of answers: who, which form, which code, and whether it counts).

    Args:
        key: Of the forms.
        collected: All answers.
        folder: Where to.
        command: What it is made with.

    Returns:
        What ``results.json`` holds.

    Raises:
        UserStudyError: no answers count.
        OutputError: the folder cannot be written.
    """
    if not collected.responses:
        counts = ", ".join(f"{num} {why}" for why, num in collected.counts.items())
        first = f" The first: {collected.left_out[0].text}" if collected.left_out else ""
        raise UserStudyError(f"Cannot write a report because no answers count ({counts}).{first}")
    found = results.outcomes(collected.responses, key.models)
    check_writable(folder)
    numbers: dict[str, Any] = {
        "questionnaire": key.questionnaire,
        "models": key.models,
        "answers": len(collected.responses) + len(collected.left_out),
        "counted": len(collected.responses),
        "left_out": collected.counts,
        "outcomes": {name: _numbers(one) for name, one in found.items()},
    }
    sections = []
    if set(found) == set(QUESTIONNAIRES):
        points = {m: (found[MATCH].ranks[m], found[LIKENESS].ranks[m]) for m in key.models}
        caption, figure = plots.people(points)
        drawn = plots.svg(figure)
        write_atomic(folder / f"{FIGURE}.svg", drawn.encode())
        write_atomic(folder / f"{FIGURE}.png", plots.png(figure))
        sections.append(report.Section(title="What people prefer", plot=drawn, note=caption))
    for name, one in found.items():
        sections += _sections(_TITLES[name], one)
    sections.append(_left_out(collected))
    sections.append(report.Section(title="Reproduce", commands=[command]))
    write_atomic(folder / RANKINGS, _rankings(collected).encode())
    write_atomic(folder / COMPLETIONS, _completions(collected).encode())
    write_json_atomic(folder / NUMBERS, numbers)
    lead = [
        f"{len(key.models)} models, ranked by people: 1 is the best. "
        f"{len(collected.responses)} of {numbers['answers']} forms count.",
        "After the user study of Gal et al. 2022, arXiv:2208.01618, section 5.4.",
    ]
    page = report.Report(title="What people say", lead=lead, sections=sections)
    report.write(page, folder / REPORT)
    return numbers


def _numbers(one: Outcome) -> dict[str, Any]:
    def mean(value: Mean | None) -> dict[str, Any] | None:
        if value is None:
            return None
        low, high = value.value - value.half_width, value.value + value.half_width
        return {"value": value.value, "low": low, "high": high, "num": value.num}

    clip = one.clip
    return {
        "people": one.people,
        "rankings": one.rankings,
        "mean_rank": {m: mean(value) for m, value in one.ranks.items()},
        "ranked_first": {m: mean(value) for m, value in one.first.items()},
        "friedman": None if one.friedman is None else dict(
            zip(("chi_squared", "p"), one.friedman, strict=True)
        ),
        "nemenyi": [{"models": list(pair), "p": p} for pair, p in one.nemenyi.items()],
        "kendalls_w": one.agreement,
        "kendalls_w_on_the_same_page": mean(one.same_page),
        "mean_rank_by_place": one.places,
        "clip_over_models": None if clip is None else {
            "value": clip.value, "low": clip.low, "high": clip.high, "num": clip.num,
        },
        "clip_on_pages": mean(one.clip_on_pages),
    }  # fmt: skip


def _sections(title: str, one: Outcome) -> list[report.Section]:
    order = sorted(one.ranks, key=lambda m: one.ranks[m].value)
    ranks = [["model", "mean rank", "ranked first"]]
    ranks += [[m, _told(one.ranks[m]), _told(one.first[m], share=True)] for m in order]
    test = "Friedman's test needs at least two people, and differences between their ranks."
    if one.friedman is not None:
        test = f"Friedman over people: chi-squared {one.friedman[0]:.2f}, p {_p(one.friedman[1])}."
    text = (
        f"{one.people} people ranked {one.rankings} pages. A person counts once, with the mean of "
        f"their pages; 95 % intervals over people (Student's t). {test}"
    )
    sections = [report.Section(title=title, text=text, table=ranks, bold=False)]
    if one.nemenyi:
        both = {frozenset(pair): p for pair, p in one.nemenyi.items()}
        table = [["p by Nemenyi's test", *order[1:]]]
        for i, model in enumerate(order[:-1]):
            cells = [_p(both[frozenset((model, other))]) if j > i else ""
                     for j, other in enumerate(order) if j]  # fmt: skip
            table.append([model, *cells])
        sections.append(report.Section(title=f"{title}: pairs", table=table, bold=False))
    table = [["", "value"]]
    table.append(["Kendall's W between people", _number(one.agreement)])
    table.append(["Kendall's W on pages that several people ranked", _told(one.same_page)])
    table.append(["correlation with CLIP, over models", _told(one.clip)])
    table.append(["correlation with CLIP, within pages", _told(one.clip_on_pages)])
    places = ", ".join(_number(value) for value in one.places)
    note = (
        "Kendall's W is 0 without agreement and 1 with full agreement. A correlation of 1 means "
        "that CLIP and people agree on the order. Over models it is Pearson's, of means, with a "
        "jackknife interval over concepts; within pages it is Spearman's. CLIP's scores are means "
        "over all pictures that a model drew for the prompt, not of the one that was ranked. Mean "
        f"rank by position on the page, first to last: {places}."
    )
    sections.append(report.Section(title=f"{title}: agreement", table=table, note=note, bold=False))
    return sections


def _left_out(collected: Collected) -> report.Section:
    table = [["why", "forms"]]
    table += [[why, str(collected.counts.get(why, 0))] for why in REASONS]
    return report.Section(title="Answers that do not count", table=table, bold=False)


def _told(value: Mean | Estimate | None, *, share: bool = False) -> str:
    if value is None:
        return "–"
    form = "{:.0%}" if share else "{:.2f}"
    told = form.format(value.value)
    half = value.half_width
    return told if math.isnan(half) else f"{told} ± {form.format(half)}"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _csv(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(head)
    table.writerows([[_cell(value) for value in line] for line in lines])
    return stream.getvalue()


def _cell(value: Any) -> Any:
    """Put a quote in front of text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def _rankings(collected: Collected) -> str:
    head = ("person", "form", "page", "concept", "seed", "kind", "prompt", "picture", "model",
            "place", "rank", "clip")  # fmt: skip
    return _csv(head, (
        (r.person, r.form, one.number, one.page.concept, one.page.seed, one.page.kind,
         one.page.prompt, one.page.picture, model, one.places[model], rank,
         one.page.scores.get(model, ""))
        for r in collected.responses for one in r.rankings for model, rank in one.ranks.items()
    ))  # fmt: skip


def _completions(collected: Collected) -> str:
    head = ("file", "participant", "form", "code", "counts", "why", "seconds")
    good = [(r.name, r.participant, r.form, r.code, "yes", "", r.seconds)
            for r in collected.responses]  # fmt: skip
    bad = [(o.name, o.participant, o.form, o.code, "no", o.reason, "")
           for o in collected.left_out]  # fmt: skip
    return _csv(head, sorted([*good, *bad], key=lambda line: line[0]))
