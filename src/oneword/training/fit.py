"""Check before the first step that a job's sentences are short enough for the words in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from oneword.concepts.concept import Concept, further_token
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.training.initializer import nouns_for
from oneword.training.job import Job, JobError
from oneword.training.parts import Form
from oneword.vocabulary.tokenizer import TooLongError


_LONG = 200  # characters up to which a message shows a whole sentence


def filled(sentence: str, token: str, others: Iterable[str] = ()) -> str:
    """A sentence with a word for "{}", and extra words for their names.

    Args:
        sentence: A sentence of the job.
        token: Placeholder of the word.
        others: Names of the extra words.
    """
    sentence = sentence.replace("{}", token)
    for name in others:
        sentence = sentence.replace(f"{{{name}}}", further_token(token, name))
    return sentence


def longest_words(
    backbone: Backbone, job: Job, config: ResolvedConfig, form: Form
) -> tuple[list[Concept], tuple[str, ...]]:
    """A job's words with all vectors that they will have, under the names that the user knows.

    If the initialiser is not chosen yet, the first candidate is used; output vectors count as the
    rows that are read for them, so that no text encoder runs.

    Returns:
        The words, and the names of the extra ones in sentences.

    Raises:
        UserError: the job cannot be trained as it was given.
    """
    config = dataclasses.replace(config, vectors_at="input")
    if config.wants_initializer and not form.described:
        noun = nouns_for(backbone, job.name, config)[0]
        config = dataclasses.replace(config, initializer_token=noun)
    words = form.words(form.rows(backbone, job, config), config, config.max_train_steps)
    token = config.placeholder_token
    word = Concept(
        placeholder_token=token,
        rows=dict(words.rows),
        kind=words.kind,
        tensors=dict(words.tensors),
    )
    others = [
        Concept(placeholder_token=further_token(token, name), rows=dict(rows))
        for name, rows in words.others.items()
        if name != words.negative  # which the word brings along
    ]
    return [word, *others], tuple(words.others)


def check_fit(
    backbone: Backbone,
    sentences: Iterable[str],
    fill: Callable[[str], str],
    *,
    token: str,
    others: Sequence[str] = (),
) -> None:
    """Refuse sentences that are too long for their words, by the tokenizers; inside ``injected``.

    Args:
        backbone: The model.
        sentences: With "{}" for the word and "{name}" for an extra one.
        fill: Inserts the words' present placeholders in the model.
        token: The word as the user wrote it, for the message.
        others: Names of the extra words.

    Raises:
        JobError: a sentence is too long.
    """
    texts = {fill(sentence): sentence for sentence in sentences}
    for vocabulary in backbone.vocabularies.values():
        try:
            vocabulary.tokenizer(
                list(texts),
                padding="max_length",
                max_length=vocabulary.max_length,
                truncation=True,
            )
        except TooLongError as error:
            shown = filled(texts[error.text], token, others)
            if len(shown) > _LONG:
                shown = f"{shown[: _LONG // 2]} ... {shown[-_LONG // 2 :]}"
            raise JobError(
                f"The sentence {shown!r} must fit into {error.limit} tokens of the text encoder "
                f"{vocabulary.name}, up to its word's last vector, got {error.length}; use fewer "
                "vectors (--num-vectors) or a shorter sentence."
            ) from error
