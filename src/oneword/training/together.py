"""Words that are learned together, so that they can share a picture."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oneword._typing import Pixels
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone
from oneword.prompts import places, replaced
from oneword.training.draws import generator
from oneword.training.extensions import form
from oneword.training.fit import check_fit, filled, longest_words
from oneword.training.job import Job, JobError, Result
from oneword.training.learner import slot_token
from oneword.training.loop import invert_many, raise_failure
from oneword.training.parts import captions_or_templates
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


PASTED_CAPTION = "a photo of a {} and a {}"
"""Caption of a picture with another pasted in; the first "{}" is the picture's own word."""


_STREAM = 77
"""Stream of the pastings' draws."""


def pasted(
    base: Tensor, other: Tensor, draws: torch.Generator, mask: Tensor | None = None
) -> Tensor:
    """A picture with another pasted into a box of a quarter to half its side, at a random position.

    Args:
        base: (3, height, width).
        other: Likewise; it is shrunk to the box.
        draws: Draws for size and position of the box.
        mask: (1, height, width), the part of ``other`` that is pasted; ``None``: all of it.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.4 suggests the idea; the box follows the
        authors' unpublished code.
    """
    u = torch.rand(3, generator=draws).tolist()
    height, width = base.shape[1:]
    side = 0.25 + 0.25 * u[0]
    size = (max(1, round(side * height)), max(1, round(side * width)))
    top, left = int(u[1] * (height - size[0] + 1)), int(u[2] * (width - size[1] + 1))
    small = F.interpolate(other[None], size, mode="bilinear", antialias=True)[0].clamp(-1, 1)
    found = base.clone()
    box = found[:, top : top + size[0], left : left + size[1]]
    weight = 1.0 if mask is None else F.interpolate(mask[None], size, mode="area")[0]
    found[:, top : top + size[0], left : left + size[1]] = weight * small + (1 - weight) * box
    return found


def invert_together(
    backbone: Backbone,
    jobs: Sequence[Job],
    *,
    paste: float = 0.1,
    together: tuple[Pixels, Sequence[str]] | None = None,
    seed: int = 0,
    replace: bool = False,
    **parts: Any,
) -> list[Result]:
    """Learn several words in one batch, with sentences that name more than one of them.

    Args:
        backbone: The frozen model.
        jobs: One for each word, with different placeholders, an initialiser each, and the same
            number of steps.
        paste: Share of the samples, in [0, 1), in which a picture of another word is pasted into
            the job's own, with a caption that names both. Each picture gets one such composite; if
            a job has masks, only the masked part is pasted.
        together: Pictures with several of the things, each with a caption that contains their
            placeholders; each counts as much as one of a job's own pictures.
        seed: Seed of the pastings.
        replace: Allow placeholders that are already words of the model.
        **parts: As for :func:`oneword.invert_many`.

    Raises:
        JobError: the words cannot be learned together, a sentence is too long for them, or a
            placeholder is already a word of the model.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.4 (named as future work).
    """
    configs = [job.config.resolved(backbone.family) for job in jobs]
    _check(jobs, configs, paste)
    # the loop fills its slots in the order of the jobs
    slots = {job.config.placeholder_token: slot_token(i) for i, job in enumerate(jobs)}
    pictures: list[list[Tensor]] = []
    solid: list[list[Tensor]] = []
    sentences: list[list[tuple[str, ...]]] = []
    for job, config in zip(jobs, configs, strict=True):
        pictures.append(list(job.pictures))
        solid.append(
            [*(torch.ones_like(job.pictures[:, :1]) if job.opacity is None else job.opacity)]
        )
        sentences.append([tuple(s) for s in captions_or_templates(job, config)])
    for picture, caption in zip(*together, strict=True) if together else ():
        owner = _owner(caption, jobs)
        pictures[owner].append(picture)
        solid[owner].append(torch.ones_like(picture[:1]))
        sentences[owner].append((_named(caption, jobs[owner], slots),))
    mixed, told = [], {}
    for i, job in enumerate(jobs):
        composites = _composites(jobs, i, seed) if paste else []
        # repeats of the pictures per composite, which give composites their share of the deck
        repeats = max(1, round((1 - paste) / paste)) if paste else 1
        deck: list[Tensor] = []
        opacity: list[Tensor] = []
        said: list[tuple[str, ...]] = []
        for place, picture in enumerate(pictures[i]):
            deck += [picture] * repeats
            opacity += [solid[i][place]] * repeats
            said += [sentences[i][place]] * repeats
            if place < len(composites):  # spread, so that the fixed batch contains some
                other, composite = composites[place]
                word = slots[jobs[other].config.placeholder_token]
                deck.append(composite)
                opacity.append(torch.ones_like(composite[:1]))
                said.append((PASTED_CAPTION.format("{}", word),))
        told[job.name] = said
        mixed.append(
            dataclasses.replace(
                job,
                config=configs[i],
                pictures=torch.stack(deck),
                crops=None,
                masks=None,
                opacity=None if job.opacity is None else torch.stack(opacity),
                captions=None,
            )
        )
    try:
        _check_words(backbone, mixed, told, slots, replace=replace)
    except PlaceholderError as error:
        raise JobError(str(error)) from error
    results = invert_many(
        backbone,
        mixed,
        slots=len(mixed),
        prompts=lambda job, _: told[job.name],
        **parts,
    )
    for result in results:
        raise_failure(result)
        if result.concept is not None:
            result.concept.provenance["learned_together"] = {"words": list(slots), "paste": paste}
    return results


