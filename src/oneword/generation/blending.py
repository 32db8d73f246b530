"""Blended latent diffusion: what is drawn inside a mask, and how the rest of a picture comes back.

Avrahami et al. 2022, arXiv:2206.02779.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from oneword._typing import Latents, Pixels
from oneword.models.contract import Backbone


Background = Literal["paste", "optimize", "blend"]
"""How what lies outside the mask comes back: as the picture's own pixels, through a decoder that is
tuned to them, or as the autoencoder gives the picture back, without a seam."""

Marked = Bool[Tensor, "batch 1 height width"]
"""What is to change."""

THICK = 4
"""Cells that a mask should be wide: the first steps, which decide what is where, need room."""


class Blend:
    """Puts the picture's own latents outside the mask, at the noise of each step."""

    def __init__(
        self,
        backbone: Backbone,
        x0: Latents,
        marked: Marked,
        seeds: Sequence[int],
        *,
        steps: int,
        growth: int | None,
    ) -> None:
        self.backbone, self.x0 = backbone, x0
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.randn(x0.shape[1:], generator=g) for g in generators]
        self.noise = torch.stack(noise).to(x0)
        cells = cells_of(marked, (x0.shape[-2], x0.shape[-1]))
        wider = thin(cells) if growth is None else growth
        self.masks = shrinking(cells, wider, steps)
        self.step = 0
        self.finished = x0

    def __call__(self, latents: Latents, t: float | None) -> Latents:
        x0 = self.x0.expand_as(latents)
        if t is None:
            self.finished = torch.where(self.masks[-1], latents, x0.to(latents))
            return self.finished
        times = torch.full((len(latents),), t, device=latents.device)
        own = self.backbone.add_noise(x0, self.noise, times).to(latents)
        mask = self.masks[min(self.step, len(self.masks) - 1)]
        self.step += 1
        return torch.where(mask, latents, own)


def cells_of(marked: Marked, size: tuple[int, int]) -> Bool[Tensor, "batch 1 h w"]:
    """The cells of the latents, (height, width) of them, of which at least half is marked.

    Of a mask that is too thin for that, every cell that it touches, so that none of it is lost.
    """
    half = F.adaptive_avg_pool2d(marked.float(), size) >= 0.5
    return half if _fits(half, 2) else F.adaptive_max_pool2d(marked.float(), size) > 0


def _fits(cells: Marked, side: int) -> bool:
    """Whether a square of so many cells fits into a mask."""
    return bool((F.max_pool2d(-cells.float(), side, 1) < 0).any())


def grown(cells: Marked, by: int) -> Marked:
    """A mask that is wider on all sides by so many cells."""
    return F.max_pool2d(cells.float(), 2 * by + 1, stride=1, padding=by) > 0


def thin(cells: Marked) -> int:
    """By how many cells a mask must be grown for a square of ``THICK`` cells to fit into it."""
    most = min(THICK, *cells.shape[-2:])
    widest = max(side for side in range(1, most + 1) if _fits(cells, side))
    return -(-(THICK - widest) // 2)


def shrinking(cells: Marked, by: int, steps: int) -> list[Marked]:
    """A mask for each step and for the end: wider by ``by`` at first, itself from half way on.

    Source:
        Avrahami et al. 2022, arXiv:2206.02779, section 4.3.
    """
    half = max(1, steps // 2)
    return [grown(cells, -(-by * max(0, half - i) // half)) for i in range(steps + 1)]


GOAL_DB = 36.0
"""Where tuning a decoder may end: one above the least that is promised."""


RATES = {"*": 1e-4, "microworld": 1e-3}
"""Of Adam by family ("*": the source's, not validated here)."""


def rejoined(
    backbone: Backbone,
    background: Background,
    original: Pixels,
    marked: Marked,
    drawn: Float[Tensor, "drawn 3 height width"],
    latents: Float[Tensor, "drawn channels h w"],
    x0: Float[Tensor, "one channels h w"],
) -> Float[Tensor, "drawn 3 height width"]:
    """Put what lies outside the mask back into what was drawn."""
    if bool(marked.all()):
        return drawn
    if background == "paste":
        return torch.where(marked, drawn, original)
    if background == "blend":
        # what is drawn moves the decoder's group norms, and with them the whole picture
        trip = backbone.decode_latents(x0)
        return torch.lerp(trip, drawn, feathered(marked, backbone.autoencoder.factor))
    return torch.cat([
        preserved(backbone, z[None], edited[None], original, marked)
        for z, edited in zip(latents, drawn, strict=True)
    ])  # fmt: skip


def feathered(
    marked: Bool[Tensor, "one 1 height width"], width: int
) -> Float[Tensor, "one 1 height width"]:
    """How much of the edit each pixel shows: 0 outside and at the edge, 1 deep inside.

    Args:
        marked: The mask; beyond the picture's borders it goes on.
        width: Pixels from the edge to where it is 1. A thinner mask has 1 where it is deepest.
    """
    around = F.pad(marked.float(), (width,) * 4, mode="replicate")
    depth = F.avg_pool2d(around, 2 * width + 1, stride=1)
    low, high = depth[marked].min(), depth[marked].max()
    shown = (depth - low) / (high - low) if high > low else torch.ones_like(depth)
    return shown * marked


def psnr(
    pixels: Pixels,
    original: Float[Tensor, "one 3 height width"],
    marked: Bool[Tensor, "one 1 height width"],
) -> float:
    """Peak signal-to-noise ratio of pixels in [-1, 1] where they are marked, dB."""
    where = marked.expand_as(pixels)
    error = (pixels - original).square().expand_as(pixels)[where].mean()
    return float(10 * torch.log10(4 / error.clamp_min(1e-12)))


def preserved(
    backbone: Backbone,
    latents: Latents,
    edited: Pixels,
    original: Pixels,
    marked: Marked,
    *,
    max_steps: int = 300,
    learning_rate: float | None = None,
    background_weight: float = 100.0,
) -> Pixels:
    """Decode one edit with a decoder that was tuned to give the rest of the picture back.

    Args:
        backbone: The model; its own decoder stays as it is.
        latents: The edit's.
        edited: What its decoder makes of them, kept where the mask is.
        original: The picture.
        marked: The mask.
        max_steps: Most steps of Adam; ``GOAL_DB`` outside the mask ends them sooner.
        learning_rate: Of Adam; ``None``: the family's.
        background_weight: Of the error outside the mask, that inside being 1.

    Source:
        Avrahami et al. 2022, arXiv:2206.02779, section 4.2 (weights of the decoder).
    """
    tuned = copy.deepcopy(backbone.autoencoder)
    tuned.vae.to(backbone.device).float()
    weights = [p.requires_grad_() for p in tuned.vae.decoder.parameters()]
    optimizer = torch.optim.Adam(weights, learning_rate or RATES.get(backbone.family, RATES["*"]))
    inside = marked.float()
    best = edited
    for step in range(max_steps + 1):
        with torch.enable_grad():
            found = tuned.decode(latents.float())
            loss = ((found - edited) * inside).square().mean()
            loss = loss + background_weight * ((found - original) * (1 - inside)).square().mean()
        best = found.detach().clamp(-1, 1)
        if psnr(best, original, ~marked) >= GOAL_DB or step == max_steps:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best
