"""One optimiser step for the rows of all words of a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from oneword.training.learner import Learner
from oneword.training.rates import is_fused


@torch.no_grad()
def update(learners: Sequence[Learner], gradients: Sequence[Sequence[Tensor | None]]) -> None:
    """One optimiser step of the rows of all learners.

    Rows that use AdamW with the same settings share a call, which on a GPU is one kernel. An
    optimiser of another library belongs to a single word.

    Args:
        learners: The learners that were trained.
        gradients: Gradients of each learner's rows, from ``checked``.
    """
    groups: dict[tuple[Any, ...], list[tuple[Tensor, Tensor, dict[str, Tensor]]]] = defaultdict(
        list
    )
    for learner, own in zip(learners, gradients, strict=True):
        if learner.library is not None:
            rates = [learner.rate(name, learner.step) for name in learner.rows]
            learner.library.step(own, rates)
            continue
        c = learner.config
        for (name, parameter), gradient in zip(learner.rows.items(), own, strict=True):
            if gradient is None:  # it neither decays nor moves, and its moments stay
                continue
            rate = learner.rate(name, learner.step)
            settings = (rate, c.adam_beta1, c.adam_beta2, c.adam_epsilon, c.adam_weight_decay)
            groups[settings].append((parameter, gradient, learner.moments[name]))
    for (rate, beta1, beta2, epsilon, decay), members in groups.items():
        fused = is_fused(members[0][0].device)
        adamw(
            [parameter for parameter, _, _ in members],
            [gradient for _, gradient, _ in members],
            [moments["exp_avg"] for _, _, moments in members],
            [moments["exp_avg_sq"] for _, _, moments in members],
            [],
            [moments["step"] for _, _, moments in members],
            foreach=False,
            fused=fused,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=decay,
            eps=epsilon,
            maximize=False,
        )
    for learner in learners:
        learner.stepped()
