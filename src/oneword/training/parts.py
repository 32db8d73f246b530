"""The parts of the training loop: their arguments, results and defaults.

An extension replaces a part by passing another callable with the same signature; the loop never
names one. A part must depend only on its arguments (no state, no global randomness), so that a
resumed run equals an unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from oneword._typing import Latents, PerSample, Uniforms
from oneword.concepts.concept import OUTPUT_VECTORS, ROWS, check_drawable
from oneword.concepts.formats import load_concept
from oneword.config.inversion import ResolvedConfig
from oneword.microworld import weights
from oneword.models.contract import Backbone
from oneword.prompts import TEMPLATES, as_template
from oneword.training.encoder.use import encoded_rows
from oneword.training.job import Job, JobError, Progress
from oneword.training.samples import Choices, Samples
from oneword.training.state import Active, Checkpoint
from oneword.vocabulary.inject import initial_outputs
from oneword.vocabulary.vocabulary import initial_rows


_SENTENCES = 8  # templates from which output vectors start


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A job's tensors as words in prompts."""

    rows: Mapping[str, Tensor]
    """Rows of the word, by text encoder, each (num_vectors, dim)."""
    kind: str = ROWS
    """As ``Concept.kind``."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """As ``Concept.tensors``."""
    others: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Rows of extra words, by their name in sentences; they are dropped after the job."""
    negative: str | None = None
    """The extra word that previews use in the negative prompt."""
    resting: frozenset[str] = frozenset()
    """Names of tensors that do not take part yet: they neither decay nor move."""


RowsPart = Callable[[Backbone, Job, ResolvedConfig], dict[str, Tensor]]
"""``rows(backbone, job, config)``: the initial values of what is trained, float32, by name.

A name is, or begins with, that of a text encoder, whose rate the tensor gets: "clip_l", "clip_l/1",
"clip_l.last_hidden_state". ``config.initializer_token`` is set (if necessary, the loop has chosen
one), unless the form needs none or the word starts from a file or an encoder.
"""

WordsPart = Callable[[Mapping[str, Tensor], ResolvedConfig, int], Words]
"""``words(tensors, config, step)``: the words in prompts that the tensors give at a step.

It is called at every lookup of a row, so it must be fast.
"""

PromptsPart = Callable[[Job, ResolvedConfig], Sequence[Choices | Sequence[str]]]
"""``prompts(job, config)``: for each picture its sentences, with "{}" for the word."""

AgainstPart = Callable[[str, ResolvedConfig], str]
"""``against(sentence, config)``: the sentence that a sample's prediction is guided away from, with
``training_guidance_scale``."""

TimestepsPart = Callable[[Uniforms, ResolvedConfig], Uniforms]
"""``timesteps(u, config)``: maps a step's draws of U[0, 1), one per sample, to times in [0, 1)."""

LossPart = Callable[[Latents, Latents, Samples], PerSample]
"""``loss(prediction, target, samples)``: one number per sample; applies masks and weights."""

Penalty = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], ResolvedConfig], Tensor | None]
"""``penalty(rows, initial, config)``: a scalar that is added to the concept's loss in training.

Its arguments hold the tensors that take part at this step; ``None`` adds nothing.
"""

AfterPart = Callable[
    [Mapping[str, Tensor], dict[str, Tensor], Mapping[str, float], ResolvedConfig, int], None
]
"""``after(tensors, memory, spreads, config, step)``: called after each optimiser step.

It may change the tensors in place, without waiting for the device, and keep its own tensors in
``memory``, which is saved and restored with them. ``spreads``: the standard deviation of each text
encoder's vocabulary.
"""

StopPart = Callable[[Progress], bool]
"""``stop(progress)``: called after each scoring of the fixed batch; True ends the job."""

OnStep = Callable[[Progress], Literal["stop"] | None]
"""``on_step(progress)``: called after every step of every job; "stop" ends the job.

If it raises ``KeyboardInterrupt``, the loop ends: the state of that step is saved, and the jobs in
progress are returned as "interrupted".
"""


@runtime_checkable
class Visitor(Protocol):
    """Uses the model between two steps, while no word is in it."""

    def waits(self) -> bool:
        """Whether the visitor wants the model now; asked after every round of steps."""
        ...

    def served(self) -> Sequence[tuple[Job, Active | None]]:
        """Use the model; the returned jobs join the end of the queue.

        Each comes with its state if it has begun before. A ``KeyboardInterrupt`` ends the loop, as
        in ``OnStep``.
        """
        ...


AVERAGE = "average/"
"""Name in ``memory`` of what ``keep`` "average" keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one loop."""

    form: FormPart
    rows: RowsPart | None
    prompts: PromptsPart | None
    timesteps: TimestepsPart
    loss: LossPart
    penalties: Sequence[Penalty]
    after: Sequence[AfterPart]
    stop: StopPart
    on_step: OnStep | None
    checkpoint: Checkpoint | None
    visitor: Visitor | None


