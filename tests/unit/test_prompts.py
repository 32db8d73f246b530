from __future__ import annotations

import collections

import pytest

from oneword.prompts import (
    DUAL_TEMPLATES,
    EDIT_PROMPTS,
    PHOTO_PROMPTS,
    PROMPT_LISTS,
    TEMPLATES,
    PromptError,
    as_template,
    expanded,
    fill,
    named,
    names,
    places,
    read_prompts,
    replaced,
    strangers,
    with_word,
    without_placeholder,
)


def test_the_published_sets_have_their_published_sizes():
    sizes = {name: (len(found), len(set(found))) for name, found in TEMPLATES.items()}
    assert sizes == {
        "paper27dot": (27, 27),
        "release27": (27, 27),
        "head81": (81, 57),  # two thirds of its second and third part repeat the first
        "style19dot": (19, 17),
        "style19": (19, 17),
    }


def test_the_papers_style_list_has_two_of_its_sentences_twice():
    doubled = ("a cropped painting", "a close-up painting")
    for name, stop in (("style19", ""), ("style19dot", ".")):
        sentences = collections.Counter(TEMPLATES[name])
        assert [s for s, count in sentences.items() if count == 2] == [
            f"{kind} in the style of {{}}{stop}" for kind in doubled
        ]
    assert TEMPLATES["style19dot"] == tuple(t + "." for t in TEMPLATES["style19"])


def test_the_sentences_with_two_words_are_lists_of_their_own():
    sizes = {name: (len(found), len(set(found))) for name, found in DUAL_TEMPLATES.items()}
    assert sizes == {
        "paper27dot": (27, 27),
        "release27": (27, 27),
        "head81": (27, 27),
        "style19dot": (17, 16),
        "style19": (17, 16),
    }
    plain, dual = TEMPLATES["style19"], DUAL_TEMPLATES["style19"]
    odd = "a painting of one {} in the style of {own}"
    left_out = {"a picture in the style of {}", "a rendition in the style of {}"}
    assert {s.removesuffix(" with {own}") for s in dual} == set(plain) - left_out | {odd}
    (twice,) = (s for s, count in collections.Counter(dual).items() if count == 2)
    assert twice == "a cropped painting in the style of {} with {own}"
    assert DUAL_TEMPLATES["style19dot"] == tuple(s + "." for s in dual)
    assert DUAL_TEMPLATES["release27"] == tuple(f"{s} with {{own}}" for s in TEMPLATES["release27"])
    for name, found in DUAL_TEMPLATES.items():
        assert all(s.count("{}") == s.count("{own}") == 1 for s in found)
        assert all(s.endswith(".") == name.endswith("dot") for s in found)


def test_every_template_holds_the_word_once_and_the_papers_end_with_a_full_stop():
    for name, found in TEMPLATES.items():
        assert all(t.count("{}") == 1 for t in found)
        assert all(t.endswith(".") == name.endswith("dot") for t in found)
    for prompts in (EDIT_PROMPTS, PHOTO_PROMPTS):
        for kinds in prompts.values():
            for found in kinds.values():
                assert all("{}" in t for t in ([found] if isinstance(found, str) else found))


@pytest.mark.parametrize(
    ("prompt", "token", "found"),
    [
        ("a photo of S*", "S*", True),
        ("a photo of S*.", "S*", True),
        ("a photo of s*", "S*", False),
        ("a cathedral", "cat", False),
        ("a cat, sitting", "cat", True),
        ("<a><b>", "<b>", True),
        ("my_cat", "cat", False),
        ("*", "*", True),
        ("a 5S* hotel", "S*", False),
        ("S*2", "S*", True),
        ("一只猫在月球上", "猫", True),
        ("一只cat在月球上", "cat", True),
        ("一只cats在月球上", "cat", False),
        ("月の上の猫の写真", "猫", True),
        ("ネコが", "ネコ", True),
        ("고양이가 달에 있다", "고양이", True),
        ("แมวบนดวงจันทร์", "แมว", True),
        ("a cafe\u0301s", "cafe\u0301", False),  # an accent of its own is part of the letter
        ("a caf\u00e9", "cafe\u0301", True),  # the same word, typed elsewhere
        ("a cafe\u0301", "caf\u00e9", True),
        ("a cafe\u0301s", "caf\u00e9", False),
        ("котики", "кот", False),
    ],
)
def test_a_placeholder_is_found_as_the_tokenizer_finds_it(prompt, token, found):
    assert names(prompt, token) is found


def test_prompts_become_templates_and_back():
    template = as_template("a photo of a S* beside S*", "S*")
    assert template == "a photo of a {} beside {}"
    assert fill(template, "<x>") == "a photo of a <x> beside <x>"


