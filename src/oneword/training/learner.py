"""One job in a slot: its rows, its optimiser, its fixed batch, its record, and its verdicts.

A learner knows nothing of its neighbours; the loop asks it for a batch, hands it a gradient, and
asks it to judge a score. All of it that a step changes can be copied and put back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneword._devices import sent
from oneword._version import __version__
from oneword.concepts.concept import OUTPUT_VECTORS, ROWS, Concept
from oneword.config.runs import plain_settings
from oneword.models.contract import Backbone, Moments
from oneword.training.draws import Draws, evaluation_draws, step_draws
from oneword.training.job import Job, JobError, Progress, Result, Status, below, encoder_of
from oneword.training.parts import AVERAGE, Parts, TimestepsPart, Words
from oneword.training.rates import effective_learning_rate, is_fused, schedule
from oneword.training.samples import Batch, Choices, Samples


_ENCODE_CHUNK = 8  # pictures through the VAE at once; bounds memory
GUARD_MIN_STEPS = 100  # shorter runs are trials: they are never called fruitless
GUARD_MARGIN = 1e-3  # least relative fall of the fixed loss that counts as learning


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


def slot_token(slot: int) -> str:
    """Placeholder that stands for the word of a slot while it trains."""
    return f"<slot-{slot}>"


class Live:
    """A word that is being learned, for ``injected``: its tensors are those of the moment."""

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
    """A job in a slot: its rows, its optimiser, its fixed batch and its record."""

    def __init__(
        self, backbone: Backbone, job: Job, parts: Parts, *, index: int, slot: int
    ) -> None:
        """Read the job and make its fixed batch.

        Args:
            backbone: The frozen model.
            job: What to learn.
            parts: The loop's.
            index: Place of the job among all jobs.
            slot: Place in the batch; its token stands for the word while it trains.

        Raises:
            UserError: the job cannot be trained as it was given.
        """
        self.backbone, self.job, self.index, self.slot = backbone, job, index, slot
        self.config = self.job.config.resolved(self.backbone.family)
        self.form, self.after = parts.form(self.config), parts.after
        self.token = slot_token(slot)
        self.others: tuple[str, ...] = ()
        self.step = self.setbacks = 0
        self.rate_factor = 1.0
        self.losses: list[tuple[int, float]] = []
        self.best_loss, self.best_step, self.distance = math.inf, 0, 0.0
        self.messages: list[str] = []
        self.unsaid: list[str] = []
        self.ranking: dict[str, float] = {}
        self.dead: str | None = None
        self.bad = torch.zeros((), dtype=torch.bool, device=self.backbone.device)
        prompts = parts.prompts or self.form.prompts
        self.sentences = [
            c if isinstance(c, Choices) else Choices(tuple(c)) for c in prompts(job, self.config)
        ]
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
        self.spreads = {name: v.std() for name, v in self.backbone.vocabularies.items()}
        self.fixed = self.batch(draws, draws.times, alone=True)

    def _check(self) -> None:
        name, count = self.job.name, len(self.job.pictures)
        if count == 0:
            raise JobError(f"Job {name!r} needs at least one picture, got none.")
        if len(self.sentences) != count or not all(c.sentences for c in self.sentences):
            raise JobError(
                f"The prompts of job {name!r} must hold one or more sentences for each of its "
                f"{count} pictures, got {[len(choices.sentences) for choices in self.sentences]}."
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
        return self.config.max_train_steps

    @property
    def is_due(self) -> bool:
        """Whether the fixed batch is to be scored now."""
        return self.step % self.config.evaluation_steps == 0 or self.step >= self.max_steps

    def say(self, message: str) -> None:
        """Leave a message for the person."""
        self.messages.append(message)
        self.unsaid.append(message)

    def start(self, initial: dict[str, Tensor]) -> None:
        """Place the initial rows and a fresh optimiser."""
        config, device = self.config, self.backbone.device
        self.initial = {n: v.detach().to(device, torch.float32) for n, v in initial.items()}
        chosen = config.train_encoders or tuple(self.backbone.vocabularies)
        own = {n: v for n, v in self.initial.items() if encoder_of(n) in chosen}
        if not own:
            raise JobError(
                f"Text encoders that are trained must have output which the model reads token by "
                f"token, got {', '.join(chosen)}, of which it reads none; name one of "
                f"{', '.join(sorted({encoder_of(n) for n in self.initial}))}."
            )
        self.rows = {n: nn.Parameter(v.clone()) for n, v in own.items()}
        self.kept = {n: v for n, v in self.initial.items() if n not in own}
        self.memory: dict[str, Tensor] = {}
        words = self.words()
        self.others = tuple(words.others)
        if words.kind == OUTPUT_VECTORS:
            # as large a step in units of the vectors' own spread as rows take in theirs
            relative = {n: self.rates[encoder_of(n)][1] for n in self.initial}
            self.rates = {n: (r * float(self.initial[n].std()), r) for n, r in relative.items()}
        self.best = {n: p.detach().clone() for n, p in self.rows.items()}
        self.moments = {
            name: {
                # the fused step wants its count beside the rows
                "step": torch.zeros((), device=device if is_fused(device) else None),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for name, parameter in self.rows.items()
        }
        self.good = self.trained()

    def words(self) -> Words:
        """What the tensors are in prompts now."""
        return self.form.words(self.rows | self.kept, self.config, self.step)

    def moving(self) -> dict[str, nn.Parameter]:
        """What takes part in training at this step."""
        resting = self.words().resting
        return {name: p for name, p in self.rows.items() if name not in resting}

    @property
    def is_still(self) -> bool:
        """Whether there is nothing to train."""
        last = self.form.words(self.rows | self.kept, self.config, self.max_steps)
        return last.resting >= self.rows.keys()

    def fill(self, sentence: str) -> str:
        """A sentence with the slot's own words in it."""
        sentence = sentence.replace("{}", self.token)
        for name in self.others:
            sentence = sentence.replace(f"{{{name}}}", self.token_of(name))
        return sentence

    def token_of(self, name: str) -> str:
        """Placeholder of a further word."""
        return f"{self.token[:-1]}-{name}>"

    def trained(self) -> dict[str, Tensor]:
        """A copy of everything that a step changes."""
        copies = {f"rows/{name}": p.detach().clone() for name, p in self.rows.items()}
        copies |= {f"memory/{name}": value.clone() for name, value in self.memory.items()}
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
        memory = below(trained, "memory/")
        self.memory = {n: v.to(self.backbone.device, copy=True) for n, v in memory.items()}

    def batch(self, draws: Draws, times: Tensor, *, alone: bool = False) -> Batch:
        """Noise the pictures that the draws name; ``alone``: no further words in the sentences."""
        backbone, device = self.backbone, self.backbone.device
        rows = draws.pictures + len(self.job.pictures) * draws.flips
        places = sent(rows, device)
        x0 = self.posterior[places].sample(sent(draws.posterior_noise, device))
        noise = sent(draws.noise, device)
        t = backbone.sample_t(sent(times, device), self.latent_shape[1:])
        x_t = backbone.add_noise(x0, noise, t)
        choices = [self.sentences[picture] for picture in draws.pictures.tolist()]
        sentences = [
            c.at(u, alone=alone) for c, u in zip(choices, draws.sentences.tolist(), strict=True)
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
        target, away = backbone.target(x0, noise, t), self.form.against
        if away is None:
            return Batch(sentences, target, samples)
        against = [away(sentence, self.config) for sentence in sentences]
        return Batch(sentences, target, samples, against, self.config.training_guidance_scale)

    def next_batch(self, timesteps: TimestepsPart) -> Batch:
        """The samples of the learner's own next step."""
        draws = step_draws(
            self.config.seed,
            self.step,
            self.config.train_batch_size,
            len(self.job.pictures),
            self.latent_shape,
            random_flip=self.config.random_flip,
        )
        return self.batch(draws, timesteps(draws.times, self.config))

    def rate(self, name: str, step: int) -> float:
        """Absolute rate of a tensor at a step: its own, or that of its text encoder."""
        absolute, _ = self.rates[name if name in self.rates else encoder_of(name)]
        return absolute * self.rate_factor * schedule(self.config, step)

    def checked(self, loss: Tensor, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients for a step, without waiting for the device; ``None``: it takes no part.

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
            alive = {encoder_of(n) for n, g in zip(self.rows, given, strict=True) if g.any()}
            self.dead = next((e for e in map(encoder_of, self.rows) if e not in alive), None)
        resting = self.words().resting
        return [
            None if name in resting else torch.where(finite, gradient, 0.0)
            for name, gradient in zip(self.rows, given, strict=True)
        ]

    @torch.no_grad()
    def stepped(self) -> None:
        """Finish the step that ``update`` has made."""
        for parameter in self.rows.values():  # a rate so high that the rows overflow
            self.bad |= ~parameter.isfinite().all()
            parameter.nan_to_num_(0.0, 0.0, 0.0)
        moving = self.moving()
        for follow in self.after:
            follow(moving, self.memory, self.spreads, self.config, self.step)
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
            self.max_steps >= GUARD_MIN_STEPS
            and 2 * self.step >= self.max_steps
            and self.best_loss > first * (1 - GUARD_MARGIN)
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
        words = self.words()
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
            rows={name: rows.detach() for name, rows in words.rows.items()},
            token=self.token,
            negative_prompt=self.token_of(words.negative) if words.negative else "",
            message=message,
        )

    def live(self) -> list[Live]:
        """The words under the slot's own placeholders, for ``injected``."""
        return [Live(self), *(Live(self, name) for name in self.others)]

    def result(self, status: Status, reason: str) -> Result:
        """The end of the job, with the rows that its ``keep`` names."""
        if self.bad:
            self.restore(self.good)
        best = self.config.keep == "best" and bool(self.losses)
        step = self.best_step if best else self.step
        if status == "diverged" and self.losses and not best:
            step = self.losses[-1][0]
        tensors = {n: p.detach().clone() for n, p in self.rows.items()}
        if best:
            tensors = self.best
        elif self.config.keep == "average":
            tensors |= below(self.memory, AVERAGE)
        words = self.form.words(tensors | self.kept, self.config, step)
        concept = Concept(
            placeholder_token=self.config.placeholder_token,
            rows=dict(words.rows),
            kind=words.kind,
            tensors=dict(words.tensors),
            provenance={
                "portable": words.kind == ROWS,
                "base_model": self.backbone.name,
                "family": self.backbone.family,
                "pool": self.backbone.pool,
                "initializer_token": self.config.initializer_token,
                "initializer_losses": self.ranking,
                "config": plain_settings(self.config),
                "learning_rate": {
                    n: {"absolute": a, "relative": r} for n, (a, r) in self.rates.items()
                },
                "steps": step,
                "initial_loss": self.losses[0][1] if self.losses else None,
                # the average itself was not scored
                "loss": None if self.config.keep == "average" else dict(self.losses).get(step),
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
