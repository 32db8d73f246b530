"""Samples of a step, parted into passes through the model."""

from __future__ import annotations

import pytest

from oneword.models.memory.count import Work
from oneword.training.prediction import passes


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        ([4, 4], None, [[(0, range(4)), (1, range(4))]]),
        ([4], 4, [[(0, range(4))]]),
        ([4], 2, [[(0, range(2))], [(0, range(2, 4))]]),
        ([3], 1, [[(0, range(1))], [(0, range(1, 2))], [(0, range(2, 3))]]),
        ([2, 2, 2], 4, [[(0, range(2)), (1, range(2))], [(2, range(2))]]),
        ([2, 4, 2], 3, [[(0, range(2))], [(1, range(3))], [(1, range(3, 4))], [(2, range(2))]]),
        ([2, 2], 8, [[(0, range(2)), (1, range(2))]]),
    ],
)
def test_each_sample_has_its_pass(sizes, most, expected):
    found = passes([range(size) for size in sizes], most)
    assert found == expected
    samples = [(place, i) for part in found for place, own in part for i in own]
    assert samples == [(place, i) for place, size in enumerate(sizes) for i in range(size)]
    assert most is None or all(sum(len(own) for _, own in part) <= most for part in found)


def test_a_process_passes_its_own_share():
    shares = [range(3, 6), range(2, 2), range(1, 2)]
    assert passes(shares, None) == [[(0, range(3, 6)), (2, range(1, 2))]]
    assert passes(shares, 2) == [[(0, range(3, 5))], [(0, range(5, 6))], [(2, range(1, 2))]]
    assert passes([range(2, 2)], None) == []


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (Work(samples=4), [4, 2, 1]),
        (Work(samples=12, batch=3), [12, 3, 1]),
        (Work(samples=8, batch=8), [8, 4, 2, 1]),
        (Work(samples=4, batch=7), [4, 1]),  # the larger share of two processes
        (Work(samples=8, trains=False), [8]),
    ],
)
def test_a_plan_tries_passes_that_divide_a_words_batch(work, expected):
    assert work.passes() == expected
