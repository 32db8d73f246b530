"""Shared parts of guided drawing: distances between features, and cutouts of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oneword.models.guide import Features, Guide, GuideError, Pictures


__all__ = ["Cutouts", "Features", "Guide", "GuideError", "Pictures", "spherical_distance"]


def spherical_distance(
    a: Float[Tensor, "*some dim"], b: Float[Tensor, "*others dim"]
) -> Float[Tensor, "*both"]:
    """``2 arcsin(|a/|a| - b/|b|| / 2)^2``, which is half the squared angle, in [0, pi^2 / 2].

    Source:
        Crowson 2021, the published notebooks of VQGAN-CLIP and CLIP-guided diffusion.
    """
    chord = (F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).norm(dim=-1)
    return 2 * (chord / 2).clamp(max=1.0).arcsin().square()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutouts:
    """Square cutouts of random sizes and positions, resized to a guide's input.

    A side is ``int(u^power * (longest - shortest) + shortest)`` with u from U[0, 1), where
    ``longest`` is the picture's shorter side, and ``shortest`` the smallest of that, ``size`` and
    ``min_size``. The position is uniform.

    Source:
        Crowson 2021, the published notebooks of VQGAN-CLIP and CLIP-guided diffusion; ``min_size``
        is ours, because otherwise cutouts of pictures no larger than the guide's input would be
        whole pictures.
    """

    number: int
    """Cutouts of each picture, 1 or more."""
    size: int
    """Side that they are resized to, in px."""
    power: float = 1.0
    """Above 1, small cutouts are more frequent."""
    min_size: int | None = None
    """Shortest side, in px; ``None``: ``size``."""
    resize: Literal["pool", "bilinear", "resample"] = "pool"
    """How they are resized: by the means of cells, bilinear, or bicubic after a Lanczos filter."""

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Shortest and longest side of the cutouts of pictures of a size, in px."""
        longest = min(height, width)
        return min(longest, self.size, self.min_size or self.size), longest

    def __call__(
        self, pictures: Pictures, generator: torch.Generator
    ) -> Float[Tensor, "cutouts 3 size size"]:
        """Cut pictures, all at the same positions.

        Args:
            pictures: (num, 3, height, width).
            generator: Generator of sizes and positions, on the CPU.

        Returns:
            (number * num, 3, size, size): the first cutout of every picture, then the second.
        """
        height, width = pictures.shape[-2:]
        shortest, longest = self.sides(height, width)
        found = []
        for _ in range(self.number):
            u = float(torch.rand((), generator=generator))
            side = int(u**self.power * (longest - shortest) + shortest)
            left = int(torch.randint(width - side + 1, (), generator=generator))
            top = int(torch.randint(height - side + 1, (), generator=generator))
            found.append(self._resized(pictures[..., top : top + side, left : left + side]))
        return torch.cat(found)

    def _resized(self, pictures: Tensor) -> Tensor:
        size = (self.size, self.size)
        if tuple(pictures.shape[-2:]) == size:
            return pictures
        if self.resize == "pool":
            return F.adaptive_avg_pool2d(pictures, size)
        if self.resize == "bilinear":
            return F.interpolate(pictures, size, mode="bilinear", align_corners=False)
        if self.size < pictures.shape[-1]:
            pictures = _smoothed(pictures, self.size / pictures.shape[-1])
        return F.interpolate(pictures, size, mode="bicubic", align_corners=True)


def _smoothed(pictures: Tensor, ratio: float) -> Tensor:
    """Pictures filtered by a Lanczos filter of two lobes, for shrinking by a ratio below 1."""
    reach = math.ceil(2 / ratio)
    at = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype) * ratio
    kernel = torch.where(at.abs() < 2, torch.sinc(at) * torch.sinc(at / 2), torch.zeros_like(at))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(pictures, (reach,) * 4, "reflect")
    down = F.conv2d(padded, kernel[..., None], groups=3)
    return F.conv2d(down, kernel[:, :, None], groups=3)
