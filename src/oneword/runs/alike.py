"""Pictures that are nearly the same: one rescaled, recompressed, brightened or slightly cropped.

Two pictures are compared in grey: first small copies by their correlation, where either may have
lost a strip at each side. Where that is high, the strips are found more closely, and the details of
larger copies are correlated: what remains without their blurred light and shade, which two
photographs from one place may share. Correlation does not change with brightness and contrast.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter


NEARLY_SAME = 0.8
"""Correlation of details from which two pictures are said to be nearly the same.

Measured on 16 photographs of three things and 20 pictures of four things of the embedded model: two
different pictures of one thing reach 0.70 at most; one of them and its copy (half or a third of the
size, JPEG of quality 10, brighter or darker by 30 %, up to 10 % cut off at a side, and several of
these together) 0.91 at least. tests/unit/runs/test_alike.py measures it again.
"""
_MOST = 100  # pictures; larger sets are not compared
_PX = 128  # side of the copies that both others are made of
_COARSE_PX, _FINE_PX = 12, 32
_GATE = 0.8  # correlation of the small copies below which the details are not looked at
_BLUR_PX = 4
_STRIPS = (0.0, 0.05, 0.1)  # share of a side that is tried to be cut off first
_STEPS = (0.05, 0.025, 0.0125)
_MOST_STRIP = 0.15

Strips = tuple[float, ...]
"""Shares of a picture that are cut off left, top, right and bottom: four."""
_TRIED: tuple[Strips, ...] = tuple(itertools.product(_STRIPS, repeat=4))
_WHOLE: Strips = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Print:
    """What is kept of a picture for comparing it with others."""

    grey: Image.Image
    coarse: Float[np.ndarray, "strips values"]
    """Small copies without each of the tried strips, the whole picture first."""


def print_of(picture: Image.Image) -> Print:
    """What is compared of a picture."""
    is_large = min(picture.size) >= _PX
    how = Image.Resampling.BOX if is_large else Image.Resampling.BICUBIC
    grey = picture.convert("L").resize((_PX, _PX), how)
    return Print(grey, np.stack([_values(grey, strips, _COARSE_PX) for strips in _TRIED]))


def likeness(one: Print, other: Print) -> float:
    """Correlation of the details of two pictures, in [-1, 1]; -1 if small copies differ already."""
    if one.grey.tobytes() == other.grey.tobytes():  # both may be of one colour
        return 1.0
    best = -1.0
    for cut, whole in ((one, other), (other, one)):
        found = cut.coarse @ whole.coarse[0]
        place = int(found.argmax())
        if found[place] >= _GATE:
            best = max(best, _fine(cut.grey, _TRIED[place], whole.grey))
    return best


def _fine(cut: Image.Image, strips: Strips, whole: Image.Image) -> float:
    """Correlation of details with the strips that make it highest, found step by step."""
    wanted = _values(whole, _WHOLE, _FINE_PX)

    def at(own: Strips) -> float:
        return float(_values(cut, own, _FINE_PX) @ wanted)

    best = at(strips)
    for step in _STEPS:
        moved = True
        while moved:
            moved = False
            for side, by in itertools.product(range(4), (step, -step)):
                share = min(_MOST_STRIP, max(0.0, strips[side] + by))
                tried = (*strips[:side], share, *strips[side + 1 :])
                found = at(tried)
                if found > best + 1e-4:
                    strips, best, moved = tried, found, True
    return best


def _values(grey: Image.Image, strips: Strips, side_px: int) -> Float[np.ndarray, " values"]:
    """A picture without strips, as a vector of length 1 with mean 0; of one colour, zeros."""
    left, top, right, bottom = (share * _PX for share in strips)
    small = grey.resize(
        (side_px, side_px), Image.Resampling.BOX, box=(left, top, _PX - right, _PX - bottom)
    )
    values = np.asarray(small, np.float64)
    if side_px == _FINE_PX:
        values = values - np.asarray(small.filter(ImageFilter.BoxBlur(_BLUR_PX)), np.float64)
    values = values.ravel() - values.mean()
    length = np.sqrt(values @ values)
    return values / length if length > 1e-6 else values * 0


def groups(pictures: Sequence[Image.Image]) -> list[list[int]]:
    """Indices of pictures that are nearly the same, by group; sets above 100 are not compared."""
    if len(pictures) > _MOST:
        return []
    prints = [print_of(picture) for picture in pictures]
    group = [*range(len(prints))]
    for i, j in itertools.combinations(range(len(prints)), 2):
        if group[i] != group[j] and likeness(prints[i], prints[j]) >= NEARLY_SAME:
            group = [group[i] if own == group[j] else own for own in group]
    found = [[i for i, own in enumerate(group) if own == number] for number in dict.fromkeys(group)]
    return [own for own in found if len(own) > 1]
