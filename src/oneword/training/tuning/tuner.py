"""The loop that changes a model's weights, one concept at a time; this folder's methods call it.

It trains changes rather than weights (``deltas.py``), so that it saves what a concept file holds,
and the model is unchanged when the loop ends. Its batches and record are those of the word's own
loop (``batches.py``, ``record.py``), so losses are comparable.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from oneword._typing import Pixels
from oneword._version import __version__
from oneword.concepts import deltas
from oneword.concepts.concept import Concept
from oneword.config.checks import check_seeds
from oneword.config.inversion import ResolvedConfig
from oneword.config.runs import plain_settings
from oneword.images import from_uint8, read_folder
from oneword.microworld import weights
from oneword.models.contract import Backbone
from oneword.models.speed.compiled import aside
from oneword.models.speed.narrow_cpu import widened
from oneword.prompts import fill
from oneword.training import extensions
from oneword.training.batches import Batches, every_sentence
from oneword.training.fit import check_fit
from oneword.training.job import Job, JobError, Result, Status, below
from oneword.training.learner import slot_token
from oneword.training.loop import HALF_SCALE
from oneword.training.parts import OnStep, captions_or_templates, squared_error
from oneword.training.prediction import predictions, sample_losses, scoring_chunk
from oneword.training.rates import effective_learning_rate, schedule
from oneword.training.record import Record, Verdict
from oneword.training.samples import Batch
from oneword.training.state import Checkpoint, Done, Start, State, Tuning
from oneword.training.tuning.changes import check_weights, compact, denoiser_of
from oneword.training.tuning.prior import class_pictures, class_prompt
from oneword.vocabulary.inject import injected
from oneword.vocabulary.vocabulary import initial_rows


def check(backbone: Backbone, config: ResolvedConfig) -> None:
    """Refuse settings that a setup of this folder cannot use, before costly work.

    Raises:
        JobError: pictures have several sizes, the word does not consist of rows, the denoiser has
            no such weights, or the class is not known.
        PlaceholderError: the model does not know the rare token.
        DeltaError: the denoiser's weights are packed, or not on the device.
        ImageError: the folder of class pictures cannot be used.
    """
    _check_fit(config.setup, config.fit == "buckets")
    deltas.check_whole(denoiser_of(backbone)[1])
    check_weights(backbone, config)
    tuning = config.resolved_tuning
    if tuning.prior_loss_weight and tuning.class_data_dir is not None:
        read_folder(tuning.class_data_dir, resolution=backbone.resolution)
    elif tuning.prior_loss_weight:
        check_seeds(config.seed, tuning.num_class_images)
    wordless = config.initializer_file is not None or config.initializer == "encoder"
    if tuning.prior_loss_weight and wordless:
        class_prompt(config, None)
    if config.form != "rows":
        raise JobError(
            f"Cannot use form {config.form!r} with setup {config.setup} because it needs a word "
            "of plain embeddings; leave out --form."
        )
    if config.tuning.rare_token is not None:
        for vocabulary in backbone.vocabularies.values():
            initial_rows(vocabulary, config.tuning.rare_token, 1)


def batches_of(backbone: Backbone, job: Job) -> Batches:
    """The job's pictures and sentences, its draws and its fixed batch, with resolved settings.

    Raises:
        JobError: the job cannot be trained as it was given.
    """
    config = job.config.resolved(backbone.family)
    check(backbone, config)
    _check_fit(config.setup, job.sizes is not None)
    return Batches(backbone, job, config, prompts=captions_or_templates)


def _check_fit(setup: str, in_buckets: bool) -> None:
    if in_buckets:
        raise JobError(
            f"Cannot use fit buckets with setup {setup} because setups that change the model's "
            "weights need pictures of one size; use --fit crop, squash or pad."
        )


def ended(job: Job, state: State | None) -> Result | None:
    """The result in a state whose run has ended."""
    return state.done[0].result(job) if state is not None and state.done else None


def state_of(result: Result, last: Tuning | None = None) -> State:
    """The state of a run that has ended; ``last`` is the state from which it could continue."""
    return State(jobs=(result.job.name,), rounds=result.steps, done=(Done.of(result, last=last),))


def tune(
    batches: Batches,
    config: ResolvedConfig,
    start: Start,
    changes: Mapping[str, Tensor],
    record: Record,
    *,
    resumed: Tuning | None = None,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Learn changes to the denoiser's weights, and the first vectors of the word with them.

    The loss is the word's own, plus ``prior_loss_weight`` times the same for an equal number of
    class pictures with ``start.class_prompt``, which keep the model from forgetting the class.

    Args:
        batches: The job's, from ``batches_of``; the model is unchanged on return, also after an
            exception.
        config: The job's settings, with its initialiser.
        start: The start of the method.
        changes: Changes to train, float32; at first, they must have no effect.
        record: The job's record.
        resumed: State to resume from.
        on_step: As for ``invert_many``; steps are counted from ``start.first_step``.
        checkpoint: Saves the state; a resumed run ends with the same bits.

    Raises:
        UserError: the class pictures cannot be read or drawn, or a sentence is too long.

    Source:
        The prior term: Ruiz et al. 2022, arXiv:2208.12242, equation 2.
    """
    backbone = batches.backbone
    tuner = _Tuner(batches, config, start, changes, record, on_step, checkpoint)
    if resumed is not None:
        tuner.resume(resumed)
    # a compiled denoiser has the old weights, and gradients only for its inputs
    with aside(backbone), deltas.applied(backbone.pipeline, [tuner.deltas], trainable=True) as live:
        word = Concept(placeholder_token=tuner.token, rows=dict(tuner.rows), provenance={})
        with injected(backbone, [word]), widened(backbone):
            check_fit(
                backbone,
                every_sentence(batches.sentences, config, None),
                tuner.fill,
                token=config.placeholder_token,
            )
            return tuner.run(live)


