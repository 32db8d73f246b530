"""The parts that the training loop is made of: what each is told, what it returns, its default.

An extension replaces a part by passing another callable of the same shape; the loop never names
one. A part must be a function of its arguments alone (no state of its own, no global randomness),
so that a resumed run equals an unbroken one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from oneword._typing import Latents, PerSample, Pixels, Timesteps, Uniforms
from oneword.concepts.concept import OUTPUT_VECTORS, ROWS, Concept
from oneword.config.inversion import InversionConfig, UserError
from oneword.descriptions import Descriptions
from oneword.models.contract import Backbone
from oneword.prompts import TEMPLATES, as_template
from oneword.vocabulary.inject import Vocabulary, initial_outputs, initial_rows


class JobError(UserError):
    """A job cannot be trained as it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One word to learn: its pictures and its own settings."""

    name: str
    """How results and messages call the job."""
    pictures: Pixels
    """Pictures of the thing, float32 in [-1, 1], at the model's resolution."""
    config: InversionConfig
    crops: Int[Tensor, "crops 4"] | None = None
    """Original height and width, and top and left of the crop in the resized picture, px, of each
    picture; ``None``: every picture is whole."""
    masks: Float[Tensor, "masks 1 height width"] | None = None
    """What of each picture, in [0, 1], the loss counts; ``None``: all of it."""
    captions: tuple[str, ...] | None = None
    """One per picture, each with the placeholder; ``None``: the template set of ``config``."""
    descriptions: Descriptions | None = None
    """The thing in words, for setups whose word is a description."""


_SENTENCES = 8  # templates that output vectors begin from
Status = Literal["finished", "stopped", "nothing-learned", "diverged", "interrupted", "failed"]
"""How a job ended: "stopped" is early but well, "interrupted" can be resumed."""

