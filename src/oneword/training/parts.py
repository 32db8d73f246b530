"""The parts that the training loop is made of: what each is told, what it returns, its default.

An extension replaces a part by passing another callable of the same shape; the loop never names
one. A part must be a function of its arguments alone (no state of its own, no global randomness),
so that a resumed run equals an unbroken one.
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
from oneword.models.contract import Backbone
from oneword.prompts import TEMPLATES, as_template
from oneword.training.encoder.use import encoded_rows
from oneword.training.job import Job, JobError, Progress
from oneword.training.samples import Choices, Samples
from oneword.training.state import Active, Checkpoint
from oneword.vocabulary.inject import initial_outputs
from oneword.vocabulary.vocabulary import initial_rows


_SENTENCES = 8  # templates that output vectors begin from


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a job's tensors stand in prompts."""

    rows: Mapping[str, Tensor]
    """Of the word, by text encoder, each (num_vectors, dim)."""
    kind: str = ROWS
    """As ``Concept.kind``."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """As ``Concept.tensors``."""
    others: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Rows of further words, by the name that sentences call them by; they end with the job."""
    negative: str | None = None
    """Which of the further words previews are drawn away from."""
    resting: frozenset[str] = frozenset()
    """Names of tensors that take no part yet: they neither decay nor move."""


RowsPart = Callable[[Backbone, Job, ResolvedConfig], dict[str, Tensor]]
"""``rows(backbone, job, config)``: the initial values of what is trained, float32, by name.

A name is that of a text encoder, whose rate it gets, or begins with it: "clip_l", "clip_l/1",
"clip_l.last_hidden_state".
``config.initializer_token`` is set, unless the form needs none or the word starts from a file or an
encoder: the loop has chosen one where the user did not.
"""

WordsPart = Callable[[Mapping[str, Tensor], ResolvedConfig, int], Words]
"""``words(tensors, config, step)``: what the tensors are in prompts after so many steps.

It is asked at every look-up of a row, so it must be quick.
"""

PromptsPart = Callable[[Job, ResolvedConfig], Sequence[Choices | Sequence[str]]]
"""``prompts(job, config)``: for each picture its sentences, with "{}" for the word."""

AgainstPart = Callable[[str, ResolvedConfig], str]
"""``against(sentence, config)``: the sentence from which a sample's prediction is guided away, by
``training_guidance_scale``."""

TimestepsPart = Callable[[Uniforms, ResolvedConfig], Uniforms]
"""``timesteps(u, config)``: maps a step's draws of U[0, 1), one per sample, to times in [0, 1)."""

LossPart = Callable[[Latents, Latents, Samples], PerSample]
"""``loss(prediction, target, samples)``: one number per sample; masks and weights live here."""

Penalty = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], ResolvedConfig], Tensor | None]
"""``penalty(rows, initial, config)``: a scalar that is added to the concept's loss in training.

It is told of what takes part in training at this step; ``None``: nothing is added.
"""

AfterPart = Callable[
    [Mapping[str, Tensor], dict[str, Tensor], Mapping[str, float], ResolvedConfig, int], None
]
"""``after(tensors, memory, spreads, config, step)``: called after each optimiser step.

It may change the tensors in place, without waiting for the device, and keep tensors of its own in
``memory``, which is saved and restored with them. ``spreads``: the standard deviation of each text
encoder's vocabulary.
"""

StopPart = Callable[[Progress], bool]
"""``stop(progress)``: asked after each scoring of the fixed batch; True ends the job."""

OnStep = Callable[[Progress], Literal["stop"] | None]
"""``on_step(progress)``: called after every step of every job; "stop" ends the job.

Raising ``KeyboardInterrupt`` from it ends the loop: the state is saved as of that step, and the
jobs under way come back as "interrupted".
"""


@runtime_checkable
class Visitor(Protocol):
    """Somebody who uses the model between two steps, while no word stands in it."""

    def waits(self) -> bool:
        """Whether the visitor wants the model now; asked after every round of steps."""
        ...

    def served(self) -> Sequence[tuple[Job, Active | None]]:
        """Do what was waited for; the jobs returned join the end of the queue.

        Each comes with what it goes on from, where it has begun before. Raising
        ``KeyboardInterrupt`` ends the loop as it does from ``OnStep``.
        """
        ...


