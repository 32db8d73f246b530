"""Tokenizers in which every word of a world's captions is one token."""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from oneword.microworld.world import artwork, captions, wide_captions


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


def wide_tokenizer(model: str) -> CLIPTokenizer:
    """The tokenizer of a second world's model.

    The tiny model spells plurals, keywords and invented names in pieces: with all of them its
    tables of rows would be more than half of its weights.
    """
    if model == "microworld":
        return tokenizer(wide_captions.vocabulary())
    looks = (form for forms in wide_captions.LOOKS.values() for form in forms)
    nouns = (thing.noun for thing in artwork.things().values())
    return tokenizer((*captions.vocabulary(), *looks, *nouns))
