"""A word to learn, its progress, and its result."""

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
    """A job cannot be trained with its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One word to learn: its pictures and its own settings."""

    name: str
    """Name of the job in results and messages."""
    pictures: Pixels
    """Pictures of the thing, float32 in [-1, 1], at the model's resolution."""
    config: InversionConfig
    crops: Int[Tensor, "crops 4"] | None = None
    """For each picture, original height and width, and top and left of the crop in the resized
    picture, in px; ``None``: every picture is whole."""
    masks: Float[Tensor, "masks 1 height width"] | None = None
    """Which part of each picture counts in the loss, in [0, 1]; ``None``: all of it."""
    opacity: Float[Tensor, "pictures 1 height width"] | None = None
    """Opacity of each picture, in [0, 1]. ``pictures`` show transparent areas on white, which
    ``config.backgrounds`` replaces. ``None``: no picture has transparency."""
    sizes: Int[Tensor, "sizes 2"] | None = None
    """Height and width of each picture in px, if they differ: the picture is in the upper left of
    its frame in ``pictures``, ``masks`` and ``opacity``. ``None``: every picture fills its
    frame."""
    captions: tuple[str, ...] | None = None
    """A caption for each picture, with the placeholder; ``None``: the template set of
    ``config``."""
    descriptions: Descriptions | None = None
    """The thing in people's words, for setups that use a description."""

    def by_size(self) -> list[tuple[list[int], Job]]:
        """The pictures of each size: their indices, and a job with only these, without captions."""
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
"""How a job ended: "stopped" means early but successfully, "interrupted" can be resumed."""


@dataclass(slots=True, kw_only=True)
class Result:
    """The result of a job."""

    job: Job
    status: Status
    concept: Concept | None
    """The learned word, on the CPU; ``None`` only if the job never began."""
    steps: int = 0
    best_step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss on the fixed batch)."""
    reason: str = ""
    """Why the job ended in this way; empty for "finished"."""
    cause: Exception | None = None
    """The exception, if the job failed in this call."""
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a job after a step."""

    job: Job
    config: ResolvedConfig
    """The job's settings, resolved for the model's family."""
    step: int
    """Steps done; 0 before the first."""
    evaluated: bool
    """Whether the fixed evaluation batch was scored at this step."""
    losses: Sequence[tuple[int, float]]
    """(step, loss on the fixed batch), oldest first."""
    best_loss: float
    best_step: int
    distance: float
    """Distance that the rows have moved until the last scoring, relative to the initial rows'
    norm."""
    learning_rate: float
    """Absolute rate of the last step, for the first encoder."""
    rows: Mapping[str, Tensor]
    """The present rows, by text encoder; copy them to keep them."""
    word: Callable[[], Concept]
    """Makes a copy of the present word on the CPU, ready to be saved."""
    token: str
    """Placeholder of the rows in the model: ``on_step`` may draw prompts that contain it."""
    negative_prompt: str = ""
    """Negative prompt for such a drawing."""
    message: str = ""
    """A message for the user, such as a chosen initialiser or a roll-back."""

    @property
    def loss(self) -> float:
        """Latest loss on the fixed batch; NaN before the first."""
        return self.losses[-1][1] if self.losses else math.nan


def encoder_of(name: str) -> str:
    """The text encoder that a trained tensor belongs to, by its name."""
    return re.split("[/.]", name, maxsplit=1)[0]


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
