"""Common ways of encoding prompts: with one encoder, or one length at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oneword._typing import Latents, Timesteps
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.contract import Conditioning
from oneword.models.drawing import FamilyPipeline
from oneword.vocabulary.tokenizer import apart
from oneword.vocabulary.word import PlaceholderError


class OneEncoder(FamilyPipeline):
    """A family whose prompts are read by one text encoder, token by token.

    A family sets ``prompt_options`` and adds ``_denoise``.
    """

    mask_at: ClassVar[int | None] = 1
    """Index of the mask of the prompt's own tokens in the pipeline's output, if it has one."""
    unguided: ClassVar[dict[str, Any]] = {"do_classifier_free_guidance": False}
    """Arguments with which the pipeline encodes no negative prompt, if it has one."""

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """Hidden states of the text encoder, and its mask in ``extra``."""
        found = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            **self.unguided,
            **self.prompt_options,
        )
        extra = {} if self.mask_at is None else {"mask": found[self.mask_at]}
        return Conditioning(found[0], extra=extra)


class OneLength(FamilyPipeline):
    """A family that reads prompts with their padding; each is padded as if it were alone.

    Prompts of different lengths are encoded, denoised and drawn in groups. A family adds
    ``_read_alike`` and ``_denoise_alike``, which get prompts of one length, and ``_lengths`` if it
    has several text encoders or a template.
    """

    block: ClassVar[int] = 1
    """Prompts are padded to multiples of so many tokens."""
    alike = "of the same length in tokens"

    def _read(self, prompts: Sequence[str]) -> Conditioning:
        """States of the prompts and their padding; in ``extra``, how many where that differs."""
        groups = self._alike(prompts)
        if len(groups) == 1:
            return self._read_alike(prompts)
        found: dict[int, Conditioning] = {}
        for places in groups:
            cond = self._read_alike([prompts[i] for i in places])
            found |= {place: cond[i] for i, place in enumerate(places)}
        parts = [found[i] for i in range(len(prompts))]
        states = [self._states(part) for part in parts]
        extra = {
            name: pad_sequence([part.extra[name] for part in parts], batch_first=True)
            for name in parts[0].extra
        }
        extra["lengths"] = torch.tensor([len(one) for one in states], device=self.device)
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(
            pad_sequence(states, batch_first=True), torch.stack(pooled) if pooled else None, extra
        )

    def _denoise(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The denoiser's own prediction, float32, for prompts of one length after another."""
        if "lengths" not in cond.extra:
            return self._denoise_alike(x_t, t, cond)
        lengths = cond.extra["lengths"].tolist()
        found: dict[int, Tensor] = {}
        for length in sorted(set(lengths)):
            places = [i for i, own in enumerate(lengths) if own == length]
            part = Conditioning(
                self._states(cond)[places, :length],
                None if cond.pooled is None else cond.pooled[places],
                {
                    name: value[places] if name == "sizes" else value[places, :length]
                    for name, value in cond.extra.items()
                    if name != "lengths"
                },
            )
            drawn = self._denoise_alike(x_t[places], t[places], part)
            found |= dict(zip(places, drawn, strict=True))
        return torch.stack([found[i] for i in range(len(x_t))])

    def _read_alike(self, prompts: Sequence[str]) -> Conditioning:
        """States of prompts of one length, which is the second axis of all but pooled tensors."""
        raise NotImplementedError

    def _denoise_alike(self, x_t: Latents, t: Timesteps, cond: Conditioning) -> Latents:
        """The denoiser's own prediction, float32, for prompts of one length."""
        raise NotImplementedError

    def _alike(self, prompts: Sequence[str]) -> list[list[int]]:
        """Places of the prompts that are padded to one length, by length."""
        blocks = [math.ceil(length / self.block) for length in self._lengths(prompts)]
        order = sorted(range(len(prompts)), key=blocks.__getitem__)
        return [list(places) for _, places in groupby(order, key=blocks.__getitem__)]

    def _lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens that are read of each prompt, without padding."""
        (vocabulary,) = self.vocabularies.values()
        found = vocabulary.tokenizer(
            list(prompts), max_length=vocabulary.max_length, truncation=True
        )
        return [len(ids) for ids in found.input_ids]


def key_of(encoder: Any, keys: Mapping[int, str], other: str) -> str:
    """Name of a language model's rows in concept files, by the width of its embedding table.

    Args:
        encoder: The language model.
        keys: Names of the known ones by width.
        other: Name of one of another width.
    """
    return keys.get(encoder.get_input_embeddings().weight.shape[1], other)


def chat_tokens(
    tokenizer: Any, name: str, messages: Sequence[dict[str, Any]] | None = None, **options: Any
) -> int:
    """How many tokens of a prompt's length a chat template takes for itself.

    Args:
        tokenizer: The tokenizer, or the processor around it, that fills the template.
        name: The model, for the message.
        messages: What the family's pipeline says for an empty prompt.
        options: What it tells the template besides.

    Raises:
        ModelError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {name} must have a chat template, which its family's prompts need, "
            "got none; its chat_template.jinja is missing."
        )
    empty = [{"role": "user", "content": ""}]
    text = tokenizer.apply_chat_template(messages or empty, tokenize=False, **options)
    return len(getattr(tokenizer, "tokenizer", tokenizer)(text).input_ids)


