"""Weights in prompts: what is written, what is left alone, and what it does to hidden states."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, strategies as st

from oneword.models import emphasis
from oneword.models.emphasis import Part, parts_of, plain, spelled
from oneword.prompts import PromptError


def read(prompt, kind):
    return [(part.text, round(part.weight, 6)) for part in parts_of(prompt, kind)]


# the examples that A1111's own parser is documented with
A1111 = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55),
        (", sun, ", 1.1), ("sky", 1.4641), (".", 1.1),
    ],
    "[less]": [("less", round(1 / 1.1, 6))],
    "[[less]": [("less", round(1 / 1.21, 6))],
    "a) b]": [("a) b]", 1.0)],
    "(a:b)": [("a:b", 1.1)],
    "(a : 1.5 )": [("a ", 1.5)],
    "(a:.5)": [("a", 0.5)],
}  # fmt: skip


@pytest.mark.parametrize("prompt", A1111)
def test_a1111s_syntax(prompt):
    assert read(prompt, "a1111") == A1111[prompt]


NUMBERS = {
    "a (word:1.3) b": [("a ", 1.0), ("word", 1.3), (" b", 1.0)],
    "((word:1.2) more:1.5)": [("word", 1.8), (" more", 1.5)],
    "a (word) and [word]": [("a (word) and [word]", 1.0)],
    "a (big (red) mug:1.3)": [("a ", 1.0), ("big (red) mug", 1.3)],
    "(a (b:1.2) c)": [("(a ", 1.0), ("b", 1.2), (" c)", 1.0)],
    r"\(word:1.3\)": [("(word:1.3)", 1.0)],
    "word:1.3)": [("word:1.3)", 1.0)],
    "(word:1.3": [("(word:1.3", 1.0)],
    r"a \[b\] \n": [(r"a \[b\] \n", 1.0)],
    ":) :( (:": [(":) :( (:", 1.0)],
}


@pytest.mark.parametrize("prompt", NUMBERS)
def test_a_number_makes_a_weight_and_nothing_else_does(prompt):
    assert read(prompt, "numbers") == NUMBERS[prompt]
    assert read(prompt, "none") == [(prompt, 1.0)]


@given(st.text(alphabet="ab ()[]:.,1\\|{}", max_size=30))
def test_without_weights_nothing_changes(prompt):
    try:
        parts = parts_of(prompt, "numbers")
    except PromptError:
        return
    if not emphasis.is_weighted(parts):
        unescaped = prompt.replace("\\(", "(").replace("\\)", ")")
        assert plain(prompt) in (prompt, unescaped) or "\\" in prompt or ":1" in prompt


@given(st.text(alphabet="ab ()[]:.,1", max_size=30), st.sampled_from(["numbers", "a1111"]))
def test_another_tool_reads_the_same(prompt, kind):
    try:
        mine = parts_of(prompt, kind)
        theirs = parts_of(spelled(prompt, kind), "a1111")
    except PromptError:
        return
    assert [p.text for p in mine] == [p.text for p in theirs]
    assert all(
        math.isclose(a.weight, b.weight, rel_tol=1e-4) for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ("an aspect (of 16:9)", "numbers", r"in \[0, 5\], got 9 for 'of 16' .* --emphasis none"),
        ("(a:-1)", "numbers", r"in \[0, 5\], got -1"),
        ("((a:3):3)", "a1111", "got 9"),
        ("[cat:dog:0.5]", "a1111", r"between steps, as '\[cat:dog:0.5\]'"),
        ("a [cat|dog]", "a1111", "between steps"),
        ("[cat:0.5]", "a1111", "between steps"),
        ("a cat BREAK a dog", "a1111", "Cannot read BREAK"),
        ("a cat AND a dog", "a1111", "Cannot read AND"),
        ("(" * 101, "a1111", "at most 100 deep"),
    ],
)
def test_what_is_not_read_is_said(prompt, kind, message):
    with pytest.raises(PromptError, match=message):
        parts_of(prompt, kind)


def test_brackets_that_are_left_as_text_beside_weights_are_told():
    prompts = ["(a) (b:1.2)", "(a)", "(b:1.2)", "[a] (b:1.2)"]
    assert emphasis.brackets_left(prompts, "numbers") == ["(a) (b:1.2)", "[a] (b:1.2)"]
    assert emphasis.brackets_left(prompts, "a1111") == []


def test_a_long_prompt_is_read_at_once():
    start = time.process_time()
    parts_of("(" * 20_000 + ":" * 20_000 + ")" * 20_000)
    assert time.process_time() - start < 5


def test_the_mean_is_kept_and_the_rest_is_times_its_weight():
    states = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)) + 1
    weights = torch.tensor([[1, 1.3, 1.3, 0.5, 1], [1.0] * 5])
    found = emphasis.weighed(states, weights)
    expected = states[0] * weights[0, :, None]
    expected = expected * (states[0].mean() / expected.mean())
    assert torch.allclose(found[0], expected, atol=1e-5)
    assert torch.allclose(found[0].mean(), states[0].mean(), atol=1e-5)
    assert torch.equal(found[1], states[1])


def test_a_mean_of_nothing_is_not_restored():
    half = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    states = torch.cat([half, -half], dim=2)
    weights = torch.tensor([[1, 2, 1, 1.0]])
    assert torch.allclose(emphasis.weighed(states, weights), states * weights[..., None])


def test_parts_are_joined_as_they_are_tokenised():
    assert plain("a (cat:1.3), red") == "a cat , red"
    assert plain("a (cat), red") == "a (cat), red"
    assert Part("a").weight == 1
