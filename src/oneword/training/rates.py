"""The learning rate of a step: its scale and its schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from diffusers.optimization import get_scheduler

from oneword.config.inversion import ResolvedConfig
from oneword.vocabulary.vocabulary import Vocabulary


def effective_learning_rate(config: ResolvedConfig, vocabulary: Vocabulary) -> tuple[float, float]:
    """The optimiser's rate for a text encoder, before the scheduler.

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
    """Factor on the rate at a step, by diffusers' scheduler, which ends at the last step.

    "polynomial" ends at 1e-7 of the rate, where diffusers' scripts end at an absolute 1e-7.

    Args:
        config: A resolved config.
        step: Steps already done, 0 or more.
    """
    course = _course(
        config.lr_scheduler,
        config.max_train_steps,
        config.lr_warmup_steps,
        config.lr_num_cycles,
        config.lr_power,
        config.lr_step_rules,
    )
    return float(course(min(step, config.max_train_steps)))


@lru_cache(maxsize=64)
def _course(
    name: str, total: int, warmup: int, cycles: int, power: float, rules: str
) -> Callable[[int], float]:
    """The schedule as a function of the step, so that there is no state to save."""
    if name == "constant":  # for which diffusers need not be loaded
        return lambda _: 1.0
    scheduler = get_scheduler(
        name,
        torch.optim.SGD([torch.zeros(())], lr=1.0),
        step_rules=rules,
        num_warmup_steps=warmup,
        num_training_steps=max(total, warmup + 1),
        num_cycles=cycles,
        power=power,
    )
    return scheduler.lr_lambdas[0]


def is_fused(device: torch.device) -> bool:
    """Whether a device can do an optimiser step in one kernel."""
    return device.type == "cuda"
