"""Augmented cutouts, with which nerdyrodent's VQGAN-CLIP shows a picture to its guide.

The same generator gives the same draws on every device; pictures are only moved by ``grid_sample``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oneword.generation.guide import Pictures


SHARE = 0.7
"""Share of the cutouts that each augmentation changes."""
DEGREES = 15.0
SHIFT = 0.1
"""Largest shift in each direction, as a share of the picture's side."""
DISTORTION = 0.7
"""Most that a corner moves, as a share of the way to the middle."""
HUE = 0.1
"""Largest change of hue in each direction, as a share of the whole circle."""
SATURATION = 0.1
"""Largest change of saturation in each direction, as a share of it."""
ERASED_AREA = (0.1, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)
NOISE = 0.1
"""Largest standard deviation of the noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """The whole picture many times, each time with its own augmentations.

    Rotated and shifted, in perspective, recoloured, with a rectangle erased (the same one for all,
    in ``SHARE`` of the calls) and with noise.

    Source:
        nerdyrodent/VQGAN-CLIP at 07a2489 for the constants; kornia, which it uses, for their
        meaning. In some versions kornia's shift goes one way along one side; here it goes both ways
        along both.
    """

    number: int
    """Cutouts of each picture, 1 or more."""
    size: int
    """Side that they are resized to, in px."""

    def __call__(
        self, pictures: Pictures, generator: torch.Generator
    ) -> Float[Tensor, "cutouts 3 size size"]:
        """Augment pictures.

        Args:
            pictures: (num, 3, height, width) in [0, 1].
            generator: Generator of all draws, on the CPU.

        Returns:
            (number * num, 3, size, size): the first cutout of every picture, then the second.
        """
        size = (self.size, self.size)
        pooled = F.adaptive_avg_pool2d(pictures, size) + F.adaptive_max_pool2d(pictures, size)
        batch = (pooled / 2).repeat(self.number, 1, 1, 1)
        count, device = len(batch), pictures.device

        def spread(*shape: int) -> Tensor:
            """U[-1, 1) in ``SHARE`` of the cutouts, 0 in the others."""
            chosen = torch.rand(count, generator=generator) < SHARE
            values = 2 * torch.rand(count, *shape, generator=generator) - 1
            return (values * chosen.reshape(count, *(1,) * len(shape))).to(device)

        moves = spread(3)
        batch = moved(batch, math.radians(DEGREES) * moves[:, 0], SHIFT * moves[:, 1:])
        batch = from_aside(batch, DISTORTION * spread(4, 2).abs())
        colours = spread(2)
        batch = recoloured(batch, HUE * colours[:, 0], 1 + SATURATION * colours[:, 1])
        batch = batch * _unerased(self.size, generator).to(device)
        deviations = NOISE * torch.rand(count, 1, 1, 1, generator=generator)
        noise = torch.randn(batch.shape, generator=generator)
        return batch + (deviations * noise).to(device)


def moved(
    pictures: Pictures, angles: Float[Tensor, " num"], shifts: Float[Tensor, "num 2"]
) -> Pictures:
    """Pictures rotated about their middle and shifted; outside, their border is repeated.

    Args:
        pictures: As many as angles and shifts.
        angles: In radians; positive values rotate clockwise.
        shifts: Along x and y, as a share of the side.
    """
    cos, sin = angles.cos(), angles.sin()
    # the position in the picture that each pixel is taken from: the inverse
    back = torch.stack([torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)], dim=1)
    start = -2 * (back @ shifts[:, :, None])
    grid = F.affine_grid(torch.cat([back, start], dim=2), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


def from_aside(pictures: Pictures, inwards: Float[Tensor, "num 4 2"]) -> Pictures:
    """Pictures in perspective, with moved corners, like a flat thing seen from the side.

    Args:
        pictures: As many as sets of corners.
        inwards: How far the corners (clockwise from the upper left) move along x and y, as a share
            of the way to the middle, in [0, 1).
    """
    corners = torch.tensor(_CORNERS, device=pictures.device, dtype=inwards.dtype)
    ends = corners * (1 - inwards)
    x, y = ends[..., 0], ends[..., 1]
    u, v = corners.expand_as(ends).unbind(dim=2)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    rows = [
        torch.stack([x, y, one, none, none, none, -u * x, -u * y], dim=2),
        torch.stack([none, none, none, x, y, one, -v * x, -v * y], dim=2),
    ]
    found = torch.linalg.solve(torch.cat(rows, dim=1), torch.cat([u, v], dim=1))
    back = torch.cat([found, torch.ones_like(found[:, :1])], dim=1).unflatten(1, (3, 3))
    same = torch.eye(2, 3, device=pictures.device, dtype=inwards.dtype).expand(len(back), 2, 3)
    places = F.affine_grid(same, list(pictures.shape), align_corners=False)
    seen = F.pad(places, (0, 1), value=1.0).flatten(1, 2) @ back.transpose(1, 2)
    grid = (seen[..., :2] / seen[..., 2:]).reshape(places.shape)
    return F.grid_sample(pictures, grid, align_corners=False)


def recoloured(
    pictures: Pictures, hues: Float[Tensor, " num"], saturations: Float[Tensor, " num"]
) -> Pictures:
    """Pictures with changed hue and saturation, as defined by HSV; differentiable.

    Args:
        pictures: In [0, 1].
        hues: Added to the hue, as a share of the whole circle.
        saturations: Factors for the saturation, which is at most 1.
    """
    red, green, blue = pictures.unbind(dim=1)
    value = pictures.amax(dim=1)
    chroma = value - pictures.amin(dim=1)
    some = chroma.clamp_min(1e-8)
    sector = torch.where(
        value == red,
        (green - blue) / some,
        torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )
    sector = sector + 6 * hues[:, None, None]
    chroma = torch.minimum(chroma * saturations[:, None, None], value)
    starts = torch.tensor([5.0, 3.0, 1.0], device=pictures.device)[:, None, None]
    along = (starts + sector[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(along, 4 - along).clamp(0, 1)


def _unerased(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """A factor of 1; in ``SHARE`` of the calls it is 0 in a rectangle."""
    mask = torch.ones(size, size)
    erases, area, tall, aspect, down, right = torch.rand(6, generator=generator).tolist()
    if erases >= SHARE:
        return mask
    least, most = ERASED_AREA
    # wide as often as tall
    low, high = (ERASED_ASPECT[0], 1.0) if tall < 0.5 else (1.0, ERASED_ASPECT[1])
    area, aspect = (least + (most - least) * area) * size**2, low + (high - low) * aspect
    height, width = (min(round(math.sqrt(a)), size) for a in (area * aspect, area / aspect))
    top, left = int(down * (size - height + 1)), int(right * (size - width + 1))
    mask[top : top + height, left : left + width] = 0
    return mask
