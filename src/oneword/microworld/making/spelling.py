"""Tokenizers in which every word of a world's captions is one token."""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer


def tokenizer(texts: Iterable[str], context: int = 77) -> CLIPTokenizer:
    """A byte-pair tokenizer in which every word of the texts is one token.

    Each word is built from its end, letter by letter, so that its merges apply in one order only
    and whatever words there are besides. (The trainer of the tokenizers library breaks ties
    differently each time.)

    Args:
        texts: Sentences, phrases or words.
        context: Most tokens of a text.
    """
    words = sorted({w for text in texts for w in re.findall(r"\w+|[^\w\s]", text)})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet)])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        end = word[-1] + "</w>"
        for letter in reversed(word[:-1]):
            merges[letter, end] = None
            end = letter + end
            pieces[end] = None
    vocab = {piece: index for index, piece in enumerate(pieces)}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=context)
