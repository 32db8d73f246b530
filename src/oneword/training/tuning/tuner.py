"""The loop that changes a model's weights, one concept at a time; the methods beside it call it.

It trains changes rather than weights (``deltas.py``), so that what it saves is what a concept file
holds, and the model is its old self as soon as the loop ends. The pictures, the sentences, the
draws and the fixed batch are those of the word's own loop (``learner.py``): losses compare.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from oneword._typing import Pixels
from oneword._version import __version__
from oneword.concepts import deltas
from oneword.concepts.concept import Concept
from oneword.config.inversion import ResolvedConfig
from oneword.config.runs import plain_settings
from oneword.images import from_uint8, read_folder
from oneword.models.contract import Backbone
from oneword.models.speed.compiled import aside
from oneword.models.speed.narrow_cpu import widened
from oneword.prompts import fill
from oneword.training import extensions
from oneword.training.job import Job, JobError, Progress, Result, Status, below
from oneword.training.learner import GUARD_MARGIN, GUARD_MIN_STEPS, Learner
from oneword.training.loop import HALF_SCALE
from oneword.training.parts import OnStep, Parts, PromptsPart, squared_error
from oneword.training.prediction import predictions, scoring_chunk
from oneword.training.rates import schedule
from oneword.training.samples import Batch
from oneword.training.state import Checkpoint, State
from oneword.training.tuning.changes import compact, denoiser_of
from oneword.training.tuning.prior import class_pictures
from oneword.vocabulary.inject import injected
from oneword.vocabulary.vocabulary import initial_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a method begins with."""

    rows: dict[str, Tensor]
    """The word, by text encoder."""
    num_learned: int = 0
    """How many of its first vectors learn; the others stay as they are."""
    deltas: dict[str, Tensor]
    """Changes that learn, float32; together they must change nothing yet."""
    class_prompt: str | None = None
    """What the class pictures show, in a sentence; ``None``: no prior preservation."""
    first_step: int = 0
    """Steps that the word has behind it."""
    losses: Sequence[tuple[int, float]] = ()
    """Of those steps."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What the concept's provenance says besides."""


# --- what is tuned -------------------------------------------------------------------------------


# --- the loop ------------------------------------------------------------------------------------


def check(backbone: Backbone, config: ResolvedConfig) -> None:
    """Refuse settings that a setup of this folder cannot work with, before anything costly.

    Raises:
        JobError: the word is not to be of rows.
        PlaceholderError: the model does not know the rare token.
        DeltaError: the denoiser's weights are packed, or not on the device.
    """
    deltas.check_whole(denoiser_of(backbone)[1])
    if config.form != "rows":
        raise JobError(
            f"The setup {config.setup} must have a word of rows, got the form {config.form!r}; "
            "leave --form out."
        )
    if config.tuning.rare_token is not None:
        for vocabulary in backbone.vocabularies.values():
            initial_rows(vocabulary, config.tuning.rare_token, 1)


def learner_of(backbone: Backbone, job: Job) -> Learner:
    """The job's pictures and sentences, its draws and its fixed batch.

    Raises:
        JobError: the job cannot be trained as it was given.
    """
    check(backbone, job.config.resolved(backbone.family))
    return Learner(backbone, job, _parts(), index=0, slot=0)


def _parts(prompts: PromptsPart | None = None) -> Parts:
    """What a learner is told that only hands out batches."""
    return Parts(
        form=extensions.form,
        rows=None,
        prompts=prompts,
        timesteps=extensions.TIMESTEPS,
        loss=squared_error,
        penalties=(),
        after=(),
        stop=extensions.STOP,
        on_step=None,
        checkpoint=None,
    )


def ended(job: Job, state: State | None) -> Result | None:
    """The result that a state holds, where its run has ended."""
    if state is None or not state.info["done"]:
        return None
    return Result.resume(job, below(state.tensors, "0/"), state.info["done"][0])