_MORE, _DELTAS = "tensors/", "deltas/"  # before names of a result's tensors that are no rows
_PLAIN = ("status", "steps", "best_step", "losses", "reason", "messages")


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of a job."""

    job: Job
    status: Status
    concept: Concept | None
    """On the CPU; ``None`` only where the job never began."""
    steps: int = 0
    best_step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss on the fixed batch)."""
    reason: str = ""
    """Why the job ended as it did; empty for "finished"."""
    messages: list[str] = field(default_factory=list)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which ``resume`` rebuilds the result."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        if self.concept is None:
            return {}, plain
        tensors = {f"{_MORE}{name}": value for name, value in self.concept.tensors.items()}
        tensors |= {f"{_DELTAS}{name}": value for name, value in self.concept.deltas.items()}
        more = {"kind": self.concept.kind, "provenance": self.concept.provenance}
        return self.concept.rows | tensors, plain | more

    @classmethod
    def resume(cls, job: Job, tensors: dict[str, Tensor], plain: Mapping[str, Any]) -> Result:
        """The result that ``state`` was called on."""
        concept = None
        if "provenance" in plain:
            concept = Concept(
                placeholder_token=job.config.placeholder_token,
                rows={n: t for n, t in tensors.items() if not n.startswith((_MORE, _DELTAS))},
                kind=plain["kind"],
                tensors=below(tensors, _MORE),
                deltas=below(tensors, _DELTAS),
                provenance=plain["provenance"],
            )
        fields = {name: plain[name] for name in _PLAIN}
        fields["losses"] = [(int(step), float(loss)) for step, loss in plain["losses"]]
        return cls(job=job, concept=concept, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where one job stands after a step."""

    job: Job
    config: InversionConfig
    """The job's settings, resolved for the model's family."""
    step: int
    """Steps done; 0 before the first."""
    evaluated: bool
    """The fixed evaluation batch was scored at this step."""
    losses: Sequence[tuple[int, float]]
    """(step, loss on the fixed batch), oldest first."""
    best_loss: float
    best_step: int
    distance: float
    """How far the rows have moved, relative to the initial rows' norm, at the last scoring."""
    learning_rate: float
    """Absolute rate of the step just done, the first encoder's."""
    rows: Mapping[str, Tensor]
    """The rows as they are now, by text encoder; copy them to keep them."""
    token: str
    """Placeholder that stands for the rows now: ``on_step`` may draw prompts that hold it."""
    negative_prompt: str = ""
    """What such a drawing takes for its negative prompt."""
    message: str = ""
    """What the person should know: an initialiser chosen, a roll-back."""

    @property
    def loss(self) -> float:
        """Latest loss on the fixed batch; NaN before the first."""
        return self.losses[-1][1] if self.losses else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What a loss is told about the samples of one job."""

    job: Job
    pictures: Int[Tensor, " batch"]
    """Index of each sample's picture in ``job.pictures``."""
    flips: Bool[Tensor, " batch"]
    """Whether the picture was mirrored; a mask must be mirrored with it."""
    t: Timesteps
    x0: Latents
    noise: Latents
    x_t: Latents
    crops: Int[Tensor, "batch 4"]
    """As ``Job.crops``, of each sample's picture."""
    mask: Float[Tensor, "batch 1 h w"] | None = None
    """As ``Job.masks``, averaged over each latent cell, mirrored where the picture is."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Noised samples of one job, ready for the denoiser."""

    sentences: list[str]
    """One per sample, "{}" for the word and "{name}" for a further one."""
    target: Latents
    samples: Samples
    against: list[str] | None = None
    """Sentences from which the prediction is guided away, one per sample."""
    guidance: float = 1.0
    """Scale of that guidance."""

    def spread(self, count: int) -> Batch:
        """``count`` of the samples, far apart, so that they differ in picture and in time."""
        size = len(self.sentences)
        count = min(count, size)
        keep = [i * (size // count + 1) % size for i in range(count)]
        s = self.samples
        return Batch(
            [self.sentences[i] for i in keep],
            target=self.target[keep],
            samples=Samples(
                job=s.job,
                pictures=s.pictures[keep],
                flips=s.flips[keep],
                t=s.t[keep],
                x0=s.x0[keep],
                noise=s.noise[keep],
                x_t=s.x_t[keep],
                crops=s.crops[keep],
                mask=None if s.mask is None else s.mask[keep],
            ),
        )


@dataclass(frozen=True, slots=True)
class Choices:
    """The sentences of one picture."""

    sentences: tuple[str, ...]
    """Each with "{}" for the word; drawn alike."""
    dual: tuple[str, ...] = ()
    """Sentences that hold a further word as well, as "{name}"; never in the fixed batch."""
    share: float = 0.0
    """Probability of ``dual``, in [0, 1]."""

    def __iter__(self) -> Iterator[str]:
        yield from self.sentences
        yield from self.dual

    def at(self, u: float, *, alone: bool = False) -> str:
        """The sentence of a draw from U[0, 1); ``alone``: one without further words."""
        if not self.dual or alone:
            return self.sentences[int(u * len(self.sentences))]
        if u < self.share:
            return self.dual[min(int(u / self.share * len(self.dual)), len(self.dual) - 1)]
        rest = (u - self.share) / (1 - self.share)
        return self.sentences[min(int(rest * len(self.sentences)), len(self.sentences) - 1)]


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


RowsPart = Callable[[Backbone, Job, InversionConfig], dict[str, Tensor]]
"""``rows(backbone, job, config)``: the initial values of what is trained, float32, by name.

A name is that of a text encoder, whose rate it gets, or begins with it: "clip_l", "clip_l/1",
"clip_l.last_hidden_state".
``config.initializer_token`` is set, unless the form needs none: the loop has chosen one where the
user did not.
"""

WordsPart = Callable[[Mapping[str, Tensor], InversionConfig, int], Words]
"""``words(tensors, config, step)``: what the tensors are in prompts after so many steps.

It is asked at every look-up of a row, so it must be quick.
"""

PromptsPart = Callable[[Job, InversionConfig], Sequence[Choices | Sequence[str]]]
"""``prompts(job, config)``: for each picture its sentences, with "{}" for the word."""

AgainstPart = Callable[[str, InversionConfig], str]
"""``against(sentence, config)``: the sentence from which a sample's prediction is guided away, by
``training_guidance_scale``."""

TimestepsPart = Callable[[Uniforms, InversionConfig], Uniforms]
"""``timesteps(u, config)``: maps a step's draws of U[0, 1), one per sample, to times in [0, 1)."""

LossPart = Callable[[Latents, Latents, Samples], PerSample]
"""``loss(prediction, target, samples)``: one number per sample; masks and weights live here."""

Penalty = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], InversionConfig], Tensor | None]
"""``penalty(rows, initial, config)``: a scalar that is added to the concept's loss in training.

It is told of what takes part in training at this step; ``None``: nothing is added.
"""

