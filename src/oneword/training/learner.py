"""One job in a slot: its rows and optimiser, with its batches and record.

A learner knows nothing of its neighbours. The loop asks it for a batch, gives it a gradient, and
asks it to judge a score. Everything that a step changes can be copied and restored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oneword._version import __version__
from oneword.concepts.concept import OUTPUT_VECTORS, ROWS, Concept, further_token
from oneword.config.runs import plain_settings
from oneword.microworld import weights
from oneword.models.contract import Backbone
from oneword.training.batches import Batches
from oneword.training.by_library import ByLibrary, check_optimizer
from oneword.training.encoder.use import origin
from oneword.training.fit import filled
from oneword.training.job import Job, JobError, Progress, Result, Status, below, encoder_of
from oneword.training.parts import AVERAGE, Parts, Words
from oneword.training.rates import effective_learning_rate, is_fused, schedule
from oneword.training.record import Record, Verdict
from oneword.training.state import Active


_LIBRARY = "optimizer/"  # prefix of a library's state among the trained tensors


def slot_token(slot: int) -> str:
    """Placeholder of a slot's word during training."""
    return f"<slot-{slot}>"


class Live:
    """A word that is being learned, for ``injected``, with its present tensors."""

    def __init__(self, learner: Learner, name: str = "") -> None:
        self.learner, self.name = learner, name
        self.placeholder_token = learner.token_of(name) if name else learner.token

    @property
    def kind(self) -> str:
        return ROWS if self.name else self.learner.words().kind

    @property
    def num_vectors(self) -> int:
        return len(next(iter(self.rows.values())))

    @property
    def rows(self) -> Mapping[str, Tensor]:
        words = self.learner.words()
        return words.others[self.name] if self.name else words.rows

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return {} if self.name else self.learner.words().tensors

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"initializer_token": self.learner.config.initializer_token}