class _Tuner:
    """Changes, rows and their optimiser, with the batches and the record of a job."""

    def __init__(
        self,
        batches: Batches,
        config: ResolvedConfig,
        start: Start,
        changes: Mapping[str, Tensor],
        record: Record,
        on_step: OnStep | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.backbone, self.batches = batches.backbone, batches
        self.config, self.start = config, start
        self.record, self.on_step, self.checkpoint = record, on_step, checkpoint
        self.tuning = config.resolved_tuning
        self.token = slot_token(0)
        self.fill = partial(fill, placeholder_token=self.token)
        device = self.backbone.device
        self.rows = {
            n: nn.Parameter(
                r.detach().to(device, torch.float32, copy=True), requires_grad=start.num_learned > 0
            )
            for n, r in start.rows.items()
        }
        self.deltas = {n: nn.Parameter(d.to(device)) for n, d in changes.items()}
        self.rates = {
            n: effective_learning_rate(config, v)[0] for n, v in self.backbone.vocabularies.items()
        }
        self.record.best = self._copies()
        self.class_pictures: Tensor | None = None  # uint8, as a file would hold them
        self.prior: Batches | None = None
        self.optimizer = self._optimizer()

    # what is trained

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
            # for a change, decay is a pull to the original model; the methods use none
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
        rate = self.rates[rest] if kind == "rows" else self.tuning.tuning_learning_rate
        own = dataclasses.replace(self.config, max_train_steps=self.record.max_steps)
        return rate * schedule(own, step)

    # the run

    def run(self, live: deltas.Applied) -> Result:
        """Train to the end, or to an interruption."""
        live.refresh()
        record, verdict, last = self.record, None, None
        try:
            if math.isinf(record.first_loss):
                verdict = self._score()
                if not self.start.first_step:  # the word's own end was reported before
                    verdict = self._report(evaluated=True) or verdict
            while verdict is None and not record.is_over:
                self._train(live)
                due = record.is_due(self.config.evaluation_steps)
                if due and record.step % self.config.evaluation_steps:
                    last = self._standing()  # a longer run would not be scored now
                verdict = self._score() if due else None
                verdict = self._report(evaluated=due) or verdict
                if self.checkpoint and verdict is None and record.step % self.checkpoint.steps == 0:
                    self.checkpoint.save(self._state())
        except KeyboardInterrupt:
            if self.checkpoint:
                self.checkpoint.save(self._state())
            return self._result("interrupted", "stopped before its end")
        result = self._result(*(verdict or self._verdict()))
        if self.checkpoint:
            # for every weight it would stay four times the denoiser
            goes_on = verdict is None and self.tuning.tuned_weights != "full"
            last = (last or self._standing()) if goes_on else None
            self.checkpoint.save(state_of(result, last))
        return result

    def _train(self, live: deltas.Applied) -> None:
        """One step of the changes, and of the word's first vectors."""
        # Draws and noise: the job's own pictures, and as many of the class.
        words = [(self.fill, _batch(self.batches, self.record.total_step))]
        prompt = self.start.class_prompt
        if prompt is not None:
            if self.prior is None:
                self.prior = self._prior(prompt)
            class_fill = partial(fill, placeholder_token=prompt)
            words.append((class_fill, _batch(self.prior, self.record.step)))

        # Predict, in one pass.
        found = predictions(self.backbone, words)

        # Loss: the word's own, and the class's with its weight.
        losses = [
            extensions.LOSS(prediction, batch.target, batch.samples).mean()
            for prediction, (_, batch) in zip(found, words, strict=True)
        ]
        loss = losses[0]
        for prior in losses[1:]:
            loss = loss + self.tuning.prior_loss_weight * prior

        # Gradient, of changes and rows alone.
        scale = HALF_SCALE if self.backbone.dtype == torch.float16 else 1.0
        learning = self._learning()
        leaves = [
            live.leaves[name.removeprefix("deltas/")] if name.startswith("deltas/") else parameter
            for name, parameter in learning.items()
        ]
        gradients = torch.autograd.grad(loss * scale, leaves, allow_unused=True)

        # Update, and let the denoiser see it.
        self._update(learning, loss, [None if g is None else g / scale for g in gradients])
        live.refresh()

    def _update(
        self,
        learning: Mapping[str, nn.Parameter],
        loss: Tensor,
        gradients: Sequence[Tensor | None],
    ) -> None:
        """One AdamW step; if a number is not finite, the gradient counts as zero."""
        given = [
            torch.zeros_like(parameter) if gradient is None else gradient.to(parameter.dtype)
            for parameter, gradient in zip(learning.values(), gradients, strict=True)
        ]
        finite = self.record.check(loss, given)
        for (name, parameter), group, gradient in zip(
            learning.items(), self.optimizer.param_groups, given, strict=True
        ):
            group["lr"] = self._rate(name, self.record.step)
            if name.startswith("rows/"):
                gradient[self.start.num_learned :] = 0.0
            parameter.grad = torch.where(finite, gradient, 0.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.record.step += 1

    @torch.no_grad()
    def _score(self) -> Verdict | None:
        """Score the fixed batch; return an ending if it is not finite: weights stay."""
        fixed, record = self.batches.fixed, self.record
        chunk = scoring_chunk(self.config.train_batch_size)
        (found,) = sample_losses(self.backbone, [(self.fill, fixed)], squared_error, chunk)
        loss = float(found.mean())
        if record.bad or not math.isfinite(loss):
            return "diverged", (
                f"the loss or its gradient was not finite by step {record.total_step}. Try a lower "
                f"--tuning-learning-rate (now {self.tuning.tuning_learning_rate:.3g})."
            )
        if record.add(loss):
            record.best = self._copies()
        return None

    def _verdict(self) -> Verdict:
        """How a run to its last step has ended."""
        record = self.record
        if record.is_fruitless:
            return "nothing-learned", (
                f"the loss on the fixed batch has not fallen after {record.max_steps} steps of "
                f"training weights: {record.best_loss:.5g} at best, {record.first_loss:.5g} "
                "before. Try another --tuning-learning-rate (now "
                f"{self.tuning.tuning_learning_rate:.3g})."
            )
        return "finished", ""

    def _report(self, *, evaluated: bool) -> Verdict | None:
        """Call ``on_step``; return an ending if it asks for one."""
        if self.on_step is None:
            return None
        record = self.record
        record.distance = self._distance()
        progress = record.progress(
            self.batches.job,
            dataclasses.replace(self.config, max_train_steps=record.first_step + record.max_steps),
            evaluated=evaluated,
            learning_rate=self.tuning.tuning_learning_rate,
            rows=self.rows,
            word=self._saved,
            token=self.token,
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

    def _prior(self, prompt: str) -> Batches:
        """The class pictures as a separate job."""
        if self.class_pictures is None:
            drawn = (self._class_pixels(prompt).clamp(-1, 1) + 1) * 127.5
            self.class_pictures = drawn.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        pixels = from_uint8(self.class_pictures.numpy())
        # draws that differ from the word's own, with unchanged pictures and sentences
        config = dataclasses.replace(
            self.config,
            seed=self.config.seed ^ 0x5EED,
            random_crops=0,
            shuffle_caption=False,
            caption_tag_dropout_rate=0.0,
        )
        job = Job(name="class", pictures=pixels, config=config)
        # the word of a class picture's sentence is the whole sentence
        return Batches(
            self.backbone, job, config, prompts=lambda job, _: [("{}",)] * len(job.pictures)
        )

    def _class_pixels(self, prompt: str) -> Pixels:
        tuning, side = self.tuning, self.batches.job.pictures.shape[-1]
        if tuning.class_data_dir is not None:
            return read_folder(
                tuning.class_data_dir,
                resolution=side,
                fit=self.config.square_fit,
                interpolation=self.config.interpolation,
            ).pixels
        return class_pictures(
            self.backbone, prompt, tuning.num_class_images, self.config.seed, side
        )

    # its end and its state

    def _saved(self) -> Concept:
        """The present word and changes."""
        return self._concept(self._copies(), self.record.total_step, "saved")

    def _result(self, status: Status, reason: str) -> Result:
        record = self.record
        best = self.config.keep == "best" and not math.isinf(record.best_loss)
        kept = record.best if best else self._copies()
        step = record.best_step if best else record.total_step
        return record.result(self.batches.job, status, reason, self._concept(kept, step, status))

    def _concept(self, kept: Mapping[str, Tensor], step: int, status: str) -> Concept:
        """The trained word and changes after a step, with their provenance."""
        record = self.record
        rows = {n: r.detach().clone() for n, r in self.rows.items()} | below(kept, "rows/")
        tuning = {
            "tuned_weights": self.tuning.tuned_weights,
            "num_weights": sum(d.numel() for d in self.deltas.values()),
            "steps": step - self.start.first_step,
            "learning_rate": self.tuning.tuning_learning_rate,
            "class_prompt": self.start.class_prompt,
        }
        concept = Concept(
            placeholder_token=self.config.placeholder_token,
            rows=rows,
            deltas=compact(below(kept, "deltas/")),
            provenance={
                "base_model": self.backbone.name,
                "family": self.backbone.family,
                **weights.told(self.backbone.name),
                "pool": self.backbone.pool,
                "initializer_token": self.config.initializer_token,
                "config": plain_settings(self.config),
                "steps": step,
                "initial_loss": record.losses[0][1] if record.losses else None,
                "loss": dict(record.losses).get(step),
                "status": status,
                "created_by": f"oneword {__version__}",
                "tuning": tuning,
                **self.start.provenance,
            },
        )
        return concept.detached()

    def _state(self) -> State:
        """The state of the run."""
        tuning = self._standing()
        return State(jobs=(self.batches.job.name,), rounds=tuning.step, tuning=tuning)

    def _standing(self) -> Tuning:
        """The state for ``resume``."""
        tensors = {n: p.detach() for n, p in self._learning().items()}
        for name, parameter in self._learning().items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value
        if self.config.keep == "best":
            tensors |= {f"best/{name}": value for name, value in self.record.best.items()}
        if self.class_pictures is not None:
            tensors["class"] = self.class_pictures
        return Tuning(
            start=self.start,
            initializer_token=self.config.initializer_token,
            record=self.record.standing(),
            tensors={name: value.detach().cpu() for name, value in tensors.items()},
        )

    @torch.no_grad()
    def resume(self, state: Tuning) -> None:
        """Continue from the output of ``_standing``."""
        tensors, device = state.tensors, self.backbone.device
        for name, parameter in self._learning().items():
            parameter.copy_(tensors[name])
            for key, value in self.optimizer.state[parameter].items():
                value.copy_(tensors[f"{key}/{name}"])
        if self.config.keep == "best":
            self.record.best = {n: tensors[f"best/{n}"].to(device) for n in self._learning()}
        self.record.resume(state.record)
        self.class_pictures = tensors.get("class")


def _batch(batches: Batches, step: int) -> Batch:
    """The samples of a job's own step."""
    draws = batches.draws(step)
    (batch,) = batches.noised(draws, extensions.TIMESTEPS(draws.times, batches.config))
    return batch
