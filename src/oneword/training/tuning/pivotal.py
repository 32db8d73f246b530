"""Pivotal tuning: the word is learned as usual, then the denoiser is tuned around it.

Gal et al. report better shapes, artefacts, and editing that collapses at high guidance.
``evaluation/tuned.py`` measures how far the model itself has changed.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from oneword.concepts.concept import ROWS, Concept
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.job import Job, JobError, Progress, Result
from oneword.training.loop import invert as learn_word
from oneword.training.parts import OnStep
from oneword.training.record import Record
from oneword.training.state import Checkpoint, Start, State
from oneword.training.tuning.changes import changes_of
from oneword.training.tuning.prior import class_prompt
from oneword.training.tuning.tuner import batches_of, ended, state_of, tune


def invert(
    backbone: Backbone,
    job: Job,
    *,
    word: Concept | None = None,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Learn a word, then tune the denoiser on the same sentences with the word fixed.

    Args:
        backbone: The model; it is unchanged on return.
        job: What to learn; ``config.tuning`` has the settings of the second stage.
        word: The word, if it is already learned: then there is no first stage.
        on_step: As for ``loop.invert``; steps are counted over both stages.
        checkpoint: As for ``loop.invert``.

    Raises:
        UserError: the job cannot be trained as it was given.

    Source:
        Gal et al. 2022, arXiv:2208.01618, appendix A; Roich et al. 2021, arXiv:2106.05744.
    """
    state = checkpoint.load() if checkpoint else None
    done = ended(job, state)
    if done is not None:
        return done
    batches = batches_of(backbone, job)
    config = batches.config
    resumed = state.tuning if state is not None else None
    messages: list[str] = []
    if resumed is not None:
        start, initializer = resumed.start, resumed.initializer_token
    else:
        first = None
        if word is None:
            first = _first_stage(backbone, job, config, on_step, checkpoint)
            word = _learned(first)
            if word is None:
                if first.status != "interrupted" and checkpoint:
                    checkpoint.save(state_of(first))
                return dataclasses.replace(first, job=job)
            messages = first.messages
        start, initializer = _start(backbone, word, first), word.provenance.get("initializer_token")
    config = dataclasses.replace(config, initializer_token=initializer)
    tuning = config.resolved_tuning
    if tuning.prior_loss_weight:
        start = dataclasses.replace(start, class_prompt=class_prompt(config, initializer))
    record = Record(
        backbone.device,
        tuning.tuning_steps,
        first_step=start.first_step,
        losses=start.losses,
        messages=messages,
    )
    record.say("The word is fixed from now on; next, the denoiser's weights are trained.")
    return tune(
        batches,
        config,
        start,
        changes_of(backbone, config),
        record,
        resumed=resumed,
        on_step=on_step,
        checkpoint=checkpoint,
    )


def _start(backbone: Backbone, word: Concept, first: Result | None) -> Start:
    if word.kind != ROWS or word.deltas:
        raise JobError(
            f"Pivotal tuning needs a word of plain embeddings, got {word.placeholder_token!r} of "
            f"kind {word.kind} with {len(word.deltas)} weight deltas."
        )
    fitted = word.fitted({name: v.dim for name, v in backbone.vocabularies.items()})
    kept = {"word_sha256": fitted.sha256()}
    if "learning_rate" in word.provenance:
        kept["learning_rate"] = word.provenance["learning_rate"]
    if first is None:
        return Start(rows=dict(fitted.rows), provenance=kept)
    return Start(
        rows=dict(fitted.rows),
        first_step=first.steps,
        losses=tuple(first.losses),
        provenance=kept,
    )


def _learned(first: Result) -> Concept | None:
    """The word to tune around; ``None`` if there is none, or a stop was requested."""
    learned = first.status == "finished" or (
        first.status == "stopped" and "on_step" not in first.reason
    )
    return first.concept if learned else None


def _first_stage(
    backbone: Backbone,
    job: Job,
    config: ResolvedConfig,
    on_step: OnStep | None,
    checkpoint: Checkpoint | None,
) -> Result:
    """The word's own loop, whose end is not the end of the run."""
    return learn_word(
        backbone,
        dataclasses.replace(job, config=dataclasses.replace(config, setup="one-word")),
        on_step=None if on_step is None else _counted(on_step, job, config.total_steps),
        checkpoint=None if checkpoint is None else _FirstStage(checkpoint),
    )


def _counted(on_step: OnStep, job: Job, total: int) -> OnStep:
    """``on_step``, called with the first stage's steps as part of the whole run."""

    def counted(progress: Progress) -> Literal["stop"] | None:
        whole = dataclasses.replace(progress.config, max_train_steps=total)
        return on_step(dataclasses.replace(progress, job=job, config=whole))

    return counted


class _FirstStage:
    """The first stage's state inside the run's own."""

    def __init__(self, outer: Checkpoint) -> None:
        self.outer, self.steps = outer, outer.steps

    def load(self) -> State | None:
        """The first stage's own state."""
        state = self.outer.load()
        return None if state is None else state.first_stage

    def save(self, state: State) -> None:
        """Save it as a run in progress."""
        self.outer.save(
            State(jobs=state.jobs, rounds=state.rounds, queue=state.queue, first_stage=state)
        )
