"""Scores as pure functions of features or pixels, and intervals of means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import special, stats
from torch import Tensor
from torch.nn import functional as F

from oneword._typing import Pixels


Features = Float[Tensor, "num dim"]
"""CLIP embeddings of unit length."""


def image_similarity(drawn: Features, true: Float[Tensor, "others dim"]) -> float:
    """Mean cosine over all pairs of a drawn and a true picture.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.1.
    """
    return float((drawn.double() @ true.double().T).mean())


def self_similarity(features: Features) -> float:
    """Mean cosine over all pairs of different pictures of a set; NaN for a single picture."""
    num = len(features)
    if num < 2:
        return math.nan
    cosines = features.double() @ features.double().T
    return float((cosines.sum() - cosines.diagonal().sum()) / (num * (num - 1)))


def text_similarity(drawn: Features, text: Float[Tensor, " dim"]) -> float:
    """Cosine of the prompt's embedding with the mean embedding of the pictures.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.1.
    """
    return float(F.cosine_similarity(drawn.double().mean(0), text.double(), dim=0))


def text_similarity_code(drawn: Features, text: Float[Tensor, " dim"]) -> float:
    """Mean of the pictures' own cosines, as in the authors' code.

    It equals ``text_similarity`` times the norm of the mean embedding, so less diverse pictures
    score higher.
    """
    return float((drawn.double() @ text.double()).mean())


def diversity(drawn: Features) -> float:
    """How different the pictures of a prompt are: 1 minus their mean pairwise cosine."""
    return 1.0 - self_similarity(drawn)


def structure_kept(drawn: Pixels, originals: Pixels) -> float:
    """How well edges keep their places: the mean correlation of two maps of edge strength.

    A map is the magnitude of the gradient of the mean over the colours, averaged over 16 x 16
    cells. Its correlation with the original's is 1 for a copy, and about 0 for another picture. It
    measures where things are, not what they are.
    """
    maps = []
    for pixels in (drawn, originals):
        grey = pixels.double().mean(1, keepdim=True)
        down, right = grey.diff(dim=2)[..., :-1], grey.diff(dim=3)[..., :-1, :]
        cells = F.adaptive_avg_pool2d((down.square() + right.square()).sqrt(), 16).flatten(1)
        maps.append(cells - cells.mean(1, keepdim=True))
    return float(F.cosine_similarity(*maps).mean())


def share_of_way(value: float, start: float, goal: float) -> float:
    """Share of the way from ``start`` to ``goal`` that is covered; NaN unless goal > start."""
    return (value - start) / (goal - start) if goal > start else math.nan


def t_95(df: int) -> float:
    """Two-sided 95 % point of Student's t.

    Args:
        df: Degrees of freedom, 1 or more.
    """
    return float(stats.t.ppf(0.975, df))


def t_p(t: float, df: int) -> float:
    """Two-sided p of Student's t: how often values of mean 0 are as far from it, 0 to 1.

    Args:
        t: Mean over its standard error.
        df: Degrees of freedom, 1 or more.
    """
    return float(2 * stats.t.sf(abs(t), df))


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with the half-width of its 95 % interval."""

    value: float
    half_width: float
    """NaN for a single value."""
    num: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.half_width:.3f}"


def mean_interval(values: Sequence[float]) -> Mean:
    """Mean of independent values and its 95 % interval by Student's t.

    Raises:
        ValueError: there are no values.
    """
    num = len(values)
    if num == 0:
        raise ValueError("A mean needs at least one value, got none.")
    mean = math.fsum(values) / num
    if num == 1:
        return Mean(mean, math.nan, 1)
    variance = math.fsum((v - mean) ** 2 for v in values) / (num - 1)
    return Mean(mean, t_95(num - 1) * math.sqrt(variance / num), num)


def wilson_interval(hits: int, num: int) -> tuple[float, float]:
    """95 % interval of a share of independent pictures.

    Raises:
        ValueError: there are no pictures.

    Source:
        Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if num == 0:
        raise ValueError("A share needs at least one picture, got none.")
    found = stats.binomtest(hits, num).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def evenness(values: Sequence[str], possible: int) -> float:
    """Entropy of the values seen, divided by that of an even distribution: 0 (all the same) to 1.

    With few pictures it is too low: for an even distribution over ``k`` values by about ``(k - 1) /
    (2 * num * ln k)``.

    Args:
        values: One for each picture.
        possible: Number of possible values, seen or not; 2 or more.
    """
    num = len(values)
    shares = [values.count(value) / num for value in set(values)]
    return float(special.entr(shares).sum() / math.log(possible))


def bootstrap_interval(
    statistic: Callable[[Tensor], float], num: int, *, num_draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic under resampling of pictures.

    Args:
        statistic: Function of picture indices, (num,), drawn with replacement.
        num: Number of pictures.
        num_draws: Number of resamplings.
        seed: Seed of the resampling.
    """
    indices = torch.randint(num, (num_draws, num), generator=torch.Generator().manual_seed(seed))
    found = sorted(statistic(row) for row in indices)
    return found[int(0.025 * num_draws)], found[int(0.975 * num_draws) - 1]
