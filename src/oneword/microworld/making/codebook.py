"""A codebook for the shipped autoencoder: rows that replace the cells of its latents.

No VQGAN is trained for the embedded model. Instead its own continuous latents are quantised by
k-means. For drawing with rows of a codebook, this only changes what the rows are.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from scipy.cluster import vq
from torch import Tensor

from oneword.microworld import weights
from oneword.microworld.making.stages import pixels_of
from oneword.microworld.world.drawn import pictures_of


CELLS_PER_ROW = 16
"""Cells of drawn pictures' latents for each row: 4,096 rows on microworld, 1,024 on the tiny
model."""
_PICTURES = 256  # 65,536 cells of microworld's latents, 16,384 of the tiny model's
_CHECKED = 64  # unseen pictures that the error is measured on
_PASSES = 20
_AT_ONCE = 16  # pictures


def make(name: str, *, seed: int = 0, on_picture: Callable[[int, int], None] | None = None) -> Path:
    """Make the codebook of an embedded model from what its world draws; save it with the weights.

    Args:
        name: The model, or its folder.
        seed: Of the pictures and of the first rows.
        on_picture: ``on_picture(done, total)``, called as pictures are encoded.

    Returns:
        The file.

    Raises:
        WeightsError: there is no such model, or a file of it is damaged.
    """
    vae = weights.load_vae(weights.pipeline_folder(name)).eval()
    size, world = weights.size_px(name), weights.world(name)
    show = on_picture or _tell_nobody
    rng = np.random.default_rng(np.random.SeedSequence((seed, 61)))
    seeds = rng.integers(0, 2**40, _PICTURES + _CHECKED).tolist()
    pictures = pictures_of(seeds, size, world)
    latents = []
    for start in range(0, len(pictures), _AT_ONCE):
        latents.append(_latents(vae, pictures[start : start + _AT_ONCE]))
        show(min(start + _AT_ONCE, len(pictures)), len(pictures))
    known = torch.cat(latents)
    cells = _cells(known[:_PICTURES])
    rows = clustered(cells, len(cells) // CELLS_PER_ROW, rng)
    details = {
        "rows": len(rows),
        "pictures": _PICTURES,
        "seed": seed,
        "passes": _PASSES,
    } | _kept(vae, pictures[_PICTURES:], known[_PICTURES:], rows.half().float())
    return weights.save_codebook(rows, details, name)


def clustered(cells: Tensor, num_rows: int, rng: np.random.Generator) -> Tensor:
    """Rows of a codebook by k-means, from cells that differ.

    Args:
        cells: (cells, channels); of flat pictures many are equal.
        num_rows: How many rows, fewer than there are different cells.
        rng: Chooses the first rows.

    Returns:
        (num_rows, channels), float32.
    """
    values = cells.numpy()
    different = np.unique(values, axis=0)
    first = different[rng.choice(len(different), num_rows, replace=False)]
    with warnings.catch_warnings():
        # a row without nearest cells is not moved
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        rows, _ = vq.kmeans2(values, first, iter=_PASSES, minit="matrix")
    return torch.from_numpy(rows).float()


@torch.no_grad()
def _latents(vae: AutoencoderKL, pictures: np.ndarray) -> Tensor:
    return vae.encode(pixels_of(pictures, torch.device("cpu"))).latent_dist.mean


def _cells(latents: Tensor) -> Tensor:
    return latents.movedim(1, -1).flatten(0, -2)


@torch.no_grad()
def _kept(
    vae: AutoencoderKL, pictures: np.ndarray, latents: Tensor, rows: Tensor
) -> dict[str, Any]:
    """Of unseen drawings: peak signal-to-noise ratio, dB, and how many rows they use."""
    pixels = pixels_of(pictures, torch.device("cpu"))
    nearest = torch.cdist(_cells(latents), rows).argmin(dim=1)
    quantised = rows[nearest].unflatten(0, (len(latents), *latents.shape[2:])).movedim(-1, 1)
    found: dict[str, float] = {}
    for what, own in (("autoencoder", latents), ("quantised", quantised)):
        decoded = torch.cat([vae.decode(part).sample for part in own.split(_AT_ONCE)]).clamp(-1, 1)
        errors = (decoded - pixels).square().flatten(1).mean(dim=1)
        found[what] = float((10 * torch.log10(4 / errors)).mean())
    used = len(nearest.unique())
    perplexity = _perplexity(nearest, len(rows))
    return {"psnr_db": found, "rows_used": used, "perplexity": perplexity}


def _perplexity(nearest: Tensor, num_rows: int) -> float:
    """How many rows are used, were all used equally often: in [1, num_rows]."""
    shares = torch.bincount(nearest, minlength=num_rows).double() / len(nearest)
    return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


def _tell_nobody(done: int, total: int) -> None:
    """Stand in for an absent ``on_picture``."""
