"""Loads a family's pipeline onto its device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from torch import nn
from transformers.utils import logging as transformers_logging

from oneword._devices import pick_device, pick_dtype
from oneword.config.model import ModelConfig
from oneword.errors import ModelError, reason_of
from oneword.models import single_file
from oneword.models.memory import shapes, ways
from oneword.models.speed import few_cells
from oneword.models.speed.streaming import streamed


def is_here(source: str, revision: str | None = None) -> bool:
    """Whether a model's weights are on this machine, so that loading it downloads nothing.

    A hub model of which some files are missing counts as here if any of its weights are.

    Args:
        source: Hub id, folder or file.
        revision: Branch, tag or commit of a hub model.
    """
    if Path(source).exists():
        return True
    try:
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # nothing of it is here, or it is no hub id
        return False
    return any(path.suffix in (".safetensors", ".bin") for path in folder.rglob("*"))


def load_pipeline(
    config: ModelConfig,
    kind: type[Any],
    source: str,
    *,
    autoencoder: type[Any] = AutoencoderKL,
    **options: Any,
) -> Any:
    """Load a pipeline of one class, from the hub, a folder or a single file, onto the device.

    Args:
        config: The settings for loading.
        kind: Class of the pipeline.
        source: Hub id, folder or file.
        autoencoder: Class of the family's VAE, for ``config.vae``.
        options: Further arguments of the loader.

    Raises:
        ModelError: the pipeline is incomplete, or not of this class.
    """
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device, source)
    options = {"dtype": dtype} | options
    try:
        with quiet(), streamed(), single_file.reading_lightnings():
            if shapes.has_shapes_alone():
                return shapes.without_weights(kind, source, revision=config.revision, **options)
            if config.vae is not None:
                options["vae"] = autoencoder.from_pretrained(config.vae, dtype=dtype)
            if Path(source).is_file():
                if not hasattr(kind, "from_single_file"):
                    raise ValueError(f"diffusers cannot read single files of {kind.__name__}")
                if config.single_file_config is not None:
                    options["config"] = config.single_file_config
                pipeline = kind.from_single_file(source, **options)
            else:
                pipeline = kind.from_pretrained(
                    source, variant=config.variant, revision=config.revision, **options
                )
    except Exception as error:
        raise ModelError(
            f"The model {config.model} must be a whole {kind.__name__} (hub id, folder or single "
            f"file), got: {reason_of(error)}"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    if device.type == "cuda" and dtype == torch.float32:
        torch.set_float32_matmul_precision("high")  # TF32
    _place(pipeline, config, device, dtype)
    return pipeline


def _place(pipeline: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Move each part to its device."""
    for name, part in pipeline.components.items():
        if not isinstance(part, nn.Module):
            continue
        is_encoder = name.startswith(("text_encoder", "bert"))
        is_denoiser = name in ("unet", "transformer", "unconditional_transformer")
        is_whole = config.weights in (None, "full") and config.offload != "all"
        # a second denoiser, which is used for drawing and not in training
        waits = is_whole and name.startswith("unconditional")
        if waits or not (is_encoder or is_denoiser):
            part.to("cpu" if config.offload not in (None, "none") else device)
            continue
        if config.weights in ("8bit", "4bit"):
            ways.pack_weights(part, config.weights, dtype)
        if config.offload == "all" or (config.offload == "text" and is_encoder):
            ways.let_layers_visit(part, device)
        else:
            part.to(device)
        flat = all(p.ndim < 5 for p in part.parameters())  # no VAE of films
        if is_denoiser and is_whole and flat and device.type in ("cuda", "cpu"):
            # torch takes it, and leaves it out of its overloads
            part.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            if device.type == "cpu":
                few_cells.use_products(part)


def reschedule(pipeline: Any, kind: type[Any], **changes: Any) -> None:
    """Give a pipeline another solver, with the settings of its present one."""
    if not hasattr(pipeline, "own_scheduler"):
        pipeline.own_scheduler = pipeline.scheduler
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **changes)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the libraries' notices and progress bars, which do not help users."""
    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()


def refuse_vae(config: ModelConfig) -> None:
    """Refuse another autoencoder for a family that has a special one.

    Raises:
        ModelError: ``vae`` was given.
    """
    if config.vae is not None:
        raise ModelError(
            "Cannot use --vae with this family because it needs the model's own VAE; leave it out."
        )
