"""A row for every cross-attention layer: the extended space P+.

The word is stored with its rows by layer; the plain rows are their mean, for readers of a single
row.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.extensions.cross_init import start
from oneword.training.job import Job, JobError, encoder_of
from oneword.training.parts import Form, Words


def num_layers(backbone: Backbone, job: Job) -> int:
    """Cross-attention layers of the denoiser.

    Raises:
        JobError: the denoiser has none.
    """
    found = getattr(backbone, "num_cross_attentions", 0)
    if not found:
        raise JobError(
            f"Cannot train job {job.name!r} with this setup because the denoiser of "
            f"{backbone.family} has no cross-attention layers (Stable Diffusion 1 and 2, SDXL and "
            "latent diffusion do); use another --setup."
        )
    return found


def rows(backbone: Backbone, job: Job, config: ResolvedConfig) -> dict[str, Tensor]:
    """The initialiser's rows for every layer: (layers, num_vectors, dim)."""
    layers = num_layers(backbone, job)
    found = start(backbone, job, config)
    return {f"{name}/layers": many.expand(layers, -1, -1) for name, many in found.items()}


def words(
    tensors: Mapping[str, Tensor],
    config: ResolvedConfig,  # noqa: ARG001  (the shape of the part)
    step: int,  # noqa: ARG001
) -> Words:
    """The rows by layer, and their mean."""
    plain = {encoder_of(name): tensor.mean(dim=0) for name, tensor in tensors.items()}
    return Words(rows=plain, kind="xti", tensors=tensors)


FORM = Form(rows=rows, words=words)
"""Extended textual inversion.

Source:
    Voynov et al. 2023, arXiv:2303.09522, section 3.
"""
