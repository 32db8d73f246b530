"""Outlines on plain backgrounds, and how far they agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oneword.evaluation.silhouettes import filled, overlap, silhouettes
from oneword.images import from_uint8
from oneword.microworld.world.drawn import concept_masks, concept_plain


def disc(side, x, y, radius):
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_a_thing_on_a_soft_background_is_marked_with_its_holes_filled():
    side = 96
    thing = disc(side, 50, 40, 24)
    ring = thing & ~disc(side, 50, 40, 12)
    shades = torch.linspace(0.2, 0.8, side)[:, None].expand(side, side)
    pixels = torch.where(ring, torch.tensor(-0.6), shades).expand(1, 3, -1, -1).clone()
    (found,) = silhouettes(pixels)
    assert (
        float((found & thing).sum() / (found | thing).sum()) > 0.95
    )  # a square brush clips the slanted parts of the rim
    assert not silhouettes(shades.expand(1, 3, -1, -1).clone()).any()


def test_filling_reaches_every_place_that_an_outline_does_not_close_off():
    outline = torch.zeros(1, 7, 7, dtype=torch.bool)
    outline[0, 1:6, 1:6] = True
    outline[0, 2:5, 2:5] = False
    closed = filled(outline)
    assert closed.sum() == 25
    outline[0, 3, 5] = False  # a gap
    assert filled(outline).sum() == 15


def test_overlap_ignores_place_size_and_side_and_nothing_else():
    wedge = torch.zeros(160, 160, dtype=torch.bool)
    for i in range(80):
        wedge[40 + i, 20 : 24 + i // 2] = True
    moved = torch.roll(wedge, (7, 13), (0, 1))
    small = torch.nn.functional.pad(wedge[::2, ::2], (5, 75, 9, 71))
    other = torch.zeros(160, 160, dtype=torch.bool)
    other[60:100, 20:140] = True
    found = torch.stack([wedge, moved, wedge.flip(-1), small, other, torch.zeros_like(wedge)])
    scores = overlap(found, wedge[None])
    assert scores[:3].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert scores[3] > 0.9
    assert scores[4] < 0.4
    assert scores[5] == 0.0


def test_overlap_is_that_of_the_best_fitting_true_outline():
    wide, high = torch.zeros(2, 32, 32, dtype=torch.bool)
    wide[10:14, 4:28], high[4:28, 10:14] = True, True
    assert overlap(high[None], torch.stack([wide, high])).tolist() == [1.0]
    assert overlap(high[None], wide[None])[0] == pytest.approx(1 / 11, abs=0.03)


def test_the_worlds_drawings_overlap_with_their_own_masks_more_than_with_others():
    pytest.importorskip("skia")
    from oneword.microworld.world import concepts

    names = ("gold-mug", "snowman", "octopus", "rudy", "rocket")
    drawn, true = [], []
    for name in names:
        concept = concepts.get(name)
        drawn.append(silhouettes(from_uint8(concept_plain(concept, 2))))
        masks = concept_masks(concept, 2, plain=True)
        true.append(filled(torch.from_numpy(np.stack([m["silhouette"] for m in masks]))))
    scores = torch.stack([torch.stack([overlap(d, t).mean() for t in true]) for d in drawn])
    own = scores.diagonal()
    assert own.min() > 0.8
    assert own.mean() > 0.9
    others = scores - torch.diag(own) * 10
    assert bool((own > others.amax(1) + 0.1).all())