AVERAGE = "average/"
"""What ``memory`` holds under this name is what ``keep`` "average" keeps."""


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

    Output vectors begin as what the encoders say of it, the mean over some of the templates. A
    learned file's rows are taken as they are, and so are those that an encoder makes of the job's
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
    """Rows of a learned word, for every text encoder; where they are too few, the last is repeated.

    Args:
        backbone: The model.
        file: As ``concepts.formats.read`` takes it.
        num_vectors: Of the new word.

    Raises:
        JobError: the file holds more than rows, or rows of other text encoders, or too many.
        ConceptError: its rows are those of a CLIP that draws nothing.
        FormatError: there is no such file, or it holds no embedding, or several.
    """
    word = load_concept(file)
    if word.kind != ROWS or word.deltas:
        more = f"{len(word.deltas)} weight deltas" if word.deltas else f"a word of kind {word.kind}"
        raise JobError(
            f"The learned file {file} must hold rows of text encoders and nothing else to start "
            f"from, got {more}."
        )
    dims = {name: vocabulary.dim for name, vocabulary in backbone.vocabularies.items()}
    check_drawable(word.placeholder_token, word.rows, dims)
    fitted = word.fitted(dims)
    found = {name: rows.shape[1] for name, rows in fitted.rows.items()}
    if found != dims:
        raise JobError(
            f"The learned file {file} must hold rows of the model's text encoders, as wide as "
            f"theirs ({_widths(dims)}), got {_widths(found)}; start from a word of the same kind "
            "of model."
        )
    if word.num_vectors > num_vectors:
        raise JobError(
            f"The new word must have as many vectors as the learned file {file}, "
            f"{word.num_vectors}, or more, got {num_vectors}; pass --num-vectors "
            f"{word.num_vectors}."
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
    """The tensors are the word's rows, or its output vectors, as they are."""
    return Words(rows=tensors, kind=OUTPUT_VECTORS if config.vectors_at == "output" else ROWS)


def captions_or_templates(job: Job, config: ResolvedConfig) -> list[tuple[str, ...]]:
    """The picture's own caption where the job has captions, otherwise every template of the set.

    Raises:
        JobError: the captions do not match the pictures, or one lacks the placeholder.
    """
    count = len(job.pictures)
    if job.captions is None:
        return [tuple(TEMPLATES[config.prompt_templates])] * count
    if len(job.captions) != count:
        raise JobError(
            f"Job {job.name!r} needs one caption per picture, got {len(job.captions)} captions for "
            f"{count} pictures; pass one each, or none."
        )
    return [(as_template(caption, config.placeholder_token),) for caption in job.captions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a word is made of: the parts that must fit each other."""

    rows: RowsPart = rows_of_initializer
    words: WordsPart = plain_words
    prompts: PromptsPart = captions_or_templates
    against: AgainstPart | None = None
    described: bool = False
    """The word is a description of the thing, and starts from no initialiser."""


FormPart = Callable[[ResolvedConfig], Form]
"""``form(config)``: what the word of a job with these settings is made of."""


def squared_error(prediction: Latents, target: Latents, samples: Samples) -> PerSample:
    """Mean squared error over channels and cells; over the mask's cells where there is a mask.

    The masked mean is divided by the mask's own area, so that a small thing counts as a large one.

    Source:
        Gal et al. 2022, arXiv:2208.01618, equation 2, of the noise; of v or of a flow's velocity on
        models that predict those, such as the embedded ones (v). The mask is ours.
    """
    return mean_error((prediction.float() - target.float()).square(), samples)


def mean_error(error: Latents, samples: Samples) -> PerSample:
    """Mean of each sample's errors, as ``squared_error`` takes it."""
    if samples.mask is None:
        return error.flatten(1).mean(1)
    weight = samples.mask / samples.mask.flatten(1).mean(1)[:, None, None, None].clamp_min(1e-6)
    return (error * weight).flatten(1).mean(1)
