from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from oneword.evaluation import metrics


def features(num, dim=6, seed=0):
    return F.normalize(torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_image_similarity_is_the_mean_over_all_pairs(n, m, seed):
    a, b = features(n, seed=seed), features(m, seed=seed + 1)
    pairs = [float(F.cosine_similarity(x, y, dim=0)) for x in a for y in b]
    assert metrics.image_similarity(a, b) == pytest.approx(statistics.fmean(pairs), abs=1e-6)


def test_self_similarity_leaves_out_a_picture_with_itself():
    a = features(4)
    pairs = [float(a[i] @ a[j]) for i in range(4) for j in range(4) if i != j]
    assert metrics.self_similarity(a) == pytest.approx(statistics.fmean(pairs), abs=1e-6)
    assert math.isnan(metrics.self_similarity(a[:1]))


def test_the_two_text_similarities_differ_by_the_norm_of_the_mean():
    a, text = features(8), features(1, seed=9)[0]
    norm = float(a.double().mean(0).norm())
    paper, code = metrics.text_similarity(a, text), metrics.text_similarity_code(a, text)
    assert code == pytest.approx(paper * norm, abs=1e-7)
    assert metrics.text_similarity(a[:1], text) == pytest.approx(
        metrics.text_similarity_code(a[:1], text), abs=1e-6
    )


def test_share_of_way():
    assert metrics.share_of_way(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert metrics.share_of_way(0.4, 0.5, 0.9) == pytest.approx(-0.25)
    assert math.isnan(metrics.share_of_way(0.4, 0.9, 0.9))


def test_intervals():
    mean = metrics.mean_interval([1.0, 2.0, 3.0])
    assert (mean.value, mean.num) == (2.0, 3)
    assert mean.half_width == pytest.approx(4.302653 / math.sqrt(3))
    assert math.isnan(metrics.mean_interval([5.0]).half_width)
    assert str(metrics.mean_interval([1.0, 1.0])) == "1.000 ± 0.000"
    with pytest.raises(ValueError, match="at least one value"):
        metrics.mean_interval([])


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    for num in (3, 8, 40):
        found = [metrics.mean_interval(rng.normal(1.0, 2.0, num).tolist()) for _ in range(2000)]
        covered = np.mean([abs(m.value - 1.0) <= m.half_width for m in found])
        assert abs(covered - 0.95) < 0.015, num


def test_structure_is_where_edges_lie():
    def steps(side, *, seed):
        """Pictures of a few large squares of random colours."""
        generator = torch.Generator().manual_seed(seed)
        return F.interpolate(torch.rand(2, 3, 4, 4, generator=generator), side) * 2 - 1

    one = steps(64, seed=1)
    other = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    assert metrics.structure_kept(one, one) == pytest.approx(1.0)
    assert metrics.structure_kept(-0.5 * one, one) == pytest.approx(1.0)  # colours do not count
    assert abs(metrics.structure_kept(other, one)) < 0.2
    maps = []
    for picture in other.double().mean(1).numpy():
        down, right = picture[1:, :-1] - picture[:-1, :-1], picture[:-1, 1:] - picture[:-1, :-1]
        edges = np.hypot(down, right)
        spans = [slice(63 * i // 16, math.ceil(63 * (i + 1) / 16)) for i in range(16)]
        maps.append([edges[rows, columns].mean() for rows in spans for columns in spans])
    expected = np.corrcoef(maps)[0, 1]
    assert metrics.structure_kept(other[:1], other[1:]) == pytest.approx(expected)