def rows_of_initializer(
    backbone: Backbone,
    job: Job,
    config: ResolvedConfig,
) -> dict[str, Tensor]:
    """Rows of the initialiser: one vector is its tokens' mean, several are its tokens in order.

    Output vectors start from the encoders' output for it, as the mean over some templates. A
    learned file's rows are used unchanged, and so are those that an encoder makes from the job's
    pictures.

    Raises:
        UserError: the tokenizer does not know the initialiser, or the learned file or the encoder
            does not fit.
    """
    if config.initializer == "encoder":
        return encoded_rows(backbone, job, config)
    if config.initializer_file is not None:
        return rows_of_file(backbone, config.initializer_file, config.num_vectors)
    if config.vectors_at == "output":
        sentences = TEMPLATES[config.prompt_templates][:_SENTENCES]
        return initial_outputs(backbone, config.initial_word, config.num_vectors, sentences)
    return {
        name: initial_rows(vocabulary, config.initial_word, config.num_vectors)
        for name, vocabulary in backbone.vocabularies.items()
    }


def rows_of_file(backbone: Backbone, file: Path, num_vectors: int) -> dict[str, Tensor]:
    """Rows of a learned word, for every text encoder; if there are too few, the last is repeated.

    Args:
        backbone: The model.
        file: A file for ``concepts.formats.read``.
        num_vectors: Number of vectors of the new word.

    Raises:
        JobError: the file holds more than rows, or rows of other text encoders, or too many.
        ConceptError: its rows are for a CLIP that draws nothing, or for another world.
        FormatError: the file is missing, or has no embedding or several.
    """
    word = load_concept(file)
    if word.kind != ROWS or word.deltas:
        more = f"{len(word.deltas)} weight deltas" if word.deltas else f"a word of kind {word.kind}"
        raise JobError(
            f"Cannot start from the learned file {file} because it has {more} and only plain "
            "embeddings can be a start; pass another file."
        )
    weights.check_word(word.placeholder_token, word.provenance, backbone.name)
    dims = {name: vocabulary.dim for name, vocabulary in backbone.vocabularies.items()}
    check_drawable(word.placeholder_token, word.rows, dims)
    fitted = word.fitted(dims)
    found = {name: rows.shape[1] for name, rows in fitted.rows.items()}
    if found != dims:
        raise JobError(
            f"The learned file {file} must have embeddings for the model's text encoders, of "
            f"their width ({_widths(dims)}), got {_widths(found)}; start from a word of the same "
            "kind of model."
        )
    if word.num_vectors > num_vectors:
        raise JobError(
            f"num_vectors must be at least that of the learned file {file}, {word.num_vectors}, "
            f"got {num_vectors}; pass --num-vectors {word.num_vectors}."
        )
    place = [min(i, word.num_vectors - 1) for i in range(num_vectors)]
    return {name: fitted.rows[name].float()[place] for name in dims}


def _widths(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {width}" for name, width in dims.items())


def plain_words(
    tensors: Mapping[str, Tensor],
    config: ResolvedConfig,
    step: int,  # noqa: ARG001  (the shape of the part)
) -> Words:
    """The tensors are the word's rows, or its output vectors, unchanged."""
    return Words(rows=tensors, kind=OUTPUT_VECTORS if config.vectors_at == "output" else ROWS)


def captions_or_templates(job: Job, config: ResolvedConfig) -> list[tuple[str, ...]]:
    """The picture's own caption if the job has captions, otherwise every template of the set.

    Raises:
        JobError: the captions do not match the pictures, or one lacks the placeholder.
    """
    count = len(job.pictures)
    if job.captions is None:
        return [tuple(TEMPLATES[config.prompt_templates])] * count
    if len(job.captions) != count:
        raise JobError(
            f"Job {job.name!r} must have one caption per picture, or none, got "
            f"{len(job.captions)} captions for {count} pictures."
        )
    return [(as_template(caption, config.placeholder_token),) for caption in job.captions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a word consists of: the parts that must fit together."""

    rows: RowsPart = rows_of_initializer
    words: WordsPart = plain_words
    prompts: PromptsPart = captions_or_templates
    against: AgainstPart | None = None
    described: bool = False
    """Whether the word is a description of the thing, without an initialiser."""


FormPart = Callable[[ResolvedConfig], Form]
"""``form(config)``: what the word of a job with these settings consists of."""


def squared_error(prediction: Latents, target: Latents, samples: Samples) -> PerSample:
    """Mean squared error over channels and cells; over the mask's cells if there is a mask.

    The masked mean is divided by the mask's own area, so that a small thing counts as much as a
    large one.

    Source:
        Gal et al. 2022, arXiv:2208.01618, equation 2, for the noise; for v or a flow's velocity on
        models that predict those, such as the embedded ones (v). The mask is ours.
    """
    return mean_error((prediction.float() - target.float()).square(), samples)


def mean_error(error: Latents, samples: Samples) -> PerSample:
    """Mean of each sample's errors, as in :func:`squared_error`."""
    if samples.mask is None:
        return error.flatten(1).mean(1)
    weight = samples.mask / samples.mask.flatten(1).mean(1)[:, None, None, None].clamp_min(1e-6)
    return (error * weight).flatten(1).mean(1)