def test_of_words_that_begin_alike_the_longest_is_meant():
    assert named("a S*2 and a <b>", ["S*", "S*2", "<b>"]) == {"S*2", "<b>"}
    assert places("cat-so", ["cat", "cat-s"]) == [(0, 3, "cat")]
    swapped = replaced("a S* beside a S*2", {"S*": "S*2", "S*2": "S*"})
    assert swapped == "a S*2 beside a S*"
    assert places("", ["a"]) == places("a", []) == []


def test_an_accented_word_is_replaced_in_each_of_its_forms():
    assert replaced("a <caf\u00e9> and a <cafe\u0301>", {"<cafe\u0301>": "S*"}) == "a S* and a S*"
    assert named("a <caf\u00e9>", ["<cafe\u0301>"]) == {"<cafe\u0301>"}
    assert places("x<cafe\u0301>", ["<caf\u00e9>"]) == [(1, 8, "<caf\u00e9>")]


def test_a_prompt_without_its_placeholder_is_refused():
    with pytest.raises(PromptError, match=r"must contain the placeholder 'S\*', got 'a cat'"):
        as_template("a cat", "S*")


def test_the_placeholder_is_left_out_for_scoring():
    assert without_placeholder("A photo of S* on the moon", ["S*"]) == "A photo of on the moon"
    assert without_placeholder("S* in the style of S*2", ["S*", "S*2"]) == "in the style of"


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(PromptError, match=r"must be text in UTF-8, got 'a \\udcff S\*'"):
        as_template("a \udcff S*", "S*")


def test_prompt_files(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# places\na S* on the moon\n\n  a S* at sea \n")
    assert read_prompts(path) == ("a S* on the moon", "a S* at sea")
    assert expanded(["a S*", str(path)], {}) == ("a S*", "a S* on the moon", "a S* at sea")
    path.write_text("# nothing\n")
    with pytest.raises(PromptError, match="one prompt per line, got none"):
        read_prompts(path)
    with pytest.raises(PromptError, match="readable text file"):
        read_prompts(tmp_path / "missing.txt")


def test_prompt_lists_and_templates_are_filled_with_the_words_they_are_for():
    words = {"<mug>": "object", "<neon>": "style"}
    found = expanded(["paper:fig4", "a {}", "a dog", "paper:fig6"], words)
    assert found[:2] == ("<mug> sports car", "<mug> made of lego")
    assert len(found) == 20 + 2 + 1 + 4
    assert found[20:23] == ("a <mug>", "a <neon>", "a dog")
    assert found[23] == "The streets of Paris in the style of <neon>"
    assert expanded(["a dog"], {}) == ("a dog",)
    both = expanded(["microworld:edits"], words)
    assert "a photo of a <mug> on the moon" in both
    assert "a cat in the style of <neon>" in both


def test_the_figures_prompts_are_counted():
    sizes = {name: sum(map(len, kinds.values())) for name, kinds in PROMPT_LISTS.items()}
    assert sizes["paper:fig1"] == 8
    assert sizes["paper:fig4"] == 20
    assert sizes["paper:fig5"] == 3
    assert sizes["paper:fig6"] == 4
    assert all("{}" in t for kinds in PROMPT_LISTS.values() for those in kinds.values()
               for t in those)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words", "message"),
    [
        ("paper:fig99", {}, "must be one of paper:fig1, .*, got 'paper:fig99'"),
        ("paper:fig6", {"S*": "object"}, r"a word learned as style, got 'S\*', learned as object"),
        ("paper:fig4", {"S*": "style"}, "a word learned as object"),
        ("a {}", {}, "must be filled with a word, got none"),
    ],
)
def test_a_list_that_cannot_be_filled_is_refused(given, words, message):
    with pytest.raises(PromptError, match=message):
        expanded([given], words)


def test_strangers_look_like_placeholders():
    assert strangers("a S* and a <cat> beside <dog>", ["<cat>"]) == ["S*", "<dog>"]
    assert strangers("a cat, **bold**, 2 * 3, a < b", []) == []


@pytest.mark.parametrize(
    ("caption", "noun", "expected"),
    [
        ("a cat on a sofa", "cat", "a S* on a sofa"),
        ("a cat next to a cat", "cat", "a S* next to a cat"),
        ("cathedral of cats", "cat", "S*, cathedral of cats"),
        ("a cat on a sofa", None, "S*, a cat on a sofa"),
        ("a S* beside a cat", "cat", "a S* beside a cat"),
        ("", None, "S*"),
    ],
)
def test_a_caption_gets_the_word_in_its_nouns_place_or_in_front(caption, noun, expected):
    assert with_word(caption, "S*", noun) == expected
