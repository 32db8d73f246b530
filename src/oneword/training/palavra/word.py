"""Stage B of PALAVRA: a word starts from the maps' row for its pictures, and is trained further."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Rows
from oneword.config.palavra import WORD_PROMPT, Mode
from oneword.training.palavra.maps import (
    Maps,
    PalavraError,
    Reader,
    contrastive_loss,
    unit_distance,
)


@dataclass(slots=True, eq=False)
class Learning:
    """Words in training, a row for each, and their progress."""

    rows: Rows
    step: int = 0
    moments: dict[str, Tensor] = field(default_factory=dict)
    """State of Adam; empty before the first step."""
    losses: list[float] = field(default_factory=list)
    """The loss before each step."""


@torch.no_grad()
def begun(maps: Maps, sets: Sequence[Tensor], device: torch.device) -> Learning:
    """Words as the maps give them.

    Args:
        maps: The CLIP's maps.
        sets: Features of each thing's pictures, (pictures, dim) of unit length; any number, in any
            order.
        device: The device for training.

    Raises:
        PalavraError: a set is empty.
    """
    if not sets or not all(len(one) for one in sets):
        raise PalavraError("A word must be learned from one or more pictures, got none.")
    rows = [maps.to_word(F.normalize(one.to(device), dim=-1)[None])[0] for one in sets]
    return Learning(rows=torch.stack(rows))


def word_loss(
    mode: Mode,
    pictures: Float[Tensor, "num dim"],
    read: Float[Tensor, "num dim"],
    coarse: Float[Tensor, "num dim"] | None,
    temperature: float,
) -> Float[Tensor, ""]:
    """The loss of words for their pictures.

    Args:
        mode: "coarse": the mean over the words of the contrastive loss on two pairs, the pictures
            with the word and the coarse phrase with itself; "distance": the squared distance of
            pictures and word; "batch": the contrastive loss over all words, which is 0 for one.
        pictures: The mean of each thing's features.
        read: Features of the prompt with each word.
        coarse: With mode "coarse", the features of the coarse phrase as a picture.
        temperature: Temperature of the contrastive loss.

    Source:
        Cohen et al. 2022, arXiv:2204.01694, and its code: its modes 1, 0 and 2.
    """
    if mode == "distance":
        return unit_distance(pictures, read)
    if mode == "batch":
        return contrastive_loss(pictures, read, temperature)
    assert coarse is not None
    own = [
        contrastive_loss(torch.stack([p, c]), torch.stack([r, c]), temperature)
        for p, r, c in zip(pictures, read, coarse, strict=True)
    ]
    return torch.stack(own).mean()


def learn(
    reader: Reader,
    maps: Maps,
    sets: Sequence[Tensor],
    words: Learning,
    *,
    max_train_steps: int,
    mode: Mode,
    coarse: str,
    learning_rate: float,
    temperature: float,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Train words up to this number of steps; CLIP and maps are frozen.

    Args:
        reader: Of the CLIP.
        maps: Maps of the same CLIP; ``to_image`` maps the coarse phrase to a picture's features.
        sets: As for ``begun``.
        words: The words, changed in place.
        max_train_steps: Total number of steps, including those done before.
        mode: As for ``word_loss``.
        coarse: Phrase that the words are kept away from.
        learning_rate: Absolute rate of Adam.
        temperature: Temperature of the contrastive loss.
        on_step: ``on_step(done, total)``.

    Raises:
        PalavraError: the loss is no number any more.
    """
    device = reader.guide.device
    pictures = torch.stack([one.mean(dim=0) for one in sets]).to(device)
    apart = None
    if mode == "coarse":
        with torch.no_grad():
            unit = F.normalize(reader.texts([coarse]), dim=-1)
            apart = maps.to_image(unit).expand(len(sets), -1)
    rows = words.rows.detach().to(device).requires_grad_()
    adam = torch.optim.Adam([rows], lr=learning_rate, foreach=False)
    if words.moments:
        adam.state[rows] = {
            n: t.clone() if n == "step" else t.to(device, copy=True)
            for n, t in words.moments.items()
        }
    while words.step < max_train_steps:
        adam.zero_grad()
        read = reader.with_rows(WORD_PROMPT, rows)
        loss = word_loss(mode, pictures, read, apart, temperature)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise PalavraError(
                f"Training stopped because the word's loss is not a number ({value}) in step "
                f"{words.step + 1}; lower --learning-rate."
            )
        loss.backward()
        adam.step()
        words.losses.append(value)
        words.step += 1
        if on_step is not None:
            on_step(words.step, max_train_steps)
    words.rows = rows.detach().cpu()
    words.moments = {n: t.detach().cpu() for n, t in adam.state.get(rows, {}).items()}
