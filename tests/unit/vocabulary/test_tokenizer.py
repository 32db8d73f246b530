"""Placeholders where the tokenizers' own search for added tokens finds others than there are."""

from __future__ import annotations

import pytest
import torch

import tiny
from oneword.concepts.concept import Concept
from oneword.prompts import names
from oneword.vocabulary.inject import injected
from oneword.vocabulary.tokenizer import with_words


FIRST = 100_000
KINDS = {
    "clip": tiny.tokenizers.tokenizer,
    "bert": tiny.tokenizers.bert_tokenizer,
    "t5": tiny.tokenizers.t5_tokenizer,
    "gemma": tiny.tokenizers.gemma_tokenizer,
    "qwen": tiny.tokenizers.qwen_tokenizer,
}


def knowing(kind, *tokens):
    words = [Concept(placeholder_token=t, rows={"clip": torch.ones(2, 4)}) for t in tokens]
    return with_words(KINDS[kind](), words, FIRST, torch.device("cpu"))


def rows(tokenizer, text):
    return [i for i in tokenizer(text, add_special_tokens=False).input_ids if i >= FIRST]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("token", "text", "count"),
    [
        ("猫", "一只猫在月球上", 1),
        ("猫", "猫和猫", 2),
        ("猫", "一只 猫 在月球上", 1),
        ("cat", "一只cat在月球上", 1),
        ("zebra", "一只zebras", 0),
        ("고양이", "고양이가 달에", 1),
        ("S*", "a 5S* hotel", 0),
        ("S*", "a S*2", 1),
        ("-cat", "a -cat on the moon", 1),
        ("<caf\u00e9>", "a <cafe\u0301> on the moon", 1),
        ("<cafe\u0301>", "a <caf\u00e9> on the moon", 1),
    ],
)
def test_a_word_is_found_as_the_prompts_are_read(kind, token, text, count):
    assert rows(knowing(kind, token), text) == [FIRST, FIRST + 1] * count
    assert names(text, token) == bool(count)


def test_what_surrounds_the_word_is_read_as_without_it():
    """Qwen's tokenizer spells every byte, so nothing is lost there as unknown."""
    plain, knows = KINDS["qwen"](), knowing("qwen", "猫")

    def bare(tokenizer, text):
        return tokenizer(text, add_special_tokens=False).input_ids

    expected = [*bare(plain, "一只"), FIRST, FIRST + 1, *bare(plain, "在月球上")]
    assert bare(knows, "一只猫在月球上") == expected
    assert bare(knowing("qwen", "S*"), "a 5S* hotel") == bare(plain, "a 5S* hotel")


def test_the_longer_of_two_words_is_meant_in_both():
    tokenizer = knowing("clip", "猫", "熊猫")
    assert rows(tokenizer, "熊猫和猫") == [FIRST + 2, FIRST + 3, FIRST, FIRST + 1]


def test_a_word_inside_a_sentence_without_spaces_conditions_as_with_spaces(tiny_sd):
    vocabulary = tiny_sd.vocabularies["clip"]
    word = Concept(placeholder_token="猫", rows={"clip": vocabulary.rows_of("cat")})
    with injected(tiny_sd, [word]):
        apart, together = (
            tiny_sd.encode_prompt([text]).encoder_hidden_states
            for text in ("a photo of 猫 on the moon", "a photo of猫on the moon")
        )
    assert torch.equal(apart, together)