def _check(jobs: Sequence[Job], configs: Sequence[ResolvedConfig], paste: float) -> None:
    tokens = [job.config.placeholder_token for job in jobs]
    if len(jobs) < 2 or len(set(tokens)) < len(jobs):
        raise JobError(f"Words learned together must be two or more different ones, got {tokens}.")
    if not 0 <= paste < 1:
        raise JobError(f"paste must be in [0, 1), got {paste}.")
    bare = next((job.name for job in jobs if job.config.initializer_token is None), None)
    if bare is not None:
        raise JobError(
            f"Words learned together must each have an initializer token, got none for {bare!r}."
        )
    form = next((c.form for c in configs if c.form != "rows"), None)
    if form is not None:
        raise JobError(f"form must be 'rows' for words learned together, got {form!r}.")
    steps = {config.max_train_steps for config in configs}
    shapes = {tuple(one.pictures.shape[1:]) for job in jobs for _, one in job.by_size()}
    if len(steps) > 1 or len(shapes) > 1:
        raise JobError(
            "Words learned together must have the same number of steps and pictures of one size, "
            f"got {sorted(map(str, steps))} steps and sizes {sorted(shapes)}."
        )


def _check_words(
    backbone: Backbone,
    jobs: Sequence[Job],
    told: Mapping[str, Sequence[tuple[str, ...]]],
    slots: Mapping[str, str],
    *,
    replace: bool,
) -> None:
    """Refuse settings that do not fit one of the words, before any is trained."""
    words = []
    for job in jobs:
        config = job.config.resolved(backbone.family)
        found, _ = longest_words(backbone, job, config, form(config))
        words += found
    tokens = {slot: token for token, slot in slots.items()}
    with injected(backbone, words, replace=replace):
        for job in jobs:
            token = job.config.placeholder_token
            sentences = {replaced(s, tokens) for choices in told[job.name] for s in choices}
            fill = partial(filled, token=token)
            check_fit(backbone, sorted(sentences), fill, token=token)


def _composites(jobs: Sequence[Job], own: int, seed: int) -> list[tuple[int, Tensor]]:
    """For each picture of a job: another job's index, and the picture with one of its pasted in."""
    others = itertools.cycle([i for i in range(len(jobs)) if i != own])
    found = []
    for place, (base, other) in enumerate(zip(jobs[own].pictures, others)):  # noqa: B905  (endless)
        draws = generator(seed, _STREAM + own, place)
        which = int(torch.randint(len(jobs[other].pictures), (1,), generator=draws))
        masks = jobs[other].masks
        mask = None if masks is None else masks[which]
        found.append((other, pasted(base, jobs[other].pictures[which], draws, mask)))
    return found


def _owner(caption: str, jobs: Sequence[Job]) -> int:
    """The job that a picture with several things belongs to: that of the word named first."""
    words = [job.config.placeholder_token for job in jobs]
    found = [word for _, _, word in places(caption, words)]
    if len({*found}) < 2:
        raise JobError(
            "The caption of a picture with several things must name two or more of "
            f"{', '.join(words)}, got {caption!r}."
        )
    return words.index(found[0])


def _named(caption: str, owner: Job, slots: Mapping[str, str]) -> str:
    """A caption with "{}" for the owner's word, and slot placeholders for the others."""
    return replaced(caption, {**slots, owner.config.placeholder_token: "{}"})
