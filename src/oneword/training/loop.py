"""The training loop: it learns the rows of new words, everything else stays frozen.

It is written for N concepts that share a batch. The model is frozen, so samples of different
concepts can share a forward pass. The loss is a mean within a concept and a sum over concepts, so
each concept's gradient is the same as alone. The loop knows nothing of files, previews and
extensions: those are passed as parts (``parts.py``), ``on_step`` and ``checkpoint``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oneword.config.tuning import TUNING
from oneword.errors import ConfigError, UserError, why
from oneword.models.contract import Backbone
from oneword.models.speed.narrow_cpu import widened
from oneword.training import extensions
from oneword.training.batches import every_sentence
from oneword.training.fit import check_fit
from oneword.training.initializer import choose_initializer
from oneword.training.job import Job, JobError, Result
from oneword.training.learner import Learner
from oneword.training.optimiser import update
from oneword.training.parts import (
    AfterPart,
    FormPart,
    LossPart,
    OnStep,
    Parts,
    Penalty,
    PromptsPart,
    RowsPart,
    StopPart,
    TimestepsPart,
    Visitor,
)
from oneword.training.prediction import by_size, passes, predictions, sample_losses, scoring_chunk
from oneword.training.processes import ALONE, Processes
from oneword.training.record import Verdict
from oneword.training.samples import Batch
from oneword.training.state import Active, Checkpoint, Done, State
from oneword.vocabulary.inject import injected


HALF_SCALE = 4096.0  # on the loss in fp16, where small gradients vanish; a power of two


def invert_many(
    backbone: Backbone,
    jobs: Sequence[Job],
    *,
    slots: int = 8,
    form: FormPart = extensions.form,
    rows: RowsPart | None = None,
    prompts: PromptsPart | None = None,
    timesteps: TimestepsPart = extensions.TIMESTEPS,
    loss: LossPart = extensions.LOSS,
    penalties: Sequence[Penalty] = extensions.PENALTIES,
    after: Sequence[AfterPart] = extensions.AFTER,
    stop: StopPart = extensions.STOP,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
    processes: Processes = ALONE,
    visitor: Visitor | None = None,
) -> list[Result]:
    """Learn many words, up to ``slots`` of them in one batch.

    A concept's result does not depend on which others share its batch (in fp32, within float
    tolerance). When one ends, its slot takes the next job. If a job fails or diverges, only that
    job ends, with its reason.

    Main arguments:
        backbone: The frozen model, which is not changed.
        jobs: What to learn; several may share a placeholder.
        slots: Maximum number of concepts that train at once.
        on_step: Called after every step of every job, and once before the first; see ``OnStep``.
        checkpoint: Loads the state to resume from, and saves it. A resumed loop ends with the same
            bits as an unbroken one (same machine, number of threads and slots). It also saves
            whenever a job has ended.
        processes: Processes that share the work: each calls this with the same jobs and parts,
            takes its share of every step's samples, and gets the same results, which equal those of
            one process up to rounding. The first process's checkpoint is used. A request of
            ``on_step`` in any process holds for all.
        visitor: Asked after each round of steps whether it wants the model, for drawing, or has
            jobs to add; no job's bits depend on it. Only for a single process.

    Other arguments, the parts of the loop (see ``parts.py`` for their arguments):
        form: What each job's word consists of. The default, as for every part below, is given by
            the job's settings.
        rows: Initial rows, instead of the form's.
        prompts: Training sentences, instead of the form's.
        timesteps: Mapping of the drawn times.
        loss: Per-sample loss.
        penalties: Terms that depend on the rows, added to each concept's loss.
        after: Applied to the rows after each step.
        stop: Called after each scoring; can end a job early.

    Returns:
        One result per job, in the order of ``jobs``, then those of jobs that joined.

    Raises:
        ConfigError: ``slots`` is less than 1, or the saved state belongs to other jobs.

    Source:
        Gal et al. 2022, arXiv:2208.01618, equation 2; the shared batch is ours.
    """
    if slots < 1:
        raise ConfigError(f"slots must be 1 or more, got {slots}.")
    parts = Parts(
        form=form,
        rows=rows,
        prompts=prompts,
        timesteps=timesteps,
        loss=loss,
        penalties=penalties,
        after=after,
        stop=stop,
        on_step=on_step,
        checkpoint=checkpoint,
        visitor=visitor,
    )
    return _Loop(backbone, list(jobs), slots, parts, processes).run()


def invert(backbone: Backbone, job: Job, **parts: Any) -> Result:
    """Learn one word; ``parts`` are the other arguments of :func:`invert_many`.

    Raises:
        UserError: the job cannot be trained as it was given.
    """
    (result,) = invert_many(backbone, [job], slots=parts.pop("slots", 1), **parts)
    raise_failure(result)
    return result


def raise_failure(result: Result) -> None:
    """Raise the error that made a job fail, if it failed.

    Raises:
        JobError: the job cannot be trained with its settings. Other errors are raised unchanged.
    """
    if result.status != "failed":
        return
    if result.cause is None or isinstance(result.cause, UserError):
        raise JobError(result.reason) from result.cause
    raise result.cause


@dataclass(frozen=True, slots=True)
class _Share:
    """Samples of a word in one pass through the model."""

    place: int
    """Index of the word among those of the step."""
    batch: Batch
    total: int
    """Number of samples of the word in the step."""
    is_first: bool
    """Whether they are the word's first samples of the step, which carry what is added once."""


