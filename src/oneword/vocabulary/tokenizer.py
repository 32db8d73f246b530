"""Tokenizers that know placeholders while these are injected."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import BatchEncoding

from oneword.prompts import places, spellings
from oneword.vocabulary.vocabulary import behind
from oneword.vocabulary.word import PlaceholderError, Word


class TooLongError(PlaceholderError):
    """A prompt is too long, so that a word or a part of it would be cut off."""

    def __init__(self, limit: int, length: int, text: str) -> None:
        """Make the message for a prompt.

        Args:
            limit: Number of tokens that are read.
            length: Number of tokens in the prompt.
            text: The prompt.
        """
        super().__init__(
            f"A prompt must fit into {limit} tokens up to its placeholder's last vector, got "
            f"{length} tokens in {text!r}; shorten the prompt, or move the placeholder to its "
            "start."
        )
        self.limit, self.length, self.text = limit, length, text


class _WordTokenizer:
    """Mixed into a copy of a tokenizer: placeholders become row ids before truncation."""

    _expansions: dict[int, list[int]]  # id of the placeholder's token -> row ids
    _spellings: dict[int, str]
    _first_row: int
    _original: Any
    _device: torch.device
    _known: dict[tuple[str, bool], list[int]]

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        # diffusers would otherwise rewrite prompts that contain an added token
        return self._original.added_tokens_encoder

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        plain = super().__call__  # type: ignore[misc]
        texts = [text] if isinstance(text, str) else text
        is_prompts = isinstance(texts, list | tuple) and all(isinstance(t, str) for t in texts)
        if args or not is_prompts or not self._names_one(texts):
            return plain(text, *args, **kwargs)
        special = kwargs.get("add_special_tokens", True)
        encoded = [self._expanded(t, special) for t in texts]
        limit = kwargs.get("max_length") or self.model_max_length  # type: ignore[attr-defined]
        if kwargs.get("truncation"):
            encoded = [
                self._truncated(ids, limit, special, t)
                for ids, t in zip(encoded, texts, strict=True)
            ]
        features = {"input_ids": encoded, "attention_mask": [[1] * len(ids) for ids in encoded]}
        if "token_type_ids" in self.model_input_names:  # type: ignore[attr-defined]
            features["token_type_ids"] = [[0] * len(ids) for ids in encoded]
        padding = kwargs.get("padding", False)
        batch = BatchEncoding(features)
        if padding:
            batch = self.pad(  # type: ignore[attr-defined]
                batch,
                padding=padding,
                max_length=limit if padding == "max_length" else None,
                pad_to_multiple_of=kwargs.get("pad_to_multiple_of"),
            )
        data = {key: list(value) for key, value in batch.items()}
        if kwargs.get("return_attention_mask") is False:
            data.pop("attention_mask")
        if isinstance(text, str) and kwargs.get("return_tensors") is None:
            data = {key: value[0] for key, value in data.items()}
        found = BatchEncoding(data, tensor_type=kwargs.get("return_tensors"))
        if self._device.type == "cuda" and kwargs.get("return_tensors") == "pt":
            # pipelines move ids without pinning, so the CPU would wait in every step
            for key, value in found.items():
                found[key] = value.pin_memory().to(self._device, non_blocking=True)
        return found

    def _names_one(self, texts: Sequence[str]) -> bool:
        forms = {form for word in self._spellings.values() for form in spellings(word)}
        return any(form in t for t in texts for form in forms)

    def _expanded(self, text: str, special: bool) -> list[int]:
        if (text, special) not in self._known:
            ids = self._by_offsets(text, special) if self.is_fast else None  # type: ignore[attr-defined]
            self._known[text, special] = self._by_parts(text, special) if ids is None else ids
        return self._known[text, special]

    def _by_parts(self, text: str, special: bool) -> list[int]:
        """The ids, for tokenizers that do not find the words themselves.

        A tokenizer written in Python does not tell where its tokens are; a fast one does not see a
        word surrounded by letters of a script without spaces. The text between the words is
        tokenised separately, as if it followed another word.
        """
        plain = super().__call__  # type: ignore[misc]

        def bare(part: str) -> list[int]:
            return list(self._original(part, add_special_tokens=False, verbose=False).input_ids)

        rows = {word: self._expansions[token] for token, word in self._spellings.items()}
        parts = apart(self, text)
        ids = bare(parts[0].removesuffix(" ") if parts[1:] else text)
        for i in range(1, len(parts), 2):
            after = parts[i + 1]
            # as with other tokenizers, a row also replaces the space before it
            ids += rows[parts[i]]
            ids += behind(bare, after.removesuffix(" ") if parts[i + 2 :] else after)
        if not special:
            return ids
        head, tail = self._special_lengths()
        full = list(plain("a").input_ids)
        return full[:head] + ids + full[len(full) - tail :]

    def _by_offsets(self, text: str, special: bool) -> list[int] | None:
        """The ids, with the words that the tokenizer finds; ``None`` if it finds the wrong ones."""
        encoded = super().__call__(  # type: ignore[misc]
            text, add_special_tokens=special, return_offsets_mapping=True, verbose=False
        )
        ids: list[int] = []
        found: list[tuple[int, int, str]] = []
        before: tuple[int, int] | None = None
        for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
            if token in self._expansions and text[start:end] == self._spellings[token]:
                found.append((start, end, self._spellings[token]))
                # Gemma's words include the space before them, and a row replaces such a word. Some
                # tokenizers give a lone space no width
                lone = before in ((start - 1, start), (start, start))
                if lone and text[start - 1] == " ":
                    ids.pop()
                ids += self._expansions[token]
            else:
                ids.append(token)
            before = start, end
        return ids if found == places(text, self._spellings.values()) else None

    def _truncated(self, ids: list[int], limit: int, special: bool, text: str) -> list[int]:
        if len(ids) <= limit:
            return ids
        head, tail = self._special_lengths() if special else (0, 0)
        kept = ids[: limit - tail] + ids[len(ids) - tail :]
        if any(token >= self._first_row for token in ids[limit - tail : len(ids) - tail]):
            raise TooLongError(limit - head - tail, len(ids) - head - tail, text)
        return kept

    def _special_lengths(self) -> tuple[int, int]:
        plain = super().__call__  # type: ignore[misc]
        bare = plain("a", add_special_tokens=False).input_ids
        full = plain("a").input_ids
        head = full.index(bare[0])
        return head, len(full) - head - len(bare)

    def _readable(self, ids: Any) -> Any:
        if isinstance(ids, Tensor):
            ids = ids.tolist()
        if isinstance(ids, int):
            return self._owner(ids) if ids >= self._first_row else ids
        return [self._readable(i) for i in ids]

    def _owner(self, row: int) -> int:
        return next(token for token, rows in self._expansions.items() if row in rows)

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        return super().decode(self._readable(token_ids), *args, **kwargs)  # type: ignore[misc]

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        readable = self._readable(sequences)
        return super().batch_decode(readable, *args, **kwargs)  # type: ignore[misc]

    def convert_ids_to_tokens(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        readable = self._readable(ids)
        return super().convert_ids_to_tokens(readable, *args, **kwargs)  # type: ignore[misc]


def is_single(token: str) -> bool:
    """Whether a placeholder begins and ends like a word, and so must not match inside one."""
    return token[0].isalnum() and token[-1].isalnum()


def truncated(tokenizer: Any, ids: list[int], limit: int, text: str) -> list[int]:
    """The first ids of a prompt that is longer than the family's own encoding takes.

    Args:
        tokenizer: A pipeline's, inside ``injected`` or not.
        ids: The prompt's ids, without special tokens.
        limit: How many ids to keep.
        text: The prompt, for the message.

    Raises:
        TooLongError: a word of a concept would be cut off.
    """
    cut = getattr(tokenizer, "_truncated", None)
    return ids[:limit] if cut is None else cut(ids, limit, special=False, text=text)


def with_words(
    tokenizer: Any, concepts: Sequence[Word], first_row: int, device: torch.device
) -> Any:
    """A copy of a tokenizer that turns each concept's placeholder into its row ids."""
    words = copy.deepcopy(tokenizer)
    decoding = getattr(words, "_wrap_decode_method_backend_tokenizer", None)
    if decoding is not None:  # CLIP's tokenizer patches its own decoding; a copy loses the patch
        decoding()
    words.__class__ = type(type(tokenizer).__name__, (_WordTokenizer, type(tokenizer)), {})
    words._original = tokenizer
    words._first_row, words._device, words._known = first_row, device, {}
    words._expansions, words._spellings = {}, {}
    row = first_row
    for concept in concepts:
        token = concept.placeholder_token
        added = AddedToken(token, normalized=False, single_word=is_single(token))
        if words.is_fast:
            words.add_tokens([added])
            index = words.convert_tokens_to_ids(token)
        else:  # it is found in the text, and needs a token only for decoding
            index = row
            words._added_tokens_decoder[index] = added
        words._expansions[index] = list(range(row, row + concept.num_vectors))
        words._spellings[index] = token
        row += concept.num_vectors
    return words


def apart(tokenizer: Any, text: str) -> list[str]:
    """A text split into parts; every second one is a placeholder that the tokenizer knows.

    Args:
        tokenizer: A pipeline's, inside ``injected`` or not.
        text: A prompt.

    Returns:
        One more than twice the number of placeholders; the parts between may be empty.
    """
    parts, last = [], 0
    for start, end, token in places(text, getattr(tokenizer, "_spellings", {}).values()):
        parts += [text[last:start], token]
        last = end
    return [*parts, text[last:]]
