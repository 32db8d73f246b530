"""One job in a slot: its rows, its optimiser, its fixed batch, its record, and its verdicts.

A learner knows nothing of its neighbours; the loop asks it for a batch, hands it a gradient, and
asks it to judge a score. All of it that a step changes can be copied and put back.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw

from oneword import __version__
from oneword.backbones.base import Backbone, Moments, sent
from oneword.concept import INPUT_ROWS, OUTPUT_VECTORS, Concept
from oneword.draws import Draws, evaluation_draws, step_draws
from oneword.parts import (
    Batch,
    Job,
    JobError,
    Progress,
    PromptsPart,
    Result,
    Samples,
    Status,
    TimestepsPart,
    below,
    effective_learning_rate,
    schedule,
)


_ENCODE_CHUNK = 8  # pictures through the VAE at once; bounds memory
_GUARD_MIN_STEPS = 100  # shorter runs are trials: they are never called fruitless
_GUARD_MARGIN = 1e-3  # least relative fall of the fixed loss that counts as learning


_RECORD = (
    "step",
    "setbacks",
    "rate_factor",
    "losses",
    "best_loss",
    "best_step",
    "distance",
    "messages",
    "unsaid",
    "ranking",
)
"""Plain attributes of a learner that its state carries."""


class Learner:
    """A job in a slot: its rows, its optimiser, its fixed batch and its record."""

    def __init__(
        self, backbone: Backbone, job: Job, prompts: PromptsPart, *, index: int, slot: int
    ) -> None:
        """Read the job and make its fixed batch.

        Args:
            backbone: The frozen model.
            job: What to learn.
            prompts: The loop's part of that name.
            index: Place of the job among all jobs.
            slot: Place in the batch; its token stands for the word while it trains.

        Raises:
            UserError: the job cannot be trained as it was given.
        """
        self.backbone, self.job, self.index, self.slot = backbone, job, index, slot
        self.config = self.job.config.resolved(self.backbone.family)
        self.token = f"<slot-{slot}>"
        self.step = self.setbacks = 0
        self.rate_factor = 1.0
        self.losses: list[tuple[int, float]] = []
        self.best_loss, self.best_step, self.distance = math.inf, 0, 0.0
        self.messages: list[str] = []
        self.unsaid: list[str] = []
        self.ranking: dict[str, float] = {}
        self.dead: str | None = None
        self.bad = torch.zeros((), dtype=torch.bool, device=self.backbone.device)
        self.sentences = [tuple(choices) for choices in prompts(job, self.config)]
        self._check()
        height, width = self.job.pictures.shape[-2:]
        whole = torch.tensor([[height, width, 0, 0]] * len(self.job.pictures))
        self.crops = whole if self.job.crops is None else self.job.crops
        self.posterior = self._encode()
        self.masks = self._shrink_masks()
        self.rates = {
            name: effective_learning_rate(self.config, vocabulary)
            for name, vocabulary in self.backbone.vocabularies.items()
        }
        draws = evaluation_draws(
            self.config.seed,
            self.config.num_evaluation_samples,
            len(self.job.pictures),
            self.latent_shape,
        )
        self.fixed = self.batch(draws, draws.times)

    def _check(self) -> None:
        name, count = self.job.name, len(self.job.pictures)
        if count == 0:
            raise JobError(f"Job {name!r} needs at least one picture, got none.")
        if len(self.sentences) != count or not all(self.sentences):
            raise JobError(
                f"The prompts of job {name!r} must hold one or more sentences for each of its "
                f"{count} pictures, got {[len(choices) for choices in self.sentences]}."
            )
        unknown = set(self.config.train_encoders) - self.backbone.vocabularies.keys()
        if unknown:
            raise JobError(
                f"train_encoders must name text encoders of the model "
                f"({', '.join(self.backbone.vocabularies)}), got {', '.join(sorted(unknown))}."
            )
        if self.job.masks is not None and len(self.job.masks) != count:
            raise JobError(
                f"Job {name!r} needs one mask for each of its {count} pictures, got "
                f"{len(self.job.masks)}."
            )
        if self.job.crops is not None and self.job.crops.shape != (count, 4):
            raise JobError(
                f"Job {name!r} needs four numbers of crop for each of its {count} pictures, got "
                f"{tuple(self.job.crops.shape)}."
            )
        for sentence in sorted({s for choices in self.sentences for s in choices}):
            if "{}" not in sentence:
                raise JobError(
                    f"Every sentence of job {name!r} must hold '{{}}' where the new word stands, "
                    f"got {sentence!r}."
                )

    @torch.no_grad()
    def _encode(self) -> Moments:
        """Posterior of each picture, then of each mirror image."""
        pictures = self.job.pictures
        if self.config.random_flip:
            pictures = torch.cat([pictures, pictures.flip(-1)])
        parts = [self.backbone.encode_image(chunk) for chunk in pictures.split(_ENCODE_CHUNK)]
        return Moments(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts]))

    def _shrink_masks(self) -> Tensor | None:
        """The mask of each picture in latent cells, then of each mirror image."""
        masks = self.job.masks
        if masks is None:
            return None
        if self.config.random_flip:
            masks = torch.cat([masks, masks.flip(-1)])
        cells = F.interpolate(masks, self.latent_shape[1:], mode="area")
        return cells.to(self.backbone.device)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, h, w) of one sample."""
        channels, height, width = self.posterior.mean.shape[1:]
        return channels, height, width

    @property
    def max_steps(self) -> int:
        """Steps after which the job ends."""
        assert self.config.max_train_steps is not None
        return self.config.max_train_steps

    @property
    def is_due(self) -> bool:
        """Whether the fixed batch is to be scored now."""
        assert self.config.evaluation_steps is not None
        return self.step % self.config.evaluation_steps == 0 or self.step >= self.max_steps

    def say(self, message: str) -> None:
        """Leave a message for the person."""
        self.messages.append(message)
        self.unsaid.append(message)

    def start(self, initial: dict[str, Tensor]) -> None:
        """Place the initial rows and a fresh optimiser."""
        config, device = self.config, self.backbone.device
        self.initial = {n: v.detach().to(device, torch.float32) for n, v in initial.items()}
        chosen = config.train_encoders or tuple(self.initial)
        learns = {n: n in chosen or n.partition(".")[0] in chosen for n in self.initial}
        self.rows = {n: nn.Parameter(v.clone()) for n, v in self.initial.items() if learns[n]}
        self.kept = {n: v for n, v in self.initial.items() if not learns[n]}
        if not self.rows:
            raise JobError(
                f"Text encoders that are trained must have output which the model reads token by "
                f"token, got {', '.join(chosen)}, of which it reads none; name one of "
                f"{', '.join(sorted({n.partition('.')[0] for n in self.initial}))}."
            )
        if self.kind == OUTPUT_VECTORS:
            # as large a step in units of the vectors' own spread as rows take in theirs
            relative = {n: self.rates[n.partition(".")[0]][1] for n in self.initial}
            self.rates = {n: (r * float(self.initial[n].std()), r) for n, r in relative.items()}
        self.best = {n: p.detach().clone() for n, p in self.rows.items()}
        self.moments = {
            name: {
                # the fused step wants its count beside the rows
                "step": torch.zeros((), device=device if _is_fused(device) else None),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for name, parameter in self.rows.items()
        }
        self.good = self.trained()

    def trained(self) -> dict[str, Tensor]:
        """A copy of everything that a step changes."""
        copies = {f"rows/{name}": p.detach().clone() for name, p in self.rows.items()}
        for name, moments in self.moments.items():
            copies |= {f"{key}/{name}": value.clone() for key, value in moments.items()}
        return copies

    @torch.no_grad()
    def restore(self, trained: dict[str, Tensor]) -> None:
        """Undo every step since ``trained`` was copied."""
        for name, parameter in self.rows.items():
            parameter.copy_(trained[f"rows/{name}"])
            for key, value in self.moments[name].items():
                value.copy_(trained[f"{key}/{name}"])

    def batch(self, draws: Draws, times: Tensor) -> Batch:
        """Noise the pictures that the draws name."""
        backbone, device = self.backbone, self.backbone.device
        rows = draws.pictures + len(self.job.pictures) * draws.flips
        places = sent(rows, device)
        x0 = self.posterior[places].sample(sent(draws.posterior_noise, device))
        noise = sent(draws.noise, device)
        t = backbone.sample_t(sent(times, device), self.latent_shape[1:])
        x_t = backbone.add_noise(x0, noise, t)
        choices = [self.sentences[picture] for picture in draws.pictures.tolist()]
        sentences = [
            c[int(u * len(c))] for c, u in zip(choices, draws.sentences.tolist(), strict=True)
        ]
        samples = Samples(
            job=self.job,
            pictures=draws.pictures,
            flips=draws.flips,
            t=t,
            x0=x0,
            noise=noise,
            x_t=x_t,
            crops=self.crops[draws.pictures],
            mask=None if self.masks is None else self.masks[places],
        )
        return Batch(sentences, backbone.target(x0, noise, t), samples)

    def next_batch(self, timesteps: TimestepsPart) -> Batch:
        """The samples of the learner's own next step."""
        assert self.config.train_batch_size is not None
        draws = step_draws(
            self.config.seed,
            self.step,
            self.config.train_batch_size,
            len(self.job.pictures),
            self.latent_shape,
            random_flip=bool(self.config.random_flip),
        )
        return self.batch(draws, timesteps(draws.times, self.config))

    def rate(self, name: str, step: int) -> float:
        """Absolute rate of an encoder's rows at a step."""
        return self.rates[name][0] * self.rate_factor * schedule(self.config, step)

    def checked(self, loss: Tensor, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """The gradients for a step, without waiting for the device.

        Where a number is not finite the gradient counts as zero and ``bad`` is raised; the next
        scoring reads it and rolls back.
        """
        given = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self.rows.values(), gradients, strict=True)
        ]
        finite = torch.stack([loss.detach().isfinite(), *(g.isfinite().all() for g in given)]).all()
        self.bad |= ~finite
        if self.step == 0:
            self.dead = next(
                (n for n, g in zip(self.rows, given, strict=True) if not g.any()), None
            )
        return [torch.where(finite, gradient, 0.0) for gradient in given]

    @torch.no_grad()
    def stepped(self) -> None:
        """Count the step that ``update`` has made."""
        for parameter in self.rows.values():  # a rate so high that the rows overflow
            self.bad |= ~parameter.isfinite().all()
            parameter.nan_to_num_(0.0, 0.0, 0.0)
        self.step += 1

    def measures(self, loss: Tensor) -> Tensor:
        """What a scoring reads from the device, in one piece: loss, bad, distance."""
        moved = sum((p.detach() - self.initial[n]).square().sum() for n, p in self.rows.items())
        size = sum(self.initial[n].square().sum() for n in self.rows)
        assert isinstance(moved, Tensor)
        return torch.stack([loss.double(), self.bad.double(), (moved / size).sqrt().double()])

    def judge(self, loss: float, bad: bool, distance: float) -> tuple[Status, str] | None:
        """Record a scoring; an ending and its reason, or ``None`` to go on."""
        if bad or not math.isfinite(loss):
            return self._set_back()
        self.setbacks, self.distance = 0, distance
        self.losses.append((self.step, loss))
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.step
            self.best = {n: p.detach().clone() for n, p in self.rows.items()}
        self.good = self.trained()
        first = self.losses[0][1]
        if (
            self.max_steps >= _GUARD_MIN_STEPS
            and 2 * self.step >= self.max_steps
            and self.best_loss > first * (1 - _GUARD_MARGIN)
        ):
            rates = ", ".join(
                f"{absolute:.3g} ({relative:.3g} of the vocabulary's spread)"
                for absolute, relative in self.rates.values()
            )
            return "nothing-learned", (
                f"after {self.step} of {self.max_steps} steps the loss on the fixed batch has not "
                f"fallen: {self.best_loss:.5g} at best, {first:.5g} before training. Try a higher "
                f"learning rate (now {rates}) or another initializer token."
            )
        return ("finished", "") if self.step >= self.max_steps else None

    def _set_back(self) -> tuple[Status, str] | None:
        if not self.losses:
            return "diverged", (
                "the loss is not a number before the first step: the pictures or the model hold "
                "values that are not finite, or the compute type is too narrow (try dtype fp32)."
            )
        self.restore(self.good)
        self.bad.zero_()
        self.setbacks += 1
        if self.setbacks > 1:
            return "diverged", (
                f"the loss or its gradient was not finite by step {self.step}, a second time in a "
                f"row; the rows are those of step {self.losses[-1][0]}. Try a lower learning rate."
            )
        self.rate_factor /= 2
        self.say(
            f"The loss or its gradient was not finite by step {self.step}: back to the rows of "
            f"step {self.losses[-1][0]}, with the learning rate halved."
        )
        return ("finished", "") if self.step >= self.max_steps else None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which ``resume`` goes on."""
        tensors = self.trained()
        tensors |= {f"good/{key}": value for key, value in self.good.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"initial/{name}": value for name, value in self.initial.items()}
        return tensors, {
            "index": self.index,
            "slot": self.slot,
            "initializer_token": self.config.initializer_token,
            "bad": bool(self.bad),
            **{name: getattr(self, name) for name in _RECORD},
        }

    def resume(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Continue from what ``state`` gave."""
        device = self.backbone.device
        self.config = dataclasses.replace(self.config, initializer_token=info["initializer_token"])

        self.start(below(tensors, "initial/"))
        self.restore(dict(tensors))
        self.good = {
            key: value if key.startswith("step/") else value.to(device)
            for key, value in below(tensors, "good/").items()
        }
        self.best = {name: value.to(device) for name, value in below(tensors, "best/").items()}
        for name in _RECORD:
            setattr(self, name, info[name])
        self.losses = [(int(step), float(loss)) for step, loss in info["losses"]]
        self.bad.fill_(info["bad"])

    def progress(self, *, evaluated: bool) -> Progress:
        """What ``stop`` and ``on_step`` are told; messages are told once."""
        message, self.unsaid = "\n".join(self.unsaid), []
        return Progress(
            job=self.job,
            config=self.config,
            step=self.step,
            evaluated=evaluated,
            losses=self.losses,
            best_loss=self.best_loss,
            best_step=self.best_step,
            distance=self.distance,
            learning_rate=self.rate(next(iter(self.rows)), max(0, self.step - 1)),
            rows={name: parameter.detach() for name, parameter in self.rows.items()},
            token=self.token,
            message=message,
        )

    def live(self) -> Concept:
        """The rows under the slot's own placeholder, for ``injected``."""
        return Concept(
            placeholder_token=self.token,
            rows=self.rows | self.kept,
            kind=self.kind,
            provenance={"initializer_token": self.config.initializer_token},
        )

    @property
    def kind(self) -> str:
        """What is learned."""
        return OUTPUT_VECTORS if self.config.vectors_at == "output" else INPUT_ROWS

    def result(self, status: Status, reason: str) -> Result:
        """The end of the job, with the rows that its ``keep`` names."""
        if self.bad:
            self.restore(self.good)
        best = self.config.keep == "best" and bool(self.losses)
        step = self.best_step if best else self.step
        if status == "diverged" and self.losses and not best:
            step = self.losses[-1][0]
        concept = Concept(
            placeholder_token=self.config.placeholder_token,
            rows=(self.best if best else {n: p.detach().clone() for n, p in self.rows.items()})
            | self.kept,
            kind=self.kind,
            provenance={
                "portable": self.kind == INPUT_ROWS,
                "base_model": self.backbone.name,
                "family": self.backbone.family,
                "pool": self.backbone.pool,
                "initializer_token": self.config.initializer_token,
                "initializer_losses": self.ranking,
                "config": dataclasses.asdict(self.config),
                "learning_rate": {
                    n: {"absolute": a, "relative": r} for n, (a, r) in self.rates.items()
                },
                "steps": step,
                "initial_loss": self.losses[0][1] if self.losses else None,
                "loss": dict(self.losses).get(step),
                "status": status,
                "created_by": f"oneword {__version__}",
            },
        )
        return Result(
            job=self.job,
            status=status,
            concept=concept.detached(),
            steps=self.step,
            best_step=self.best_step,
            losses=self.losses,
            reason=reason,
            messages=self.messages,
        )


def _is_fused(device: torch.device) -> bool:
    return device.type == "cuda"


@torch.no_grad()
def update(learners: Sequence[Learner], gradients: Sequence[Sequence[Tensor]]) -> None:
    """One AdamW step of the rows of all learners at once.

    Rows with the same settings share a call, which on a GPU is one kernel.

    Args:
        learners: Who has trained.
        gradients: Of each learner's rows, as ``checked`` gave them.
    """
    groups: dict[tuple[Any, ...], list[tuple[Tensor, Tensor, dict[str, Tensor]]]] = defaultdict(
        list
    )
    for learner, own in zip(learners, gradients, strict=True):
        c = learner.config
        for (name, parameter), gradient in zip(learner.rows.items(), own, strict=True):
            rate = learner.rate(name, learner.step)
            settings = (rate, c.adam_beta1, c.adam_beta2, c.adam_epsilon, c.adam_weight_decay)
            groups[settings].append((parameter, gradient, learner.moments[name]))
    for (rate, beta1, beta2, epsilon, decay), members in groups.items():
        fused = _is_fused(members[0][0].device)
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
