"""Captions that change at every step: tags shuffled or left out, or the word alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from oneword.training.job import JobError


if TYPE_CHECKING:
    from oneword.config.inversion import ResolvedConfig

_WORD = re.compile(r"\{\w*\}|<slot-\d+>")  # also extra words, and those learned together with it


def varied(sentence: str, seed: int, config: ResolvedConfig) -> str:
    """A sentence with the changes of one sample.

    With ``caption_dropout_rate`` it is the word alone (other trainers use an empty caption, from
    which a word learns nothing). Otherwise its tags, the parts between commas, are shuffled after
    the first ``keep_tokens`` (``shuffle_caption``), and each is left out at the rate of
    ``caption_tag_dropout_rate``, except those with the word.

    Args:
        sentence: With "{}" for the word.
        seed: The sample's own.
        config: The settings.

    Source:
        The options are kohya's sd-scripts'; shuffled and dropped tags are also A1111's.
    """
    if not (_changes_tags(config) or config.caption_dropout_rate):
        return sentence
    g = torch.Generator().manual_seed(seed)
    if float(torch.rand((), generator=g)) < config.caption_dropout_rate:
        return _bare(sentence)
    if not _changes_tags(config):
        return sentence
    kept, rest = _tags(sentence, config)
    order = torch.randperm(len(rest), generator=g).tolist()
    u = torch.rand(len(rest), generator=g).tolist()
    rate = config.caption_tag_dropout_rate
    stays = [draw >= rate or _WORD.search(tag) for tag, draw in zip(rest, u, strict=True)]
    places = order if config.shuffle_caption else range(len(rest))
    return ", ".join([*kept, *(rest[place] for place in places if stays[place])])


def longest(sentence: str, config: ResolvedConfig) -> list[str]:
    """Variants of a sentence to check for length: the word alone, and the word at the end."""
    bare = _bare(sentence)
    found = [bare] if bare and config.caption_dropout_rate else []
    if config.shuffle_caption:
        kept, rest = _tags(sentence, config)
        rest.sort(key=lambda tag: _WORD.search(tag) is not None)
        found.append(", ".join([*kept, *rest]))
    return found


def check(name: str, sentences: Iterable[str], config: ResolvedConfig) -> None:
    """Refuse changes that change nothing.

    Args:
        name: The job's name.
        sentences: All of its sentences.
        config: The settings.

    Raises:
        JobError: no sentence has tags that could be shuffled or left out.
    """
    if not _changes_tags(config):
        return
    rests = [_tags(sentence, config)[1] for sentence in sentences]
    loose = any(not _WORD.search(tag) for rest in rests for tag in rest)
    for option, works in (
        ("shuffle_caption", not config.shuffle_caption or any(len(rest) > 1 for rest in rests)),
        ("caption_tag_dropout_rate", not config.caption_tag_dropout_rate or loose),
    ):
        if not works:
            raise JobError(
                f"Cannot use {option} in job {name!r} because its captions have no tags between "
                f"commas{' after the first keep_tokens' if config.keep_tokens else ''}; leave it "
                "out."
            )


def _changes_tags(config: ResolvedConfig) -> bool:
    return config.shuffle_caption or config.caption_tag_dropout_rate > 0


def _tags(sentence: str, config: ResolvedConfig) -> tuple[list[str], list[str]]:
    """The tags that keep their places, and the others."""
    tags = [tag.strip() for tag in sentence.split(",") if tag.strip()]
    return tags[: config.keep_tokens], tags[config.keep_tokens :]


def _bare(sentence: str) -> str:
    return " ".join(_WORD.findall(sentence))
