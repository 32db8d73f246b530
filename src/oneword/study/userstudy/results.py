"""Results of people's rankings: mean ranks with intervals, tests, agreement, and CLIP."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from oneword.evaluation.metrics import Mean, mean_interval
from oneword.study import statistics
from oneword.study.statistics import Estimate
from oneword.study.userstudy.answers import Ranking, Response


_FLAT = 1e-12  # differences of ranks or scores that are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of one questionnaire.

    A person counts once, with the mean of their pages, because these are not independent.
    """

    people: int
    rankings: int
    """Number of ranked pages of all people."""
    ranks: dict[str, Mean]
    """Mean rank of each model over people, 1 the best, with 95 % intervals by Student's t."""
    first: dict[str, Mean]
    """Share of pages on which each model is ranked first, with the same intervals."""
    friedman: tuple[float, float] | None
    """Friedman's chi-squared over people and its p; ``None``: fewer than two people, or no
    differences."""
    nemenyi: dict[tuple[str, str], float]
    """p of each pair by Nemenyi's test; empty where there is no Friedman test."""
    agreement: float | None
    """Kendall's W between people's orders of the models, over all their pages: 0 none, 1 full."""
    same_page: Mean | None
    """Mean of Kendall's W over the pages that several people ranked, if there are any."""
    places: list[float]
    """Mean rank of the picture at each place of the page, checks left out: flat without an effect
    of the order. NaN: nothing stood there."""
    clip: Estimate | None
    """Correlation over models of CLIP's mean score with the mean rank turned round, so that 1 is
    the same order; the interval over concepts. ``None``: fewer than four models, or no scores."""
    clip_on_pages: Mean | None
    """The same within pages, by Spearman: mean over people."""


def outcomes(responses: Sequence[Response], models: Sequence[str]) -> dict[str, Outcome]:
    """The results of each questionnaire that somebody answered.

    Args:
        responses: Answers that count.
        models: All that were ranked.
    """
    found: dict[str, Outcome] = {}
    for response in responses:
        if response.questionnaire not in found:
            own = [one for one in responses if one.questionnaire == response.questionnaire]
            found[response.questionnaire] = outcome(own, models)
    return {name: found[name] for name in sorted(found)}


def outcome(responses: Sequence[Response], models: Sequence[str]) -> Outcome:
    """The results of the answers to one questionnaire."""
    by_person: dict[str, list[Ranking]] = {}
    for response in responses:
        by_person.setdefault(response.person, []).extend(response.rankings)
    every = [ranking for own in by_person.values() for ranking in own]
    means = np.array([
        [math.fsum(one.ranks[m] for one in own) / len(own) for m in models]
        for own in by_person.values()
    ])  # fmt: skip
    firsts = np.array([
        [sum(one.ranks[m] == 1 for one in own) / len(own) for m in models]
        for own in by_person.values()
    ])  # fmt: skip
    test = friedman(means)
    pairs = {} if test is None else nemenyi(means)
    return Outcome(
        people=len(by_person),
        rankings=len(every),
        ranks={m: mean_interval(list(means[:, i])) for i, m in enumerate(models)},
        first={m: mean_interval(list(firsts[:, i])) for i, m in enumerate(models)},
        friedman=test,
        nemenyi={(models[i], models[j]): p for (i, j), p in pairs.items()},
        agreement=None if test is None else kendalls_w(means),
        same_page=_same_page(by_person, models),
        places=[
            _mean([one.ranks[m] for one in every for m, at in one.places.items() if at == place])
            for place in range(1, len(models) + 1)
        ],
        clip=_clip(every, models),
        clip_on_pages=_clip_on_pages(by_person, models),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def friedman(values: np.ndarray) -> tuple[float, float] | None:
    """Friedman's test over people: chi-squared and p.

    Args:
        values: (people, models), the lower the better; only their order within a person counts.

    Returns:
        ``None`` with fewer than two people or three models, or where nobody sees a difference.

    Source:
        Friedman 1937, doi:10.1080/01621459.1937.10503522.
    """
    people, models = values.shape
    if people < 2 or models < 3 or np.ptp(values, axis=1).max() < _FLAT:
        return None
    found = stats.friedmanchisquare(*np.round(values, 9).T)
    return float(found.statistic), float(found.pvalue)


def nemenyi(values: np.ndarray) -> dict[tuple[int, int], float]:
    """Nemenyi's test of each pair of models, after Friedman's: p.

    Args:
        values: As for :func:`friedman`.

    Source:
        Demsar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, section
        3.2.2.
    """
    people, models = values.shape
    ranks = stats.rankdata(np.round(values, 9), axis=1).mean(axis=0)
    unit = math.sqrt(models * (models + 1) / (12 * people))
    return {
        (i, j): float(stats.studentized_range.sf(abs(ranks[i] - ranks[j]) / unit, models, np.inf))
        for i, j in itertools.combinations(range(models), 2)
    }


def kendalls_w(values: np.ndarray) -> float | None:
    """Agreement of people on an order, ties counted: 0 none, 1 full.

    Args:
        values: As for :func:`friedman`.

    Returns:
        ``None`` where there is no order to agree on.

    Source:
        Kendall & Babington Smith 1939, doi:10.1214/aoms/1177732186; by Friedman's chi-squared over
        people x (models - 1).
    """
    test = friedman(values)
    people, models = values.shape
    return None if test is None else test[0] / (people * (models - 1))


def _same_page(by_person: Mapping[str, list[Ranking]], models: Sequence[str]) -> Mean | None:
    """Agreement on single pages that several people ranked."""
    pages: dict[Any, dict[str, list[int]]] = {}
    for person, own in by_person.items():
        for one in own:
            page = one.page
            what = page.concept, page.seed, page.kind, page.picture
            pages.setdefault(what, {})[person] = [one.ranks[m] for m in models]
    found = [kendalls_w(np.array([*own.values()])) for own in pages.values() if len(own) > 1]
    values = [w for w in found if w is not None]
    return mean_interval(values) if values else None


def _clip(rankings: Sequence[Ranking], models: Sequence[str]) -> Estimate | None:
    """Over models, as the study correlates its own scores over setups."""
    points = {}
    for model in models:
        scores: dict[str, dict[int, list[float]]] = {}
        ranks: dict[str, dict[int, list[float]]] = {}
        for one in rankings:
            page = one.page
            if model in page.scores:
                for found, value in ((scores, page.scores[model]), (ranks, -one.ranks[model])):
                    found.setdefault(page.concept, {}).setdefault(page.seed, []).append(value)
        points[model] = _means(scores), _means(ranks)
    return statistics.correlation(points)


def _means(found: Mapping[str, Mapping[int, list[float]]]) -> statistics.Runs:
    return {c: {seed: _mean(own) for seed, own in seeds.items()} for c, seeds in found.items()}


def _clip_on_pages(by_person: Mapping[str, list[Ranking]], models: Sequence[str]) -> Mean | None:
    """Of each page Spearman's correlation of the ranks with CLIP's scores."""
    means = []
    for own in by_person.values():
        found = []
        for one in own:
            scores = [one.page.scores.get(m, math.nan) for m in models]
            if not any(map(math.isnan, scores)) and np.ptp(scores) > _FLAT:
                ranks = [-one.ranks[m] for m in models]
                correlation: Any = stats.spearmanr(ranks, scores)
                found.append(float(correlation.statistic))
        if found:
            means.append(_mean(found))
    return mean_interval(means) if means else None