AfterPart = Callable[
    [Mapping[str, Tensor], dict[str, Tensor], Mapping[str, float], InversionConfig, int], None
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


def encoder_of(name: str) -> str:
    """The text encoder that a trained tensor belongs to, by its name."""
    return re.split("[/.]", name, maxsplit=1)[0]


AVERAGE = "average/"
"""What ``memory`` holds under this name is what ``keep`` "average" keeps."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything a loop needs to go on as if it had never stopped."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    """JSON-able."""


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, under the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@runtime_checkable
class Checkpoint(Protocol):
    """Where the loop keeps its state."""

    steps: int
    """Steps of the loop between two calls of ``save``."""

    def load(self) -> State | None:
        """The state saved last, or ``None`` at a first start."""
        ...

    def save(self, state: State) -> None:
        """Keep a state; it must replace the one before in one instant, or not at all."""
        ...


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


def rows_of_initializer(
    backbone: Backbone,
    job: Job,  # noqa: ARG001  (the shape of the part)
    config: InversionConfig,
) -> dict[str, Tensor]:
    """Rows of the initialiser: one vector is its tokens' mean, several are its tokens in order.

    Output vectors begin as what the encoders say of it, the mean over some of the templates.

    Raises:
        UserError: the tokenizer does not know the initialiser.
    """
    assert config.initializer_token is not None
    assert config.num_vectors is not None
    if config.vectors_at == "output":
        assert config.prompt_templates is not None
        sentences = TEMPLATES[config.prompt_templates][:_SENTENCES]
        return initial_outputs(backbone, config.initializer_token, config.num_vectors, sentences)
    return {
        name: initial_rows(vocabulary, config.initializer_token, config.num_vectors)
        for name, vocabulary in backbone.vocabularies.items()
    }


def plain_words(
    tensors: Mapping[str, Tensor],
    config: InversionConfig,
    step: int,  # noqa: ARG001  (the shape of the part)
) -> Words:
    """The tensors are the word's rows, or its output vectors, as they are."""
    return Words(rows=tensors, kind=OUTPUT_VECTORS if config.vectors_at == "output" else ROWS)


def captions_or_templates(job: Job, config: InversionConfig) -> list[tuple[str, ...]]:
    """The picture's own caption where the job has captions, otherwise every template of the set.

    Raises:
        JobError: the captions do not match the pictures, or one lacks the placeholder.
    """
    count = len(job.pictures)
    if job.captions is None:
        assert config.prompt_templates is not None
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
    timed: bool = False
    """The rows depend on the diffusion time."""
    described: bool = False
    """The word is a description of the thing, and starts from no initialiser."""


FormPart = Callable[[InversionConfig], Form]
"""``form(config)``: what the word of a job with these settings is made of."""


def squared_error(prediction: Latents, target: Latents, samples: Samples) -> PerSample:
    """Mean squared error over channels and cells; over the mask's cells where there is a mask.

    The masked mean is divided by the mask's own area, so that a small thing counts as a large one.

    Source:
        Gal et al. 2022, arXiv:2208.01618, equation 2; the mask is ours.
    """
    error = (prediction.float() - target.float()).square()
    if samples.mask is None:
        return error.flatten(1).mean(1)
    weight = samples.mask / samples.mask.flatten(1).mean(1)[:, None, None, None].clamp_min(1e-6)
    return (error * weight).flatten(1).mean(1)


def effective_learning_rate(config: InversionConfig, vocabulary: Vocabulary) -> tuple[float, float]:
    """The rate that AdamW gets for one text encoder, before the scheduler.

    Args:
        config: A resolved config.
        vocabulary: The encoder's vocabulary; its spread sets the scale of a relative rate.

    Returns:
        The absolute rate, and the same in standard deviations of the vocabulary's entries.
    """
    std = float(vocabulary.std())
    if config.learning_rate is None:
        assert config.relative_learning_rate is not None
        rate = config.relative_learning_rate * std
    else:
        rate = config.learning_rate
    if config.scale_lr:
        assert config.train_batch_size is not None
        rate *= config.train_batch_size
    return rate, rate / std


def schedule(config: InversionConfig, step: int) -> float:
    """Factor on the rate at a step, as diffusers' schedulers of the same names give it.

    Args:
        config: A resolved config.
        step: Steps already done, 0 or more.
    """
    total, warmup = config.max_train_steps or 1, config.lr_warmup_steps or 0
    if config.lr_scheduler == "constant":
        return 1.0
    if step < warmup:
        return step / warmup
    if config.lr_scheduler == "constant_with_warmup":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    if config.lr_scheduler == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done))