def _of_mean(losses: Tensor, total: int) -> Tensor:
    """Contribution of some samples to the mean loss over all samples."""
    mean = losses.mean()
    return mean if len(losses) == total else mean * (len(losses) / total)


class _Loop:
    """The learners in their slots, the queue behind them, and the results so far."""

    def __init__(
        self,
        backbone: Backbone,
        jobs: list[Job],
        slots: int,
        parts: Parts,
        processes: Processes,
    ) -> None:
        self.backbone, self.jobs, self.slots, self.parts = backbone, jobs, slots, parts
        self.processes = processes
        self.queue = deque(range(len(jobs)))
        self.results: dict[int, Result] = {}
        self.lasts: dict[int, Active] = {}  # of jobs that ran out of steps
        self.at_rest: set[int] = set()  # jobs that would have ended with more steps, too
        self.active: dict[int, Learner] = {}
        self.waiting: dict[int, Active] = {}  # begun, in the queue
        self.sizes: list[int] = []  # number of vectors of each word in the model
        self.rounds = 0
        self.interrupted = False

    def run(self) -> list[Result]:
        with self.processes.agreed():
            state = self.parts.checkpoint.load() if self.parts.checkpoint else None
        state = self.processes.from_first(state)
        if state is not None:
            self._resume(state)
        while not self.interrupted and self._fill():
            self._train_together([self.active[slot] for slot in sorted(self.active)])
            # an ended job is saved at once, even if others still train
            if self.parts.checkpoint and not self.interrupted and self._has_begun:
                self.parts.checkpoint.save(self._state())
            self._receive()
        for learner in self.active.values():
            self.results[learner.index] = learner.result("interrupted", "stopped before its end")
        for index in self.queue:
            reason = "stopped before its end" if index in self.waiting else "never begun"
            self.results[index] = Result(
                job=self.jobs[index], status="interrupted", concept=None, reason=reason
            )
        return [self.results[index] for index in range(len(self.jobs))]

    def _receive(self) -> None:
        """Let the visitor use the model, and add its jobs to the queue."""
        visitor = self.parts.visitor
        if visitor is None or self.interrupted or not visitor.waits():
            return
        try:
            joining = visitor.served()
        except KeyboardInterrupt:
            self.interrupted = True
            return
        for job, begun in joining:
            index = len(self.jobs)
            self.jobs.append(job)
            self.queue.append(index)
            if begun is not None:
                self.waiting[index] = dataclasses.replace(begun, index=index)

    @property
    def _has_begun(self) -> bool:
        """Whether there is anything to save besides jobs that could not be trained."""
        ends = (result.status for result in self.results.values())
        return bool(self.active or self.waiting) or any(end != "failed" for end in ends)

    def _train_together(self, learners: Sequence[Learner]) -> None:
        """Train until a slot is free or a visitor comes, when the words change."""
        visitor = self.parts.visitor
        with contextlib.ExitStack() as placed:
            self._place(placed, learners)
            self._begin([learner for learner in learners if not learner.record.losses])
            while not self.interrupted and len(self.active) == len(learners):
                self._step(learners, placed)
                if visitor is not None and visitor.waits():
                    return

    def _step(self, learners: Sequence[Learner], placed: contextlib.ExitStack) -> None:
        """Do a step of every learner, then the scorings that are due.

        Args:
            learners: The learners whose words are in the prompts.
            placed: Keeps the words in the model; they are placed again when one of them grows.
        """
        able = self._each(learners, self._learn)
        self.rounds += 1
        if _sizes(learners) != self.sizes:
            placed.close()
            self._place(placed, learners)
        self._judge(able)

    def _each(
        self, learners: Sequence[Learner], do: Callable[[Sequence[Learner]], None]
    ) -> list[Learner]:
        """Do something for all at once, or, if that raises, for each alone, so that only one fails.

        Args:
            learners: The learners.
            do: The action; it must not change a learner before it raises.

        Returns:
            The learners for which it succeeded.
        """
        try:
            do(learners)
        except Exception as error:
            if len(learners) > 1:
                return [learner for one in learners for learner in self._each([one], do)]
            for learner in learners:
                self._fail(learner.index, error)
                del self.active[learner.slot]
            return []
        return list(learners)

    def _learn(self, learners: Sequence[Learner]) -> None:
        """The draws and the update of each learner, with a common forward pass."""
        with self.processes.agreed():
            own = self._own_gradients(learners)

        # Sums: over the processes that share the step, each of which has other samples.
        sums = iter(self.processes.summed(own))

        # Update; a gradient that is not finite counts as zero, and the job goes back later.
        update(
            learners,
            [
                learner.checked(next(sums), [next(sums) for _ in learner.rows])
                for learner in learners
            ],
        )

    def _own_gradients(self, learners: Sequence[Learner]) -> list[Tensor]:
        """From this process's samples: each learner's loss, then its rows' gradients."""
        backbone, parts = self.backbone, self.parts

        # Draws: a pure function of each job's seed and its own step.
        draws = [learner.batches.draws(learner.step) for learner in learners]
        times = [
            parts.timesteps(drawn.times, learner.config)
            for learner, drawn in zip(learners, draws, strict=True)
        ]

        # Noise: the drawn pictures' latents, at the drawn times.
        batches = [
            learner.batches.noised(drawn, at)
            for learner, drawn, at in zip(learners, draws, times, strict=True)
        ]

        # Gradients, pass by pass: what a pass keeps is freed before the next.
        sums: list[list[Tensor | None]] = [[None] * (1 + len(one.rows)) for one in learners]
        for shares in self._passes(batches):
            own = [learners[share.place] for share in shares]
            for share, more in zip(shares, self._gradients(own, shares), strict=True):
                place = share.place
                pairs = zip(sums[place], more, strict=True)
                sums[place] = [a if b is None else b if a is None else a + b for a, b in pairs]
        nothing = torch.zeros((), device=backbone.device)
        return [
            torch.zeros_like(like) if tensor is None else tensor
            for learner, own in zip(learners, sums, strict=True)
            for like, tensor in zip((nothing, *learner.rows.values()), own, strict=True)
        ]

    def _passes(self, batches: Sequence[Sequence[Batch]]) -> Iterator[list[_Share]]:
        """Divide this process's samples of a step into passes, grouped by size."""
        totals = [sum(len(batch.sentences) for batch in own) for own in batches]
        owned = [self._owned(own) for own in batches]
        for group in by_size((place, b) for place, own in enumerate(batches) for b in own):
            shares = [owned[place][id(batch)] for place, batch in group]
            for parts in passes(shares, self.backbone.micro_batch_size):
                yield [
                    _Share(
                        place,
                        batch.part(keep),
                        totals[place],
                        batch is batches[place][0] and keep.start == 0,
                    )
                    for number, keep in parts
                    for place, batch in [group[number]]
                ]

    def _owned(self, batches: Sequence[Batch]) -> dict[int, range]:
        """This process's samples of each batch of a word, by the batch's id."""
        sizes = [len(batch.sentences) for batch in batches]
        own, first, found = self.processes.share(sum(sizes)), 0, {}
        for batch, size in zip(batches, sizes, strict=True):
            start, stop = (min(max(end - first, 0), size) for end in (own.start, own.stop))
            found[id(batch)] = range(start, stop)
            first += size
        return found

    def _gradients(
        self, learners: Sequence[Learner], shares: Sequence[_Share]
    ) -> list[list[Tensor | None]]:
        """Contribution of some samples to each learner's loss, then to its rows' gradients."""
        backbone, parts = self.backbone, self.parts

        # Encode the prompts, equal ones once, and predict: the samples of all words in one pass.
        found = predictions(
            backbone, [(n.fill, share.batch) for n, share in zip(learners, shares, strict=True)]
        )

        # Loss: a mean within a word and a sum over words, so that words do not affect each other.
        losses = []
        for learner, share, prediction in zip(learners, shares, found, strict=True):
            batch = share.batch
            loss = _of_mean(parts.loss(prediction, batch.target, batch.samples), share.total)
            moving = learner.moving()
            for penalty in parts.penalties if share.is_first else ():
                term = penalty(moving, learner.initial, learner.config)
                loss = loss if term is None else loss + term
            losses.append(loss)

        # Gradient of the rows only: not backward(), which would compute every requested gradient.
        parameters = [p for learner in learners for p in learner.rows.values()]
        gradients: list[Tensor | None] = [None] * len(parameters)
        scale = HALF_SCALE if backbone.dtype == torch.float16 else 1.0
        total = torch.stack(losses).sum() * scale
        if total.requires_grad:
            gradients = list(torch.autograd.grad(total, parameters, allow_unused=True))
        given = []
        for learner, loss in zip(learners, losses, strict=True):
            own, gradients = gradients[: len(learner.rows)], gradients[len(learner.rows) :]
            given.append([loss.detach(), *(None if g is None else g / scale for g in own)])
        return given

    def _place(self, placed: contextlib.ExitStack, learners: Sequence[Learner]) -> None:
        """Keep the words in the model's prompts until ``placed`` is closed."""
        words = [word for learner in learners for word in learner.live()]
        self.sizes = _sizes(learners)
        placed.enter_context(injected(self.backbone, words))
        placed.enter_context(widened(self.backbone))

    def _fill(self) -> bool:
        """Give each free slot the next trainable job; return whether any slot is taken."""
        for slot in range(self.slots):
            while slot not in self.active and self.queue:
                index = self.queue.popleft()
                try:
                    self.active[slot] = self._admit(index, slot)
                except Exception as error:
                    self._fail(index, error)
        return bool(self.active)

    def _admit(self, index: int, slot: int) -> Learner:
        with self.processes.agreed():
            learner = self._learner(index, slot)
            if index in self.waiting:
                learner.resume(self.waiting.pop(index))
                return learner
            chosen = None
            if learner.config.wants_initializer and not learner.form.described:
                samples = self._num_at_once([learner])
                chosen = choose_initializer(
                    learner.batches, learner.record, self.parts.loss, samples
                )
        chosen = self.processes.from_first(chosen)
        if chosen is not None:
            noun, learner.ranking = chosen
            learner.config = dataclasses.replace(learner.config, initializer_token=noun)
        rows = self.parts.rows or learner.form.rows
        learner.start(rows(self.backbone, learner.job, learner.config))
        return learner

    def _learner(self, index: int, slot: int) -> Learner:
        setup = self.jobs[index].config.setup
        if setup in TUNING:
            raise JobError(
                f"Cannot use setup {setup!r} in this loop because it changes the model's weights; "
                f"call oneword.training.tuning.method({setup!r}), or runs.train."
            )
        return Learner(self.backbone, self.jobs[index], self.parts, index=index, slot=slot)

    def _fail(self, index: int, error: Exception) -> None:
        self.lasts.pop(index, None)
        self.results[index] = Result(
            job=self.jobs[index],
            status="failed",
            concept=None,
            reason=why(error),
            cause=error,
        )

    def _begin(self, learners: Sequence[Learner]) -> None:
        """Check the new words' sentences, and score the words before the first step."""
        able = [one for learner in learners for one in self._each([learner], self._check_prompts)]
        verdicts = self._score(able)
        for learner in able:
            if learner.is_still and learner.index in verdicts:
                verdicts[learner.index] = verdicts[learner.index] or ("finished", "")
        self._report(able, verdicts)

    def _check_prompts(self, learners: Sequence[Learner]) -> None:
        """Refuse sentences that are too long for their word, before the first step."""
        for learner in learners:
            batches = learner.batches
            check_fit(
                self.backbone,
                every_sentence(batches.sentences, batches.config, batches.against),
                learner.fill,
                token=learner.config.placeholder_token,
                others=learner.others,
            )

    def _judge(self, learners: Sequence[Learner]) -> None:
        """Do the scorings that are due after a step of every learner."""
        due = [learner for learner in learners if learner.is_due]
        # a longer run would not be scored here
        self.lasts |= {learner.index: learner.state() for learner in due if not learner.is_regular}
        verdicts = self._score(due)
        for learner in learners:
            if learner.step == 1 and learner.dead is not None:
                verdicts[learner.index] = (
                    "nothing-learned",
                    f"the gradient for text encoder {learner.dead!r} is exactly zero: the "
                    "placeholder token does not reach that encoder's output.",
                )
        self._report(learners, verdicts)
        if (
            self.parts.checkpoint
            and not self.interrupted
            and self.rounds % self.parts.checkpoint.steps == 0
        ):
            self.parts.checkpoint.save(self._state())

    def _score(self, learners: Sequence[Learner]) -> dict[int, Verdict | None]:
        """Score the fixed batches of all learners together; return verdicts by job index."""
        numbers: dict[int, list[float]] = {}

        def measure(some: Sequence[Learner]) -> None:
            numbers.update(zip((one.index for one in some), self._measures(some), strict=True))

        able = self._each(learners, measure) if learners else []
        return {
            learner.index: learner.judge(loss, bool(bad), distance)
            for learner in able
            for loss, bad, distance in [numbers[learner.index]]
        }

    def _measures(self, learners: Sequence[Learner]) -> list[list[float]]:
        """The input of ``Learner.judge`` for each: loss, whether a number was bad, distance."""
        with self.processes.agreed():
            losses = self._own_losses(learners)
        sums = self.processes.summed(losses)
        measures = [one.measures(loss) for one, loss in zip(learners, sums, strict=True)]
        # the only place where the loop waits for the device
        return torch.stack(measures).tolist()

    @torch.no_grad()
    def _own_losses(self, learners: Sequence[Learner]) -> list[Tensor]:
        """Contribution of this process's samples to each learner's loss on its fixed batch."""
        fixed = [learner.batches.fixed for learner in learners]
        owned = [self._owned(own) for own in fixed]
        chosen = [
            [batch.part(shares[id(batch)]) for batch in own if shares[id(batch)]]
            for own, shares in zip(fixed, owned, strict=True)
        ]
        places = [place for place, own in enumerate(chosen) if own]
        asked = [(learners[place].fill, chosen[place]) for place in places]
        chunk = scoring_chunk(self._num_at_once(learners))
        found = sample_losses(self.backbone, asked, self.parts.loss, chunk)
        losses = [torch.zeros((), device=self.backbone.device) for _ in learners]
        for place, each in zip(places, found, strict=True):
            losses[place] = _of_mean(each, sum(len(b.sentences) for b in fixed[place]))
        return losses

    def _num_at_once(self, learners: Sequence[Learner]) -> int:
        """Number of a step's samples that are in this process's memory at once."""
        shares = [self.processes.share(learner.config.train_batch_size) for learner in learners]
        samples = max(1, sum(map(len, shares)))
        return min(samples, self.backbone.micro_batch_size or samples)

    def _report(self, learners: Sequence[Learner], verdicts: dict[int, Verdict | None]) -> None:
        """Call ``stop`` and ``on_step``, then free the slots of jobs that end."""
        learners = [learner for learner in learners if learner.slot in self.active]
        ends = {index: verdict for index, verdict in verdicts.items() if verdict is not None}
        asked = [0] * len(learners)
        try:
            with self.processes.agreed():
                for place, learner in enumerate(learners):
                    evaluated = learner.index in verdicts
                    progress = learner.progress(evaluated=evaluated)
                    if evaluated and learner.record.losses and self.parts.stop(progress):
                        ends.setdefault(learner.index, ("stopped", "the stopping rule was met"))
                        if learner.is_regular:
                            self.at_rest.add(learner.index)
                    if self.parts.on_step is not None and self.parts.on_step(progress) == "stop":
                        asked[place] = 1
        except KeyboardInterrupt:
            self.interrupted = True
        for learner, stops in zip(learners, self.processes.highest(asked), strict=True):
            if stops:
                ends.setdefault(learner.index, ("stopped", "on_step asked for it"))
            if learner.index in ends:
                status, reason = ends[learner.index]
                if learner.is_still:
                    self.at_rest.add(learner.index)
                if learner.wants_steps(status) and learner.index not in self.at_rest:
                    self.lasts.setdefault(learner.index, learner.state())
                else:
                    self.lasts.pop(learner.index, None)
                self.results[learner.index] = learner.result(status, reason)
                del self.active[learner.slot]
        if self.interrupted and self.parts.checkpoint:
            self.parts.checkpoint.save(self._state())

    def _state(self) -> State:
        under_way = [learner.state() for learner in self.active.values()]
        return State(
            jobs=tuple(job.name for job in self.jobs),
            rounds=self.rounds,
            queue=tuple(index for index in self.queue if index not in self.waiting),
            active=(*under_way, *self.waiting.values()),
            done=tuple(
                Done.of(result, index, self.lasts.get(index), at_rest=index in self.at_rest)
                for index, result in self.results.items()
            ),
        )

    def _resume(self, state: State) -> None:
        names = tuple(job.name for job in self.jobs)
        if state.jobs != names:
            raise ConfigError(
                f"The saved state belongs to the jobs {[*state.jobs]}, got {[*names]}; resume "
                "with the same jobs, or start again in another folder."
            )
        begun = sorted(state.active, key=lambda one: one.slot)
        self.rounds = state.rounds
        self.queue = deque([*(one.index for one in begun), *state.queue])
        self.results = {one.index: one.result(self.jobs[one.index]) for one in state.done}
        self.lasts = {one.index: one.last for one in state.done if isinstance(one.last, Active)}
        self.at_rest = {one.index for one in state.done if one.at_rest}
        self.waiting = {one.index: one for one in begun}


def _sizes(learners: Sequence[Learner]) -> list[int]:
    """Present number of vectors of each word."""
    return [word.num_vectors for learner in learners for word in learner.live()]
