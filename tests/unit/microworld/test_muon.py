"""Muon in the weights' own precision steps as torch's does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oneword.microworld.making.muon import PlainMuon, orthogonal


STEPS = (3.4445, -4.775, 2.0315), 5


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (24, 24)])
def test_singular_values_come_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix, *STEPS))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_the_gram_matrix_gives_the_same_as_the_steps_themselves():
    matrix = torch.randn(12, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (a, b, c), num = STEPS
    x = matrix / matrix.norm()
    for _ in range(num):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(orthogonal(matrix, *STEPS), x)


def test_steps_like_torch():
    """But for the rounding of bf16, over steps with momentum, decay and a changing rate."""
    start = torch.randn(20, 48, generator=torch.Generator().manual_seed(2))
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    settings = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    pair = PlainMuon([mine], **settings), torch.optim.Muon([theirs], **settings)
    for step in range(6):
        grad = torch.randn(start.shape, generator=torch.Generator().manual_seed(10 + step))
        for p, optimizer in zip((mine, theirs), pair, strict=True):
            p.grad = grad.clone()
            optimizer.param_groups[0]["lr"] = 0.02 / (1 + step)
            optimizer.step()
    moved = (theirs - start).norm()
    assert (mine - theirs).norm() < 0.02 * moved
