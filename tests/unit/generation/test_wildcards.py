"""Wildcards in prompts: what is chosen, by which seed, and from which files."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given, strategies as st

from oneword.generation.wildcards import as_text, has_wildcards, resolved
from oneword.prompts import PromptError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "wildcards"
    (root / "in").mkdir(parents=True)
    (root / "animals.txt").write_text("# comment\ncat\ndog\n\nfox\n")
    (root / "in" / "colours.txt").write_text("red\n{light|dark} blue\n")
    (root / "both.txt").write_text("a __in/colours__ __animals__\n")
    (root / "again.txt").write_text("__again__\n")
    (root / "empty.txt").write_text("\n# nothing\n")
    (tmp_path / "secret.txt").write_text("secret\n")
    return root


def all_of(prompt, folder=None, seeds=range(200), **options):
    return collections.Counter(resolved(prompt, seed, folder=folder, **options) for seed in seeds)


def test_each_choice_comes_about_as_often():
    found = all_of("a {red|green|blue} mug", seeds=range(600))
    assert found.keys() == {"a red mug", "a green mug", "a blue mug"}
    assert min(found.values()) > 150


def test_the_seed_alone_decides():
    assert resolved("a {red|green|blue} mug", 4) == resolved("a {red|green|blue} mug", 4)
    one = [resolved("{1|2|3} a", seed) for seed in range(20)]
    other = [resolved("{1|2|3} b", seed) for seed in range(20)]
    assert [text[0] for text in one] == [text[0] for text in other]
    assert len({*one}) == 3
    many = "{1|2|3|4|5|6|7|8}" * 3
    assert resolved(many, -3) != resolved(many, 3)
    # for good: pictures name their seed
    assert [resolved("{a|b|c|d}{e|f|g|h}", seed) for seed in range(4)] == ["de", "de", "bf", "dh"]


def test_choices_in_choices():
    found = all_of("{a|{b|c} d|}!")
    assert found.keys() == {"a!", "b d!", "c d!", "!"}


def test_files_and_files_in_them(folder):
    assert all_of("a __animals__", folder).keys() == {"a cat", "a dog", "a fox"}
    found = all_of("__both__ and {__animals__|mug}", folder)
    assert all(text.startswith("a ") and "__" not in text and "{" not in text for text in found)
    assert any("light blue" in text for text in found)


@pytest.mark.parametrize(
    "prompt",
    ["a mug", "{}", "{own}", "a {red} mug", "a | b", "} {", "__init", "a__b__c", "___", "__ a __",
     r"\{a|b\}", "{a", "a|b}", "____", "__a"],
)  # fmt: skip
def test_other_braces_and_underscores_are_text(prompt):
    assert not has_wildcards(prompt)
    assert resolved(prompt, 1) == prompt.replace("\\", "")


@given(st.text(alphabet="ab{}|\\", max_size=20), st.integers(0, 5))
def test_any_text_is_resolved_to_one_without_choices(prompt, seed):
    found = resolved(prompt, seed)
    if not has_wildcards(prompt):
        assert found == prompt.replace("\\{", "{").replace("\\}", "}")
        assert resolved(as_text(found), seed) == found
    assert len(found) <= len(prompt)


def test_a_loaded_word_is_no_wildcard(folder):
    assert resolved("a __cat__ {__cat__|__cat__}", 0, words=["__cat__"]) == "a __cat__ __cat__"


def test_braces_may_be_text_beside_choices():
    assert all_of(r"\{x\} {a|b}").keys() == {"{x} a", "{x} b"}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a __animal__", "must be a file in .*, got __animal__; files there: again, animals, both"),
        ("a __/etc/passwd__", "a path that leads elsewhere"),
        ("a __../secret__", "a path that leads elsewhere"),
        ("a __in/../animals__", "a path that leads elsewhere"),
        ("a __again__", "at most 10 deep, got more in '__again__'; does a file contain its"),
        ("a __empty__", "must contain one prompt per line, got none"),
        ("{2$$a|b}", r"plain choices, got '2\$\$' in '{2\$\$a\|b}'"),
        ("{0.5::a|0.5::b}", "plain choices, got '0.5::'"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(prompt, message, folder):
    with pytest.raises(PromptError, match=message):
        resolved(prompt, 0, folder=folder)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(PromptError, match="a link that leads elsewhere"):
        resolved("__out/secret__", 0, folder=folder)


def test_without_a_folder_it_says_what_to_pass():
    with pytest.raises(
        PromptError, match=r"__animals__ without the folder .*; pass --wildcard-dir"
    ):
        resolved("__animals__", 0)


def test_a_bomb_of_choices_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 1000 + " __b__" * 30 + "\n")
    (tmp_path / "b.txt").write_text("y" * 1000 + " __c__" * 30 + "\n")
    (tmp_path / "c.txt").write_text("z" * 1000 + "\n")
    with pytest.raises(PromptError, match="at most 100000 characters"):
        resolved("__a__ __a__", 0, folder=tmp_path)