class Learner:
    """A job in a slot: its rows, its optimiser, its batches and its record."""

    def __init__(
        self, backbone: Backbone, job: Job, parts: Parts, *, index: int, slot: int
    ) -> None:
        """Resolve the job's settings, read the job and make its fixed batch.

        Args:
            backbone: The frozen model.
            job: What to learn.
            parts: The loop's parts.
            index: Index of the job among all jobs.
            slot: Index in the batch; its token is the word's placeholder during training.

        Raises:
            UserError: the job cannot be trained as it was given.
        """
        self.backbone, self.job, self.index, self.slot = backbone, job, index, slot
        self.config = job.config.resolved(backbone.family)
        check_optimizer(self.config.optimizer)
        self.form, self.after = parts.form(self.config), parts.after
        self.origin = origin(backbone, self.config)
        self.token = slot_token(slot)
        self.others: tuple[str, ...] = ()
        self.ranking: dict[str, float] = {}
        self.dead: str | None = None
        self.record = Record(backbone.device, self.config.max_train_steps)
        self.batches = Batches(
            backbone,
            job,
            self.config,
            prompts=parts.prompts or self.form.prompts,
            against=self.form.against,
        )
        self.rates = {
            name: effective_learning_rate(self.config, vocabulary)
            for name, vocabulary in backbone.vocabularies.items()
        }
        self.spreads = {name: v.std() for name, v in backbone.vocabularies.items()}

    @property
    def step(self) -> int:
        """Steps done."""
        return self.record.step

    @property
    def is_due(self) -> bool:
        """Whether the fixed batch is due to be scored."""
        return self.record.is_due(self.config.evaluation_steps)

    @property
    def is_regular(self) -> bool:
        """Whether a run with more steps would also be scored at this step."""
        return self.step % self.config.evaluation_steps == 0

    def wants_steps(self, status: Status) -> bool:
        """Whether a job with this end could continue with more steps."""
        given_up = status == "nothing-learned" and self.dead is None
        return given_up or (status == "finished" and self.record.is_over)

    def start(self, initial: dict[str, Tensor]) -> None:
        """Set the initial rows and a new optimiser."""
        config, device = self.config, self.backbone.device
        self.initial = {n: v.detach().to(device, torch.float32) for n, v in initial.items()}
        chosen = config.train_encoders or tuple(self.backbone.vocabularies)
        own = {n: v for n, v in self.initial.items() if encoder_of(n) in chosen}
        if not own:
            raise JobError(
                f"Cannot train {', '.join(chosen)} because the model does not read their output "
                "token by token; name one of "
                f"{', '.join(sorted({encoder_of(n) for n in self.initial}))}."
            )
        self.rows = {n: nn.Parameter(v.clone()) for n, v in own.items()}
        self.frozen = {n: v for n, v in self.initial.items() if n not in own}
        self.memory: dict[str, Tensor] = {}
        words = self.words()
        self.others = tuple(words.others)
        if words.kind == OUTPUT_VECTORS and config.optimizer != "prodigy":
            # the same step in units of the vectors' own spread as rows have in theirs
            relative = {n: self.rates[encoder_of(n)][1] for n in self.initial}
            self.rates = {n: (r * float(self.initial[n].std()), r) for n, r in relative.items()}
        self.library = None if config.optimizer == "adamw" else ByLibrary(config, self.rows)
        self.moments = {
            name: {
                # the fused step needs its count on the rows' device
                "step": torch.zeros((), device=device if is_fused(device) else None),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for name, parameter in self.rows.items()
            if self.library is None
        }
        self.record.best, self.record.good = self.kept(), self.trained()

    def words(self) -> Words:
        """The words in prompts that the tensors give now."""
        return self.form.words(self.rows | self.frozen, self.config, self.step)

    def moving(self) -> dict[str, nn.Parameter]:
        """The tensors that take part in training at this step."""
        resting = self.words().resting
        return {name: p for name, p in self.rows.items() if name not in resting}

    @property
    def is_still(self) -> bool:
        """Whether there is nothing to train."""
        last = self.form.words(self.rows | self.frozen, self.config, self.config.max_train_steps)
        return last.resting >= self.rows.keys()

    def fill(self, sentence: str) -> str:
        """A sentence with the slot's own placeholders inserted."""
        return filled(sentence, self.token, self.others)

    def token_of(self, name: str) -> str:
        """Placeholder of an extra word."""
        return further_token(self.token, name)

    def kept(self) -> dict[str, Tensor]:
        """A copy of the rows."""
        return {name: p.detach().clone() for name, p in self.rows.items()}

    def trained(self) -> dict[str, Tensor]:
        """A copy of everything that a step changes."""
        copies = {f"rows/{name}": p.detach().clone() for name, p in self.rows.items()}
        copies |= {f"memory/{name}": value.clone() for name, value in self.memory.items()}
        for name, moments in self.moments.items():
            copies |= {f"{key}/{name}": value.clone() for key, value in moments.items()}
        if self.library is not None:
            copies |= {f"{_LIBRARY}{key}": value for key, value in self.library.tensors().items()}
        return copies

    @torch.no_grad()
    def restore(self, trained: dict[str, Tensor]) -> None:
        """Undo every step since ``trained`` was copied."""
        for name, parameter in self.rows.items():
            parameter.copy_(trained[f"rows/{name}"])
            for key, value in self.moments.get(name, {}).items():
                value.copy_(trained[f"{key}/{name}"])
        memory = below(trained, "memory/")
        self.memory = {n: v.to(self.backbone.device, copy=True) for n, v in memory.items()}
        if self.library is not None:
            self.library.restore(below(trained, _LIBRARY))

    def rate(self, name: str, step: int) -> float:
        """Absolute rate of a tensor at a step: its own, or its text encoder's."""
        absolute, _ = self.rates[name if name in self.rates else encoder_of(name)]
        return absolute * self.record.rate_factor * schedule(self.config, step)

    def checked(self, loss: Tensor, given: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients for a step, without waiting for the device; ``None`` for resting tensors.

        If a number is not finite, the gradient counts as zero, and the next scoring rolls back.
        """
        finite = self.record.check(loss, given)
        if self.step == 0:
            alive = {encoder_of(n) for n, g in zip(self.rows, given, strict=True) if g.any()}
            self.dead = next((e for e in map(encoder_of, self.rows) if e not in alive), None)
        resting = self.words().resting
        return [
            None if name in resting else torch.where(finite, gradient, 0.0)
            for name, gradient in zip(self.rows, given, strict=True)
        ]

    @torch.no_grad()
    def stepped(self) -> None:
        """Finish a step after ``update``."""
        for parameter in self.rows.values():  # a rate so high that rows overflow
            self.record.bad |= ~parameter.isfinite().all()
            parameter.nan_to_num_(0.0, 0.0, 0.0)
        moving = self.moving()
        for follow in self.after:
            follow(moving, self.memory, self.spreads, self.config, self.step)
        self.record.step += 1

    def measures(self, loss: Tensor) -> Tensor:
        """What a scoring reads from the device, in one tensor: loss, bad, distance."""
        moved = sum((p.detach() - self.initial[n]).square().sum() for n, p in self.rows.items())
        size = sum(self.initial[n].square().sum() for n in self.rows)
        assert isinstance(moved, Tensor)
        return torch.stack(
            [loss.double(), self.record.bad.double(), (moved / size).sqrt().double()]
        )

    def judge(self, loss: float, bad: bool, distance: float) -> Verdict | None:
        """Record what ``measures`` read; return an ending and its reason, or ``None``."""
        rates = ", ".join(
            f"{absolute:.3g} ({relative:.3g} of the vocabulary's spread)"
            for absolute, relative in self.rates.values()
        )
        return self.record.judge(loss, bad, distance, self, rates=rates)

    def state(self) -> Active:
        """The state for ``resume``."""
        tensors = self.trained()
        tensors |= {f"good/{key}": value for key, value in self.record.good.items()}
        tensors |= {f"best/{name}": value for name, value in self.record.best.items()}
        tensors |= {f"initial/{name}": value for name, value in self.initial.items()}
        return Active(
            index=self.index,
            slot=self.slot,
            initializer_token=self.config.initializer_token,
            record=self.record.standing(),
            ranking=self.ranking,
            tensors={name: value.cpu() for name, value in tensors.items()},
        )

    def resume(self, state: Active) -> None:
        """Continue from the output of ``state``."""
        device, tensors = self.backbone.device, state.tensors
        self.config = dataclasses.replace(self.config, initializer_token=state.initializer_token)
        self.ranking = state.ranking
        self.start(below(tensors, "initial/"))
        self.restore(tensors)
        self.record.resume(state.record)
        self.record.good = {
            key: value if key.startswith(("step/", _LIBRARY)) else value.to(device)
            for key, value in below(tensors, "good/").items()
        }
        self.record.best = {n: value.to(device) for n, value in below(tensors, "best/").items()}

    def progress(self, *, evaluated: bool) -> Progress:
        """The argument of ``stop`` and ``on_step``."""
        words = self.words()
        factor = 1.0 if self.library is None else self.library.factor
        return self.record.progress(
            self.job,
            self.config,
            evaluated=evaluated,
            learning_rate=self.rate(next(iter(self.rows)), max(0, self.step - 1)) * factor,
            rows=words.rows,
            word=self.saved,
            token=self.token,
            negative_prompt=self.token_of(words.negative) if words.negative else "",
        )

    def live(self) -> list[Live]:
        """The words with the slot's own placeholders, for ``injected``."""
        return [Live(self), *(Live(self, name) for name in self.others)]

    def saved(self) -> Concept:
        """The present word, or the average with ``keep`` "average", ready to be saved.

        If a number was not finite and is not rolled back yet, it is the word before that.
        """
        trained = self.record.good if self.record.bad else self.trained()
        tensors = below(trained, "rows/")
        if self.config.keep == "average":
            tensors |= below(trained, f"memory/{AVERAGE}")
        return self._concept(tensors, self.step, "saved")

    def result(self, status: Status, reason: str) -> Result:
        """The result of the job, with the rows that its ``keep`` selects."""
        record, losses = self.record, self.record.losses
        if record.bad:
            self.restore(record.good)
        best = self.config.keep == "best" and bool(losses)
        step = record.best_step if best else self.step
        if status == "diverged" and losses and not best:
            step = losses[-1][0]
        tensors = record.best if best else self.kept()
        if self.config.keep == "average":
            tensors |= below(self.memory, AVERAGE)
        return record.result(self.job, status, reason, self._concept(tensors, step, status))

    def _concept(self, tensors: Mapping[str, Tensor], step: int, status: str) -> Concept:
        """The trained word after a step, with its provenance."""
        losses = self.record.losses
        words = self.form.words({**tensors, **self.frozen}, self.config, step)
        concept = Concept(
            placeholder_token=self.config.placeholder_token,
            rows=dict(words.rows),
            kind=words.kind,
            tensors=dict(words.tensors),
            provenance={
                "portable": words.kind == ROWS,
                "base_model": self.backbone.name,
                "family": self.backbone.family,
                **weights.told(self.backbone.name),
                "pool": self.backbone.pool,
                "initializer_token": self.config.initializer_token,
                "initializer_losses": self.ranking,
                "config": plain_settings(self.config),
                "learning_rate": {
                    n: {"absolute": a, "relative": r} for n, (a, r) in self.rates.items()
                },
                "steps": step,
                "initial_loss": losses[0][1] if losses else None,
                # the average itself was not scored
                "loss": None if self.config.keep == "average" else dict(losses).get(step),
                "status": status,
                "created_by": f"oneword {__version__}",
            }
            | self.origin,
        )
        return concept.detached()