def tune(
    backbone: Backbone,
    learner: Learner,
    start: Start,
    *,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Learn changes to the denoiser's weights, and the first vectors of the word with them.

    The loss is the word's own, plus ``prior_loss_weight`` times the same of as many class pictures
    under ``start.class_prompt``, which keep the model from forgetting the class.

    Args:
        backbone: The model; it is its old self on return, by exception too.
        learner: Of the job, from ``learner_of``.
        start: What the method begins with.
        on_step: As in ``invert_many``; steps count on from ``start.first_step``.
        checkpoint: As in ``invert_many``; a resumed run ends with the same bits.

    Raises:
        UserError: the class pictures cannot be read or drawn.

    Source:
        The prior term: Ruiz et al. 2022, arXiv:2208.12242, equation 2.
    """
    tuner = _Tuner(backbone, learner, start, on_step, checkpoint)
    # a compiled denoiser has the weights of before, and gradients for its inputs alone
    with aside(backbone), deltas.applied(backbone.pipeline, [tuner.deltas], trainable=True) as live:
        word = Concept(placeholder_token=learner.token, rows=dict(tuner.rows), provenance={})
        with injected(backbone, [word]), widened(backbone):
            return tuner.run(live)


_RECORD = ("step", "first_loss", "losses", "best_loss", "best_step", "messages", "unsaid")


class _Tuner:
    """Changes and rows, their optimiser, and the record of a run."""

    def __init__(
        self,
        backbone: Backbone,
        learner: Learner,
        start: Start,
        on_step: OnStep | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.backbone, self.learner, self.start = backbone, learner, start
        self.on_step, self.checkpoint = on_step, checkpoint
        self.config, self.tuning = learner.config, learner.config.resolved_tuning
        device = backbone.device
        self.rows = {
            n: nn.Parameter(
                r.detach().to(device, torch.float32, copy=True), requires_grad=start.num_learned > 0
            )
            for n, r in start.rows.items()
        }
        self.deltas = {n: nn.Parameter(d.to(device)) for n, d in start.deltas.items()}
        self.initial = self._copies()
        self.step = 0
        self.losses: list[tuple[int, float]] = list(start.losses)
        self.first_loss = self.best_loss = math.inf
        self.best_step = start.first_step
        self.best = self.initial
        self.messages: list[str] = list(learner.messages)
        self.unsaid: list[str] = list(learner.unsaid)
        self.bad = torch.zeros((), dtype=torch.bool, device=device)
        self.class_pictures: Tensor | None = None  # uint8, as a file would hold them
        self.prior: Learner | None = None
        self.optimizer = self._optimizer()
        state = checkpoint.load() if checkpoint else None
        if state is not None and "tuning" in state.info:
            self._resume(state)

    # what learns

    def _learning(self) -> dict[str, nn.Parameter]:
        words = self.rows if self.start.num_learned else {}
        return {f"rows/{n}": p for n, p in words.items()} | {
            f"deltas/{n}": p for n, p in self.deltas.items()
        }

    def _copies(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self._learning().items()}

    def _optimizer(self) -> torch.optim.AdamW:
        config = self.config
        optimizer = torch.optim.AdamW(
            [{"params": [parameter]} for parameter in self._learning().values()],
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            # of a change, decay is a pull to the model as it was; the methods use none
            weight_decay=0.0,
            foreach=False,
        )
        for parameter in self._learning().values():
            optimizer.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return optimizer

    def _rate(self, name: str, step: int) -> float:
        kind, _, rest = name.partition("/")
        rate = self.learner.rates[rest][0] if kind == "rows" else self.tuning.tuning_learning_rate
        own = dataclasses.replace(self.config, max_train_steps=self._total)
        return rate * schedule(own, step)

    @property
    def _total(self) -> int:
        return self.tuning.tuning_steps

    # the run

    def run(self, live: deltas.Applied) -> Result:
        """Train to the end, or to an interruption."""
        live.refresh()
        verdict: tuple[Status, str] | None = None
        try:
            if math.isinf(self.first_loss):
                verdict = self._score()
                self.first_loss = self.best_loss
                if not self.start.first_step:  # the word's own end was told of before
                    verdict = self._report(evaluated=True) or verdict
            while verdict is None and self.step < self._total:
                self._train(live)
                due = self._is_due()
                verdict = self._score() if due else None
                verdict = self._report(evaluated=due) or verdict
                if self.checkpoint and verdict is None and self.step % self.checkpoint.steps == 0:
                    self.checkpoint.save(self._state())
        except KeyboardInterrupt:
            if self.checkpoint:
                self.checkpoint.save(self._state())
            return self._result("interrupted", "stopped before its end")
        result = self._result(*(verdict or self._verdict()))
        if self.checkpoint:
            self.checkpoint.save(state_of(result))
        return result

    def _is_due(self) -> bool:
        return self.step % self.config.evaluation_steps == 0 or self.step >= self._total

    def _train(self, live: deltas.Applied) -> None:
        words: list[tuple[Callable[[str], str], Batch]] = []
        self.learner.step = self.start.first_step + self.step
        words.append((self.learner.fill, self.learner.next_batch(extensions.TIMESTEPS)))
        prompt = self.start.class_prompt
        if prompt is not None:
            if self.prior is None:
                self.prior = self._prior()
            self.prior.step = self.step
            batch = self.prior.next_batch(extensions.TIMESTEPS)
            words.append((partial(fill, placeholder_token=prompt), batch))
        found = predictions(self.backbone, words)
        losses = [
            squared_error(prediction, batch.target, batch.samples).mean()
            for prediction, (_, batch) in zip(found, words, strict=True)
        ]
        loss = losses[0]
        for prior in losses[1:]:
            loss = loss + self.tuning.prior_loss_weight * prior
        scale = HALF_SCALE if self.backbone.dtype == torch.float16 else 1.0
        learning = self._learning()
        leaves = [
            live.leaves[name.removeprefix("deltas/")] if name.startswith("deltas/") else parameter
            for name, parameter in learning.items()
        ]
        gradients = torch.autograd.grad(loss * scale, leaves, allow_unused=True)
        self._update(learning, loss, [None if g is None else g / scale for g in gradients])
        live.refresh()

    def _update(
        self,
        learning: Mapping[str, nn.Parameter],
        loss: Tensor,
        gradients: Sequence[Tensor | None],
    ) -> None:
        """One AdamW step; where a number is not finite, the gradient counts as zero."""
        given = [
            torch.zeros_like(parameter) if gradient is None else gradient.to(parameter.dtype)
            for parameter, gradient in zip(learning.values(), gradients, strict=True)
        ]
        finite = torch.stack([loss.detach().isfinite(), *(g.isfinite().all() for g in given)]).all()
        self.bad |= ~finite
        for (name, parameter), group, gradient in zip(
            learning.items(), self.optimizer.param_groups, given, strict=True
        ):
            group["lr"] = self._rate(name, self.step)
            if name.startswith("rows/"):
                gradient[self.start.num_learned :] = 0.0
            parameter.grad = torch.where(finite, gradient, 0.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    @torch.no_grad()
    def _score(self) -> tuple[Status, str] | None:
        """Score the fixed batch; an ending where it is not finite."""
        fixed = self.learner.fixed
        (found,) = predictions(
            self.backbone, [(self.learner.fill, fixed)], scoring_chunk([self.learner])
        )
        loss = float(squared_error(found, fixed.target, fixed.samples).mean())
        step = self.start.first_step + self.step
        if self.bad or not math.isfinite(loss):
            return "diverged", (
                f"the loss or its gradient was not finite by step {step}. Try a lower "
                f"--tuning-learning-rate (now {self.tuning.tuning_learning_rate:.3g})."
            )
        if not self.losses or self.losses[-1][0] != step:  # the word's own end was scored before
            self.losses.append((step, loss))
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, step
            self.best = self._copies()
        return None

    def _verdict(self) -> tuple[Status, str]:
        first = self.first_loss
        if self._total >= GUARD_MIN_STEPS and self.best_loss > first * (1 - GUARD_MARGIN):
            return "nothing-learned", (
                f"after {self._total} steps of tuning the loss on the fixed batch has not fallen: "
                f"{self.best_loss:.5g} at best, {first:.5g} before. Try another "
                f"--tuning-learning-rate (now {self.tuning.tuning_learning_rate:.3g})."
            )
        return "finished", ""

    def _report(self, *, evaluated: bool) -> tuple[Status, str] | None:
        if self.on_step is None:
            return None
        config = dataclasses.replace(
            self.config, max_train_steps=self.start.first_step + self._total
        )
        message, self.unsaid = "\n".join(self.unsaid), []
        progress = Progress(
            job=self.learner.job,
            config=config,
            step=self.start.first_step + self.step,
            evaluated=evaluated,
            losses=self.losses,
            best_loss=self.best_loss,
            best_step=self.best_step,
            distance=self._distance(),
            learning_rate=self.tuning.tuning_learning_rate,
            rows={name: parameter.detach() for name, parameter in self.rows.items()},
            token=self.learner.token,
            message=message,
        )
        return ("stopped", "on_step asked for it") if self.on_step(progress) == "stop" else None

    def _distance(self) -> float:
        """How far the word has moved, relative to its initial norm."""
        start = self.start.rows
        moved = sum(
            float((p.detach().cpu() - start[n].cpu()).square().sum()) for n, p in self.rows.items()
        )
        return math.sqrt(moved / sum(float(r.square().sum()) for r in start.values()))

    # the class

    def _prior(self) -> Learner:
        """The class pictures as a job of their own."""
        if self.class_pictures is None:
            drawn = (self._class_pixels().clamp(-1, 1) + 1) * 127.5
            self.class_pictures = drawn.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        pixels = from_uint8(self.class_pictures.numpy())
        job = Job(
            name="class",
            pictures=pixels,
            # draws unlike the word's own
            config=dataclasses.replace(self.config, seed=self.config.seed ^ 0x5EED),
        )
        # the word of a class picture's sentence is the whole of it
        parts = _parts(lambda job, _: [("{}",)] * len(job.pictures))
        return Learner(self.backbone, job, parts, index=1, slot=1)

    def _class_pixels(self) -> Pixels:
        tuning, side = self.tuning, self.learner.job.pictures.shape[-1]
        if tuning.class_data_dir is not None:
            return read_folder(tuning.class_data_dir, resolution=side).pixels
        assert self.start.class_prompt is not None
        return class_pictures(
            self.backbone, self.start.class_prompt, tuning.num_class_images, self.config.seed, side
        )

    # its end and its state

    def _result(self, status: Status, reason: str) -> Result:
        best = self.config.keep == "best" and not math.isinf(self.best_loss)
        kept = self.best if best else self._copies()
        step = self.best_step if best else self.start.first_step + self.step
        rows = {n: r.detach().clone() for n, r in self.rows.items()} | below(kept, "rows/")
        tuning = {
            "tuned_weights": self.tuning.tuned_weights,
            "num_weights": sum(d.numel() for d in self.deltas.values()),
            "steps": step - self.start.first_step,
            "learning_rate": self.tuning.tuning_learning_rate,
            "class_prompt": self.start.class_prompt,
        }
        losses = dict(self.losses)
        concept = Concept(
            placeholder_token=self.config.placeholder_token,
            rows=rows,
            deltas=compact(below(kept, "deltas/")),
            provenance={
                "base_model": self.backbone.name,
                "family": self.backbone.family,
                "pool": self.backbone.pool,
                "initializer_token": self.config.initializer_token,
                "config": plain_settings(self.config),
                "steps": step,
                "initial_loss": self.losses[0][1] if self.losses else None,
                "loss": losses.get(step),
                "status": status,
                "created_by": f"oneword {__version__}",
                "tuning": tuning,
                **self.start.provenance,
            },
        )
        return Result(
            job=self.learner.job,
            status=status,
            concept=concept.detached(),
            steps=self.start.first_step + self.step,
            best_step=self.best_step,
            losses=self.losses,
            reason=reason,
            messages=self.messages,
        )

    def _state(self) -> State:
        tensors = {n: p.detach() for n, p in self._learning().items()}
        for name, parameter in self._learning().items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value
        if self.config.keep == "best":
            tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"word/{name}": rows for name, rows in self.start.rows.items()}
        if self.class_pictures is not None:
            tensors["class"] = self.class_pictures
        start = {
            name: getattr(self.start, name)
            for name in ("class_prompt", "first_step", "losses", "provenance", "num_learned")
        }
        record = {name: getattr(self, name) for name in _RECORD}
        record["bad"] = bool(self.bad)
        record["initializer_token"] = self.config.initializer_token
        step = self.start.first_step + self.step
        return State(
            {f"0/{name}": value.detach().cpu() for name, value in tensors.items()},
            _info(self.learner.job, step)
            | {"active": [{"step": step}], "tuning": record, "start": start},
        )

    @torch.no_grad()
    def _resume(self, state: State) -> None:
        tensors, record = below(state.tensors, "0/"), state.info["tuning"]
        for name, parameter in self._learning().items():
            parameter.copy_(tensors[name])
            for key, value in self.optimizer.state[parameter].items():
                value.copy_(tensors[f"{key}/{name}"])
        if self.config.keep == "best":
            device = self.backbone.device
            self.best = {n: tensors[f"best/{n}"].to(device) for n in self._learning()}
        for name in _RECORD:
            setattr(self, name, record[name])
        self.losses = [(int(step), float(loss)) for step, loss in record["losses"]]
        self.bad.fill_(record["bad"])
        self.class_pictures = tensors.get("class")


def begun(state: State | None, learner: Learner) -> Start | None:
    """What a run under way began with, but for its changes.

    The learner takes over the initializer that was chosen then.
    """
    if state is None or "tuning" not in state.info:
        return None
    learner.config = dataclasses.replace(
        learner.config, initializer_token=state.info["tuning"]["initializer_token"]
    )
    start = state.info["start"]
    return Start(
        rows=below(state.tensors, "0/word/"),
        deltas={},
        **(start | {"losses": [(int(step), float(loss)) for step, loss in start["losses"]]}),
    )


def _info(job: Job, step: int) -> dict[str, Any]:
    """A state's plain part, in the shape that run folders read."""
    return {"jobs": [job.name], "rounds": step, "queue": [], "active": [], "done": []}


def state_of(result: Result) -> State:
    """The state of a run that has ended."""
    tensors, plain = result.state()
    return State(
        {f"0/{name}": value for name, value in tensors.items()},
        _info(result.job, result.steps) | {"done": [plain | {"index": 0}]},
    )
