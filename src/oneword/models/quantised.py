"""Pictures as grids of codebook rows: published VQGANs, and the embedded models' autoencoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Latents, Pixels
from oneword.microworld import weights
from oneword.models import taming
from oneword.models.autoencoders import Plain


Codebook = Float[Tensor, "rows channels"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantised:
    """A frozen autoencoder whose latents' cells are rows of a codebook."""

    name: str
    """Its name in reports, which describes it."""
    codebook: Codebook
    factor: int
    """How many pixels wide a cell of the latents is."""
    encode: Callable[[Pixels], Latents]
    """Latents of pictures, before their cells are replaced by rows."""
    decode: Callable[[Latents], Pixels]
    """Pictures of latents, float32, not clamped; differentiable."""
    resolution: int | None = None
    """Side of its training pictures in px, if it draws only this size well."""
    facts: dict[str, str] = field(default_factory=dict)
    """Further entries about it in a picture's file."""

    def nearest(self, latents: Latents) -> Latents:
        """Each cell replaced by the nearest row (Euclidean).

        Source:
            van den Oord et al. 2017, arXiv:1711.00937, equation 2.
        """
        cells = latents.movedim(1, -1)
        # each cell's own square is the same for all rows
        distance = self.codebook.square().sum(dim=1) - 2 * cells @ self.codebook.T
        return self.codebook[distance.argmin(dim=-1)].movedim(-1, 1)


def published(checkpoint: Path, config: Path | None, device: torch.device) -> Quantised:
    """A VQGAN from a file of taming-transformers.

    Args:
        checkpoint: The file.
        config: Its ``model.yaml``, to compare with; ``None``: none.
        device: Where it runs.

    Raises:
        ModelError: the file is of another layout, is not whole, or is not the configuration's.
    """
    model: Any = taming.load(checkpoint, config)
    model.to(device)
    with checkpoint.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Quantised(
        name=f"VQGAN {checkpoint.name}",
        codebook=model.quantize.embedding.weight.detach(),
        factor=2 ** (len(model.config.block_out_channels) - 1),
        encode=lambda pixels: model.encode(pixels.to(device)).latents,
        decode=lambda latents: model.decode(latents, force_not_quantize=True).sample,
        facts={"checkpoint": checkpoint.name, "checkpoint_sha256": sha256},
    )


def embedded(name: str, device: torch.device) -> Quantised:
    """An embedded model's autoencoder with latents quantised by k-means: ours, not a VQGAN.

    Args:
        name: The model.
        device: Where it runs.

    Raises:
        WeightsError: a file is missing or damaged, or the codebook is of another autoencoder.
    """
    network: Any = weights.load_vae(weights.pipeline_folder(name))
    vae = Plain(network.to(device), name)
    return Quantised(
        name=f"VQ on the landed VAE of {name} (k-means, ours)",
        codebook=weights.load_codebook(name).to(device),
        factor=vae.factor,
        encode=lambda pixels: vae.encode(pixels).mean,
        decode=vae.decode,
        resolution=int(network.config.sample_size),
        facts={"vae_sha256": weights.card(name)["sha256"][weights.VAE_FILE]},
    )
