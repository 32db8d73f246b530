"""Methods that tune weights around a rare word and the name of its class.

DreamBooth with a LoRA: the attention learns a thing under a rare word, and keeps its class. Its
sentence is "a photo of a [rare word] [class]". The placeholder stands for both words here, so that
the same prompts work for every method: with the LoRA alone, "a photo of a sks dog" in a stock
pipeline equals "a photo of a S*" with this concept.

Custom Diffusion: a new word, and the keys and values with which the denoiser reads the text. The
paper's sentence is "a photo of a [new word] [class]", of which the first word is learned. The paper
takes class pictures from LAION (pass a folder of them as ``class_data_dir``) and also shows the
thing at other sizes, with words for them. Here the model draws the class pictures, as in
DreamBooth, and pictures keep their size.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from oneword.concepts.concept import Concept
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.initializer import choose_initializer, nouns_for
from oneword.training.job import Job, JobError, Result
from oneword.training.parts import OnStep
from oneword.training.record import Record
from oneword.training.state import Checkpoint, Start
from oneword.training.tuning.changes import changes_of
from oneword.training.tuning.prior import class_prompt
from oneword.training.tuning.tuner import batches_of, ended, tune
from oneword.vocabulary.vocabulary import initial_rows


RARE_LETTERS = 3
"""Most letters of a rare word."""


def rare_word(backbone: Backbone) -> str:
    """A short word that the model has rarely seen: the last one of its vocabulary.

    Byte-pair vocabularies are ordered by how common the pairs are.

    Raises:
        JobError: the vocabulary has no such word.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 3.2: rare tokens of up to three letters.
    """
    vocabularies = list(backbone.vocabularies.values())
    tokenizer = vocabularies[0].tokenizer
    for index in range(len(tokenizer) - 1, -1, -1):
        piece = str(tokenizer.convert_ids_to_tokens(index))
        word = piece.removesuffix("</w>").removeprefix("\u2581")
        short = 2 <= len(word) <= RARE_LETTERS and word.isascii() and word.isalpha()
        if short and all(v.is_word(word) for v in vocabularies):
            return word
    raise JobError(
        f"Cannot choose a rare token because the vocabulary of {backbone.name} has no rare word "
        "of two or three letters; pass --rare-token."
    )


def invert(
    backbone: Backbone,
    job: Job,
    *,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Tune weights for a rare word that is followed by the name of its class.

    "lora-dreambooth" tunes a LoRA of the denoiser's attention, and the rare word with
    ``train_word``; "custom-diffusion" the keys and values of the cross-attention, together with the
    rare word.

    Args:
        backbone: The model; it is unchanged on return.
        job: What to learn; ``config.tuning`` says how.
        on_step: As for ``loop.invert``.
        checkpoint: As for ``loop.invert``.

    Raises:
        UserError: the job cannot be trained as it was given.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242; Hu et al. 2021, arXiv:2106.09685; Kumari et al. 2022,
        arXiv:2212.04488, sections 3.2 and 3.3.
    """
    state = checkpoint.load() if checkpoint else None
    done = ended(job, state)
    if done is not None:
        return done
    batches = batches_of(backbone, job)
    config = batches.config
    record = Record(backbone.device, config.resolved_tuning.tuning_steps)
    resumed = state.tuning if state is not None else None
    if resumed is not None:
        config = dataclasses.replace(config, initializer_token=resumed.initializer_token)
        start = resumed.start
    else:
        if config.initializer_token is None:
            noun, _ = choose_initializer(batches, record)
            config = dataclasses.replace(config, initializer_token=noun)
        start = _start(backbone, config, record)
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


def rows(backbone: Backbone, rare: str, noun: str, num_vectors: int) -> dict[str, Tensor]:
    """Rows of the rare word, then of the class's name, by text encoder."""
    vocabularies = backbone.vocabularies
    length = max(len(v.ids(noun)) for v in vocabularies.values())
    return {
        name: torch.cat([initial_rows(v, rare, num_vectors), initial_rows(v, noun, length)])
        for name, v in vocabularies.items()
    }


def longest_word(backbone: Backbone, job: Job, config: ResolvedConfig) -> Concept:
    """The same as ``fit.longest_words``, for a word that stands for two.

    Raises:
        UserError: the job cannot be trained as it was given.
    """
    noun = config.initializer_token or nouns_for(backbone, job.name, config)[0]
    rare = config.resolved_tuning.rare_token or rare_word(backbone)
    found = rows(backbone, rare, noun, config.num_vectors)
    return Concept(placeholder_token=config.placeholder_token, rows=found)


def _start(backbone: Backbone, config: ResolvedConfig, record: Record) -> Start:
    """The rare word and the class's name, as rows."""
    noun, tuning = config.initial_word, config.resolved_tuning
    rare = tuning.rare_token or rare_word(backbone)
    num = config.num_vectors
    record.say(f"The word {config.placeholder_token} stands for {rare!r} and {noun!r}.")
    return Start(
        rows=rows(backbone, rare, noun, num),
        num_learned=num if tuning.train_word else 0,
        class_prompt=class_prompt(config, noun) if tuning.prior_loss_weight else None,
        provenance={"stands_for": f"{rare} {noun}"},
    )
