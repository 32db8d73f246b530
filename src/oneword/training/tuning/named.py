"""Methods that tune weights around a rare word and the name of its class."""

from __future__ import annotations

import dataclasses

import torch

from oneword.models.contract import Backbone
from oneword.training.initializer import choose_initializer
from oneword.training.job import Job, JobError, Result
from oneword.training.learner import Learner
from oneword.training.parts import OnStep
from oneword.training.state import Checkpoint
from oneword.training.tuning.changes import changes_of
from oneword.training.tuning.prior import class_prompt
from oneword.training.tuning.tuner import Start, begun, ended, learner_of, tune
from oneword.vocabulary.vocabulary import initial_rows


_RARE_LETTERS = 3


def rare_word(backbone: Backbone) -> str:
    """A short word that the model has seldom seen: the last one of its vocabulary.

    Vocabularies of byte pairs are in the order of how common the pairs are.

    Raises:
        JobError: the vocabulary has none.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 3.2: rare tokens of up to three letters.
    """
    vocabularies = list(backbone.vocabularies.values())
    tokenizer = vocabularies[0].tokenizer
    for index in range(len(tokenizer) - 1, -1, -1):
        piece = str(tokenizer.convert_ids_to_tokens(index))
        word = piece.removesuffix("</w>").removeprefix("\u2581")
        short = 2 <= len(word) <= _RARE_LETTERS and word.isascii() and word.isalpha()
        if short and all(v.is_word(word) for v in vocabularies):
            return word
    raise JobError(
        f"The vocabulary of {backbone.name} must hold a rare word of two or three letters, got "
        "none; pass --rare-token."
    )


def tune_named(
    backbone: Backbone,
    job: Job,
    *,
    on_step: OnStep | None,
    checkpoint: Checkpoint | None,
) -> Result:
    """Tune weights for a word that is a rare one, followed by the name of its class."""
    state = checkpoint.load() if checkpoint else None
    found = ended(job, state)
    if found is not None:
        return found
    learner = learner_of(backbone, job)
    start = begun(state, learner) or _named_start(backbone, learner)
    changes = changes_of(backbone, learner.config)
    start = dataclasses.replace(start, deltas=changes)
    return tune(backbone, learner, start, on_step=on_step, checkpoint=checkpoint)


def _named_start(backbone: Backbone, learner: Learner) -> Start:
    if learner.config.initializer_token is None:
        choose_initializer(backbone, learner)
    config = learner.config
    noun, tuning = config.initializer, config.resolved_tuning
    rare = tuning.rare_token or rare_word(backbone)
    vocabularies = backbone.vocabularies
    length = max(len(v.ids(noun)) for v in vocabularies.values())
    num = config.num_vectors
    learner.say(f"The word {config.placeholder_token} stands for {rare!r} and {noun!r}.")
    return Start(
        rows={
            name: torch.cat([initial_rows(v, rare, num), initial_rows(v, noun, length)])
            for name, v in vocabularies.items()
        },
        num_learned=num if tuning.train_word else 0,
        deltas={},
        class_prompt=class_prompt(config, noun) if tuning.prior_loss_weight else None,
        provenance={"stands_for": f"{rare} {noun}"},
    )
