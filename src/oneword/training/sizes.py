"""Sizes that a model takes for pictures that are not square."""

from __future__ import annotations

import torch

from oneword.config.runs import ResolvedTrainConfig
from oneword.errors import why
from oneword.models.contract import Backbone
from oneword.models.speed.compiled import aside
from oneword.training.job import Job, JobError


_SHARE = 16  # most steps along a square's side by default


def bucket_step(backbone: Backbone, config: ResolvedTrainConfig) -> int:
    """Step of the sides of a run's buckets, in px.

    Args:
        backbone: The model; its own step divides this one.
        config: The run's settings.

    Raises:
        JobError: the model does not support the requested step.
    """
    own, asked = backbone.step_px, config.bucket_step
    if asked is None:
        return own * -(-config.resolution // (_SHARE * own))
    if asked % own:
        raise JobError(
            f"bucket_step must be a multiple of {own} px because of the latents and layers of "
            f"{backbone.name}, got {asked}; use {own * -(-asked // own)}."
        )
    return asked


def check_sizes(backbone: Backbone, job: Job) -> None:
    """Refuse pictures of other sizes than the square if the model cannot take them.

    Raises:
        JobError: a side is not a multiple of the model's step, or its denoiser refuses the size.
    """
    if job.sizes is not None and job.sizes.shape != (len(job.pictures), 2):
        raise JobError(
            f"Job {job.name!r} must have a height and a width for each of its {len(job.pictures)} "
            f"pictures, got {tuple(job.sizes.shape)}."
        )
    frame = job.pictures.shape[-2:]
    sizes = {frame} if job.sizes is None else {(h, w) for h, w in job.sizes.tolist()}
    if all(height == width for height, width in sizes) and len(sizes) == 1:
        return
    own = backbone.step_px
    for height, width in sorted(sizes):
        if height % own or width % own:
            raise JobError(
                f"Sides of pictures must be multiples of {own} px because of the latents and "
                f"layers of {backbone.name}, got {width} x {height}; use --bucket-step {own}."
            )
        if height != width:
            _try(backbone, height, width)


@torch.no_grad()
def _try(backbone: Backbone, height: int, width: int) -> None:
    """Let the model take one picture of a size."""
    part = backbone.autoencoder
    size = height // part.factor, width // part.factor
    try:
        with aside(backbone):
            t = backbone.sample_t(torch.tensor([0.5], device=backbone.device), size)
            x_t = torch.zeros(1, part.channels, *size, device=backbone.device)
            backbone.predict(x_t, t, backbone.encode_prompt(["a picture"]))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # denoisers of many kinds, which refuse in different ways
        raise JobError(
            f"Cannot train on pictures of {width} x {height} px because the denoiser of "
            f"{backbone.name} does not take them ({why(error)}); use --fit crop, squash or pad."
        ) from error
