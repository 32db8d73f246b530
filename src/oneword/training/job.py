"""A word to learn, how it stands, and what became of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig, ResolvedConfig
from oneword.errors import UserError
from oneword.prompts.descriptions import Descriptions


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
    opacity: Float[Tensor, "pictures 1 height width"] | None = None
    """How solid each picture is, in [0, 1], where ``pictures`` show some of them on white, whose
    place ``config.backgrounds`` takes; ``None``: they have no transparency."""
    sizes: Int[Tensor, "sizes 2"] | None = None
    """Height and width of each picture, px, where they differ: it lies in the upper left of its
    frame in ``pictures``, ``masks`` and ``opacity``; ``None``: every picture fills its frame."""
    captions: tuple[str, ...] | None = None
    """One per picture, each with the placeholder; ``None``: the template set of ``config``."""
    descriptions: Descriptions | None = None
    """The thing in words, for setups whose word is a description."""

    def by_size(self) -> list[tuple[list[int], Job]]:
        """The pictures of each size: their places, and a job of them alone without captions."""
        if self.sizes is None:
            return [([*range(len(self.pictures))], self)]
        found: dict[tuple[int, int], list[int]] = {}
        for place, (height, width) in enumerate(self.sizes.tolist()):
            found.setdefault((height, width), []).append(place)

        def cut(whole: Tensor | None, own: list[int], size: tuple[int, int]) -> Tensor | None:
            return None if whole is None else whole[own, :, : size[0], : size[1]]

        return [
            (
                own,
                replace(
                    self,
                    pictures=self.pictures[own, :, : size[0], : size[1]],
                    crops=None if self.crops is None else self.crops[own],
                    masks=cut(self.masks, own, size),
                    opacity=cut(self.opacity, own, size),
                    sizes=None,
                    captions=None,
                ),
            )
            for size, own in found.items()
        ]


Status = Literal["finished", "stopped", "nothing-learned", "diverged", "interrupted", "failed"]
"""How a job ended: "stopped" is early but well, "interrupted" can be resumed."""


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
    cause: Exception | None = None
    """What was raised, where a job failed in this call."""
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where one job stands after a step."""

    job: Job
    config: ResolvedConfig
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
    word: Callable[[], Concept]
    """Makes a copy of the word as it is now, on the CPU, as a file may hold it."""
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


def encoder_of(name: str) -> str:
    """The text encoder that a trained tensor belongs to, by its name."""
    return re.split("[/.]", name, maxsplit=1)[0]


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, under the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
