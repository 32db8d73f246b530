"""Stage A of PALAVRA: train the maps on pictures and texts of classes that the CLIP knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from oneword.config.palavra import PASSES, PROMPTS, TEST_PROMPT
from oneword.training.draws import generator
from oneword.training.palavra.classes import Classes, PictureClass
from oneword.training.palavra.maps import (
    STAR,
    Maps,
    PalavraError,
    Reader,
    contrastive_loss,
    unit_distance,
)


_LEARNING, _TEST = 22, 23  # streams of the draws
_BY_PICTURES, _BY_TEXTS = range(2)  # training passes of an epoch
_TESTED = 10  # epochs between tests
_SETS = 4  # of each class, in the test


def pretrain(
    reader: Reader,
    classes: Classes,
    maps: Maps,
    epochs: int,
    *,
    on_epoch: Callable[[Maps], None] | None = None,
) -> None:
    """Train the maps up to this number of epochs; the CLIP is frozen.

    Every draw is a function of the seed, the epoch and the pass, so that a resumed training gives
    the same bits.

    An epoch has two passes over the classes in shuffled batches, each with one prompt. By pictures,
    ``to_image`` learns to map each picture's sentence to the picture, and ``to_word`` a row from a
    set of them; by texts, the set is what ``to_image`` makes of sentences that hold another word of
    the class, if it has any. The row is drawn to the word's own (``row_weight``), and the prompt
    with it to the prompt with the word, away from those of the batch's other classes.

    Args:
        reader: Of the CLIP.
        classes: The training data.
        maps: The maps, changed in place.
        epochs: Total number of epochs, including those done before.
        on_epoch: Called after each epoch.

    Raises:
        PalavraError: the loss is no longer finite.
    """
    while maps.epochs < epochs:
        totals: list[dict[str, float]] = []
        for which in (_BY_PICTURES, _BY_TEXTS):
            g = generator(maps.settings.seed, _LEARNING, 2 * maps.epochs + which)
            prompt = PROMPTS[int(torch.randint(len(PROMPTS), (), generator=g))]
            order = torch.randperm(len(classes.members), generator=g)
            _set_rate(maps, which)
            for batch in order.split(maps.settings.batch_size):
                own = [classes.members[i] for i in batch.tolist()]
                totals.append(_step(reader, own, maps, prompt, g, by_texts=which == _BY_TEXTS))
        maps.epochs += 1
        if maps.epochs % _TESTED == 0 or maps.epochs == epochs:
            means = {n: math.fsum(t[n] for t in totals) / len(totals) for n in totals[0]}
            share = accuracy(reader, classes, maps)
            maps.history.append({"epoch": maps.epochs} | means | {"accuracy": share})
        if on_epoch is not None:
            on_epoch(maps)


def _set_rate(maps: Maps, which: int) -> None:
    """The rate of ``to_word`` falls with the passes, that of ``to_image`` stays."""
    rate = maps.settings.rate(PASSES * maps.epochs + which)
    maps.optimizers["to_word"].param_groups[0]["lr"] = rate


def _step(
    reader: Reader,
    chosen: Sequence[PictureClass],
    maps: Maps,
    prompt: str,
    g: torch.Generator,
    *,
    by_texts: bool,
) -> dict[str, float]:
    """One step on a set of each class; the losses."""
    settings, device = maps.settings, reader.guide.device
    words, pictures, texts = [], [], []
    for member in chosen:
        picked = _set(member.learned, settings.set_size, g)
        word = 0
        if by_texts and len(member.words) > 1:
            word = 1 + int(torch.randint(len(member.words) - 1, (), generator=g))
        words.append(member.words[word])
        pictures.append(member.pictures[picked])
        texts.append(member.texts[word, picked])
    sets, told = torch.stack(pictures).to(device), torch.stack(texts).to(device)
    if by_texts:
        with torch.no_grad():
            sets = maps.to_image(told)
    else:
        _descend(maps.optimizers["to_image"], unit_distance(maps.to_image(told), sets))
    rows = maps.to_word(F.normalize(sets, dim=-1), g)
    named = reader.texts([prompt.replace(STAR, word) for word in words])
    read = reader.with_rows(prompt, rows)
    own = torch.stack([reader.first_row(word) for word in words])
    contrast = contrastive_loss(named, read, settings.temperature)
    gap = unit_distance(rows, own)
    loss = settings.contrastive_weight * contrast + settings.row_weight * gap
    _descend(maps.optimizers["to_word"], loss)
    told = {"loss": loss, "contrast": contrast, "row": gap}
    found = {name: float(value.detach()) for name, value in told.items()}
    if not all(map(math.isfinite, found.values())):
        raise PalavraError(
            f"Training stopped because the maps' loss is not a number ({found['loss']}) in epoch "
            f"{maps.epochs + 1}; lower --learning-rate."
        )
    return found


def _set(among: Tensor, size: int, g: torch.Generator) -> Tensor:
    """This number of indices, drawn with replacement, as published."""
    return among[torch.randint(len(among), (size,), generator=g)]


def _descend(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def accuracy(reader: Reader, classes: Classes, maps: Maps) -> float:
    """Share of rows from held-back pictures that read as their own class's word, in [0, 1].

    For each tested class, four fixed sets are used, and each row's prompt is compared with the
    prompts of all tested classes' words.
    """
    tested = [classes.members[i] for i in classes.tested]
    g = generator(maps.settings.seed, _TEST)
    sets = torch.stack(
        [
            member.pictures[_set(member.held_back, maps.settings.set_size, g)]
            for member in tested
            for _ in range(_SETS)
        ]
    )
    rows = maps.to_word(F.normalize(sets.to(reader.guide.device), dim=-1))
    read = F.normalize(reader.with_rows(TEST_PROMPT, rows), dim=-1)
    words = [TEST_PROMPT.replace(STAR, member.words[0]) for member in tested]
    nearest = (read @ F.normalize(reader.texts(words), dim=-1).T).argmax(dim=1)
    own = torch.arange(len(tested), device=nearest.device).repeat_interleave(_SETS)
    return float((nearest == own).float().mean())
