"""The record of a job: losses on the fixed batch, the best one, messages, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from oneword.concepts.concept import Concept
from oneword.config.inversion import ResolvedConfig
from oneword.training.job import Job, Progress, Result, Status
from oneword.training.state import Losses, Standing


GUARD_MIN_STEPS = 100  # shorter runs are trials, which are never judged fruitless
GUARD_MARGIN = 1e-3  # smallest relative fall of the fixed loss that counts as learning

Verdict = tuple[Status, str]
"""How a job ends, and why."""


@runtime_checkable
class Trained(Protocol):
    """What a record is about, and can restore."""

    def kept(self) -> dict[str, Tensor]:
        """A copy of what a result may contain."""
        ...

    def trained(self) -> dict[str, Tensor]:
        """A copy of everything that a step changes."""
        ...

    def restore(self, trained: dict[str, Tensor]) -> None:
        """Undo every step since ``trained`` was copied."""
        ...


class Record:
    """The state of a job: its losses on the fixed batch, the best one, and messages.

    Args:
        device: Device on which steps are checked for numbers that are not finite.
        max_steps: Steps after which the job, or this stage of it, ends.
        first_step: Steps of the previous stage.
        losses: Losses of the previous stage.
        messages: Messages of the previous stage, which have been shown.
    """

    def __init__(
        self,
        device: torch.device,
        max_steps: int,
        *,
        first_step: int = 0,
        losses: Losses = (),
        messages: Sequence[str] = (),
    ) -> None:
        self.max_steps, self.first_step = max_steps, first_step
        self.step = 0
        self.losses: list[tuple[int, float]] = list(losses)
        self.first_loss = self.best_loss = math.inf
        self.best_step, self.distance = first_step, 0.0
        self.best: dict[str, Tensor] = {}
        self.good: dict[str, Tensor] = {}
        self.setbacks, self.rate_factor = 0, 1.0
        self.messages: list[str] = list(messages)
        self.unsaid: list[str] = []
        self.bad = torch.zeros((), dtype=torch.bool, device=device)

    @property
    def total_step(self) -> int:
        """Steps done in all stages together."""
        return self.first_step + self.step

    @property
    def is_over(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.max_steps

    def is_due(self, every: int) -> bool:
        """Whether the fixed batch is due to be scored, every ``every`` steps."""
        return self.step % every == 0 or self.is_over

    def say(self, message: str) -> None:
        """Add a message for the user."""
        self.messages.append(message)
        self.unsaid.append(message)

    def check(self, loss: Tensor, gradients: Sequence[Tensor]) -> Tensor:
        """Whether all numbers of a step are finite, without waiting for the device.

        If they are not, ``bad`` is set, which the next scoring reads.
        """
        finite = torch.stack([loss.detach().isfinite(), *(g.isfinite().all() for g in gradients)])
        finite = finite.all()
        self.bad |= ~finite
        return finite

    # --- scorings

    def judge(
        self, loss: float, bad: bool, distance: float, learned: Trained, *, rates: str
    ) -> Verdict | None:
        """Record a scoring; return an ending and its reason, or ``None`` to continue.

        Args:
            loss: Loss on the fixed batch.
            bad: Whether a step since the last scoring had a number that is not finite.
            distance: As ``Progress.distance``.
            learned: What is trained; it is restored if a number is not finite.
            rates: The learning rates, in words.
        """
        if bad or not math.isfinite(loss):
            return self._set_back(learned)
        self.setbacks, self.distance = 0, distance
        if self.add(loss):
            self.best = learned.kept()
        self.good = learned.trained()
        if 2 * self.step >= self.max_steps and self.is_fruitless:
            return "nothing-learned", (
                f"the loss on the fixed batch has not fallen after {self.step} of "
                f"{self.max_steps} steps: {self.best_loss:.5g} at best, {self.first_loss:.5g} "
                f"before training. Try a higher learning rate (now {rates}) or another "
                "initializer token."
            )
        return ("finished", "") if self.is_over else None

    def add(self, loss: float) -> bool:
        """Record a loss on the fixed batch; whether it is the lowest so far."""
        if not self.losses or self.losses[-1][0] != self.total_step:
            self.losses.append((self.total_step, loss))
        if math.isinf(self.first_loss):
            self.first_loss = loss
        if loss >= self.best_loss:
            return False
        self.best_loss, self.best_step = loss, self.total_step
        return True

    @property
    def is_fruitless(self) -> bool:
        """Whether a run that is no trial has not lowered the loss."""
        least = self.first_loss * (1 - GUARD_MARGIN)
        return self.max_steps >= GUARD_MIN_STEPS and self.best_loss > least

    def _set_back(self, learned: Trained) -> Verdict | None:
        if not self.losses:
            return "diverged", (
                "the loss is not a number before the first step: the pictures or the model "
                "contain values that are not finite, or the data type is too narrow (try dtype "
                "fp32)."
            )
        learned.restore(self.good)
        self.bad.zero_()
        self.setbacks += 1
        if self.setbacks > 1:
            return "diverged", (
                f"the loss or its gradient was not finite by step {self.step}, for the second "
                f"time in a row; the word of step {self.losses[-1][0]} is kept. Try a lower "
                "learning rate."
            )
        self.rate_factor /= 2
        self.say(
            f"The loss or its gradient was not finite by step {self.step}: going back to step "
            f"{self.losses[-1][0]} with half the learning rate."
        )
        return ("finished", "") if self.is_over else None

    # --- what others see of it

    def progress(
        self,
        job: Job,
        config: ResolvedConfig,
        *,
        evaluated: bool,
        learning_rate: float,
        rows: Mapping[str, Tensor],
        word: Callable[[], Concept],
        token: str,
        negative_prompt: str = "",
    ) -> Progress:
        """The argument of ``stop`` and ``on_step``; each message is included once."""
        message, self.unsaid = "\n".join(self.unsaid), []
        return Progress(
            job=job,
            config=config,
            step=self.total_step,
            evaluated=evaluated,
            losses=self.losses,
            best_loss=self.best_loss,
            best_step=self.best_step,
            distance=self.distance,
            learning_rate=learning_rate,
            rows={name: values.detach() for name, values in rows.items()},
            word=word,
            token=token,
            negative_prompt=negative_prompt,
            message=message,
        )

    def result(self, job: Job, status: Status, reason: str, concept: Concept) -> Result:
        """The result of the job."""
        return Result(
            job=job,
            status=status,
            concept=concept,
            steps=self.total_step,
            best_step=self.best_step,
            losses=self.losses,
            reason=reason,
            messages=self.messages,
        )

    def standing(self) -> Standing:
        """Everything for a state, except the copies of what is trained."""
        return Standing(
            step=self.step,
            losses=tuple(self.losses),
            first_loss=self.first_loss,
            best_loss=self.best_loss,
            best_step=self.best_step,
            messages=tuple(self.messages),
            unsaid=tuple(self.unsaid),
            bad=bool(self.bad),
            setbacks=self.setbacks,
            rate_factor=self.rate_factor,
            distance=self.distance,
        )

    def resume(self, standing: Standing) -> None:
        """Continue from the output of ``standing``."""
        self.step, self.losses = standing.step, list(standing.losses)
        self.first_loss = standing.first_loss
        self.best_loss, self.best_step = standing.best_loss, standing.best_step
        self.messages, self.unsaid = list(standing.messages), list(standing.unsaid)
        self.bad.fill_(standing.bad)
        self.setbacks, self.rate_factor = standing.setbacks, standing.rate_factor
        self.distance = standing.distance