def spare_words(pipeline: Any) -> None:
    """Let a pipeline lower-case and clean everything in a prompt except the words of concepts.

    Otherwise ``<Cat>`` would become ``<cat>``, or be removed as HTML.
    """
    stock = pipeline._text_preprocessing

    def preprocessed(text: Any, clean_caption: bool = False) -> list[str]:
        change = sparing(pipeline, lambda part: stock(part, clean_caption=clean_caption)[0])
        return [change(one) for one in ([text] if isinstance(text, str) else text)]

    pipeline._text_preprocessing = preprocessed


def sparing(pipeline: Any, clean: Callable[[str], str]) -> Callable[[str], str]:
    """A cleaning of prompts that does not change the words of concepts.

    It sees a plain word instead, so that the text next to them is cleaned as usual.
    """

    def change(text: str) -> str:
        tokenizer = getattr(pipeline.tokenizer, "tokenizer", pipeline.tokenizer)  # in a processor
        parts = apart(tokenizer, text)
        words = parts[1::2]
        if not words:
            return clean(text)
        stand_in = "word"
        while stand_in in text.lower():
            stand_in = f"wo{stand_in[1:]}"  # begins and ends as nothing inside it does
        kept = clean(stand_in.join(parts[::2])).split(stand_in)
        if len(kept) != len(parts[::2]):
            raise PlaceholderError(
                f"Cannot use the prompt {text!r} because the pipeline of {pipeline.name_or_path} "
                f"cleans it and loses {words[0]!r}; put spaces around the word."
            )
        return kept[0] + "".join(map("".join, zip(words, kept[1:], strict=True)))

    return change


def refuse_clip_skip(config: ModelConfig, family: str, *, pools: bool = False) -> None:
    """Refuse ``clip_skip`` for a family without CLIP, or with only its pooled output.

    Raises:
        ModelError: ``clip_skip`` was given.
    """
    if config.clip_skip is None:
        return
    if pools:
        raise ModelError(
            f"Cannot use clip_skip {config.clip_skip} with {family} because it takes only CLIP's "
            "pooled output, for which no layer can be skipped; leave it out."
        )
    raise ModelError(
        f"Cannot use clip_skip {config.clip_skip} with {family} because it has no CLIP; leave it "
        "out."
    )


def refuse_negative_prompt(sampling: SamplingConfig, family: str) -> None:
    """Refuse a negative prompt for a family that has none.

    Raises:
        ModelError: ``negative_prompt`` was given.
    """
    if sampling.negative_prompt:
        raise ModelError(
            f"Cannot use the negative prompt {sampling.negative_prompt!r} with {family} because "
            "it takes none; leave it out."
        )
