"""Augmented cutouts: what each of them does, and that a generator decides all of it."""

from __future__ import annotations

import colorsys
import math

import pytest
import torch

from oneword.generation import augmentations
from oneword.generation.augmentations import Augmented, from_aside, moved, recoloured


def picture(side=9, right=2, below=1):
    """A picture that is black but for one white point, right of and below the middle."""
    pixels = torch.zeros(1, 3, side, side)
    pixels[..., side // 2 + below, side // 2 + right] = 1
    return pixels


def place(pixels):
    """Where the light of a picture is, in pixels right of and below its middle."""
    light = pixels[0, 0]
    middle = (light.shape[0] - 1) / 2
    ys, xs = torch.meshgrid(*(torch.arange(n) - middle for n in light.shape), indexing="ij")
    return [round(float((light * axis).sum() / light.sum()), 3) for axis in (xs, ys)]


@pytest.mark.parametrize(
    ("degrees", "shift", "where"),
    [
        (0, (0, 0), [2, 1]),
        (90, (0, 0), [-1, 2]),  # clockwise
        (0, (1 / 9, -2 / 9), [3, -1]),
        (90, (1 / 9, 0), [0, 2]),  # turned first
    ],
)
def test_a_picture_is_turned_and_moved(degrees, shift, where):
    found = moved(picture(), torch.tensor([math.radians(degrees)]), torch.tensor([shift]).float())
    assert place(found) == pytest.approx(where, abs=1e-2)


def test_what_is_outside_a_moved_picture_is_its_border():
    white = torch.ones(1, 3, 8, 8)
    assert torch.allclose(moved(white, torch.tensor([0.3]), torch.tensor([[0.4, 0.1]])), white)


def test_corners_go_where_they_are_sent_and_black_is_around_them():
    white = torch.ones(1, 3, 40, 40)
    inwards = torch.zeros(1, 4, 2)
    assert torch.allclose(from_aside(white, inwards)[..., 1:-1, 1:-1], white[..., 1:-1, 1:-1])
    inwards[0, 2] = 0.5  # the lower right corner, half of the way along both
    seen = from_aside(white, inwards)[0, 0]
    assert seen[39, 39] == 0
    assert seen[25, 25] == pytest.approx(1)  # within the corner, which is at 30
    assert seen[33, 33] == 0
    assert seen[0, 0] > 0
    assert seen[2, 37] == pytest.approx(1)  # the others stay


def test_points_go_along_with_the_corners():
    """All corners half of the way: the picture in half its size."""
    found = from_aside(picture(33, 4, 2), torch.full((1, 4, 2), 0.5))
    assert place(found) == pytest.approx([2, 1], abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_colours_change_as_in_hsv(seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, 3, 5, 5, generator=generator)
    pixels[0, :, 0, 0] = 0.25  # grey has no hue
    hues, factors = torch.tensor([0.1, -0.1, 0.0]), torch.tensor([1.1, 0.9, 1.7])
    found = recoloured(pixels, hues, factors)
    for number in range(3):
        for spot in ((0, 0), (2, 3), (4, 4)):
            h, s, v = colorsys.rgb_to_hsv(*pixels[number, :, *spot].tolist())
            told = colorsys.hsv_to_rgb(
                (h + float(hues[number])) % 1, min(1.0, s * float(factors[number])), v
            )
            assert found[number, :, *spot].tolist() == pytest.approx(told, abs=1e-5)


def test_colours_pass_a_gradient():
    pixels = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    recoloured(pixels, torch.tensor([0.1]), torch.tensor([1.1])).square().sum().backward()
    assert torch.isfinite(pixels.grad).all()
    assert (pixels.grad != 0).any()


def test_the_same_generator_augments_alike_and_each_cutout_in_its_own_way():
    pixels = torch.rand(2, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    cut = Augmented(number=3, size=16)
    first, again, other = (cut(pixels, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert first.shape == (6, 3, 16, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(not torch.equal(first[0], first[i]) for i in (2, 4))  # of the same picture


def test_what_is_erased_is_one_rectangle_of_the_published_sizes():
    areas, hits = [], 0
    for seed in range(200):
        mask = augmentations._unerased(50, torch.Generator().manual_seed(seed))
        gone = (mask == 0).nonzero()
        if not len(gone):
            continue
        hits += 1
        height, width = (gone.max(0).values - gone.min(0).values + 1).tolist()
        assert height * width == len(gone)
        areas.append(len(gone) / 2500)
        assert 0.28 <= height / width <= 3.6
    assert 0.6 <= hits / 200 <= 0.8
    assert min(areas) >= 0.08
    assert max(areas) <= 0.42


def test_a_call_without_draws_pools_alone(monkeypatch):
    """With every augmentation off, what is left is the mean of mean and maximum of each cell."""
    for name in ("SHARE", "NOISE"):
        monkeypatch.setattr(augmentations, name, 0.0)
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = Augmented(number=1, size=4)(pixels, torch.Generator().manual_seed(0))
    cells = pixels.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert torch.allclose(found, (cells.mean(4) + cells.amax(4)) / 2, atol=1e-5)
