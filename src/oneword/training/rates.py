"""The rate of a step: its scale and its course."""

from __future__ import annotations

import math

import torch

from oneword.config.inversion import ResolvedConfig
from oneword.vocabulary.vocabulary import Vocabulary


def effective_learning_rate(config: ResolvedConfig, vocabulary: Vocabulary) -> tuple[float, float]:
    """The rate that AdamW gets for one text encoder, before the scheduler.

    Args:
        config: A resolved config.
        vocabulary: The encoder's vocabulary; its spread sets the scale of a relative rate.

    Returns:
        The absolute rate, and the same in standard deviations of the vocabulary's entries.
    """
    std = float(vocabulary.std())
    rate = config.absolute_rate(std)
    if config.scale_lr:
        rate *= config.train_batch_size
    return rate, rate / std


def schedule(config: ResolvedConfig, step: int) -> float:
    """Factor on the rate at a step, as diffusers' schedulers of the same names give it.

    Args:
        config: A resolved config.
        step: Steps already done, 0 or more.
    """
    total, warmup = config.max_train_steps, config.lr_warmup_steps
    if config.lr_scheduler == "constant":
        return 1.0
    if step < warmup:
        return step / warmup
    if config.lr_scheduler == "constant_with_warmup":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    if config.lr_scheduler == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done))


def is_fused(device: torch.device) -> bool:
    """Whether a device takes an optimiser step in one kernel."""
    return device.type == "cuda"
