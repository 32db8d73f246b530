"""Prompts: the published template sets, captions as templates, and prompts without their word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from oneword._files import read_lines
from oneword.errors import UserError


class PromptError(UserError):
    """A prompt or caption cannot be used."""


_OBJECT = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}",
    "a photo of a clean {}", "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}",
    "a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}",
    "a cropped photo of a {}", "a photo of the {}", "a good photo of the {}", "a photo of one {}",
    "a close-up photo of the {}", "a rendition of the {}", "a photo of the clean {}",
    "a rendition of a {}", "a photo of a nice {}", "a good photo of a {}", "a photo of the nice {}",
    "a photo of the small {}", "a photo of the weird {}", "a photo of the large {}",
    "a photo of a cool {}", "a photo of a small {}",
)  # fmt: skip
_STYLE = tuple(
    f"{kind} in the style of {{}}"
    for kind in (
        "a painting", "a rendering", "a cropped painting", "the painting", "a clean painting",
        "a dirty painting", "a dark painting", "a picture", "a cool painting",
        "a close-up painting", "a bright painting", "a cropped painting", "a good painting",
        "a close-up painting", "a rendition", "a nice painting", "a small painting",
        "a weird painting", "a large painting",
    )
)  # fmt: skip

_DUAL_STYLE = tuple(
    f"{kind} in the style of {{}} with {{own}}"
    for kind in (
        "a painting", "a rendering", "a cropped painting", "the painting", "a clean painting",
        "a dirty painting", "a dark painting", "a cool painting", "a close-up painting",
        "a bright painting", "a cropped painting", "a good painting", "a nice painting",
        "a small painting", "a weird painting", "a large painting",
    )
)  # fmt: skip
_ODD = "a painting of one {} in the style of {own}"
"""The only one of the authors' sentences with two words that paints a style."""


def _depicted(kind: str) -> tuple[str, ...]:
    """The 27 again, where those that begin with "a photo of" show another kind of picture."""
    return tuple(
        t.replace("a photo of", f"{kind} of") if t.startswith("a photo of") else t for t in _OBJECT
    )


TEMPLATES: dict[str, tuple[str, ...]] = {
    # the paper, appendix D: each ends with a full stop
    "paper27dot": tuple(t + "." for t in _OBJECT),
    "release27": _OBJECT,
    "head81": _OBJECT + _depicted("an illustration") + _depicted("a depiction"),
    # two of the 19 stand in the list twice, with stops and without
    "style19dot": tuple(t + "." for t in _STYLE),
    "style19": _STYLE,
}
"""Named as in ``InversionConfig.prompt_templates``; "{}" is replaced by the word."""

_DUAL_OBJECT = tuple(f"{t} with {{own}}" for t in _OBJECT)
_DUAL_OF_STYLES = (*_DUAL_STYLE, _ODD)

DUAL_TEMPLATES: dict[str, tuple[str, ...]] = {
    "paper27dot": tuple(t + "." for t in _DUAL_OBJECT),
    "release27": _DUAL_OBJECT,
    "head81": _DUAL_OBJECT,  # it has no illustrations and depictions
    "style19dot": tuple(t + "." for t in _DUAL_OF_STYLES),
    "style19": _DUAL_OF_STYLES,
}
"""The sentences that also have a picture's own word, "{own}", by the set that they belong to."""

PHOTO_PROMPTS = {
    "microworld": {"object": "a photo of a {}", "style": "a painting in the style of {}"},
    # Gal et al. 2022, section 5.1
    "*": {"object": "a photo of {}", "style": "a painting in the style of {}"},
}
"""Prompt for image similarity, by model family and learnable property."""

PLAIN_PROMPT = "a photo of a {} on a plain background"
"""Prompt for the score without backgrounds."""

EDIT_PROMPTS = {
    "microworld": {
        "object": (
            "a photo of a {} on the moon",
            "a photo of a {} on the beach",
            "an oil painting of a {}",
            "a photo of a {} next to a cat",
        ),
        "style": (
            "a cat in the style of {}",
            "a house in the style of {}",
            "a boat on the beach in the style of {}",
            "a tree in the snow in the style of {}",
        ),
    },
    "*": {
        # Gal et al. 2022, section 5.1: place, style, composition
        "object": (
            "a photo of {} on the moon",
            "a photo of {} on the beach",
            "an oil painting of {}",
            "Elmo holding a {}",
        ),
        # the first is of the same, figure 6
        "style": (
            "the streets of Paris in the style of {}",
            "a cat in the style of {}",
            "a house in the style of {}",
            "a boat in the style of {}",
        ),
    },
}
"""Prompts for text similarity (editability), by model family and learnable property."""

PAPER_EDIT_PROMPTS = {
    # Gal et al. 2022, section 5.1 and figure 5; the whole list was never published
    "object": EDIT_PROMPTS["*"]["object"],
    # figure 6
    "style": (
        "the streets of Paris in the style of {}",
        "adorable corgi in the style of {}",
        "painting of a black hole in the style of {}",
        "times square in the style of {}",
    ),
}
"""The paper's prompts, for any model."""

PROMPT_LISTS: dict[str, dict[str, tuple[str, ...]]] = {
    # Gal et al. 2022, arXiv:2208.01618, by figure, as far as the figures show their prompts
    "paper:fig1": {
        "object": (
            "An oil painting of {}", "App icon of {}", "Elmo sitting in the same pose as {}",
            "Crochet {}", "Painting of two {} fishing on a boat", "A {} backpack",
            "Banksy art of {}", "A {} themed lunchbox",
        ),
    },
    "paper:fig3": {"object": ("A photo of {}",)},
    "paper:fig4": {
        "object": (
            "{} sports car", "{} made of lego", "{} onesie", "da Vinci sketch of {}",
            "Watercolor painting of {} on a branch", "A house in the style of {}",
            "Grainy photo of {} in angry birds", "{} made of chocolate", "A mosaic depicting {}",
            "Death metal album cover featuring {}",
            "Masterful oil painting of {} hanging on the wall", "An artist drawing a {}",
            "A photo of {} full of cashew nuts", "A mouse using {} as a boat",
            "A photo of a {} mask", "Ramen soup served in {}", "A carpet with {} embroidery",
            "A {} stamp", "{} fedora", "Felt {}",
        ),
    },
    "paper:fig5": {
        "object": ("A photo of {} on the beach", "A photo of {} on the moon", "Elmo holding a {}"),
    },
    "paper:fig6": {
        "style": (
            "The streets of Paris in the style of {}", "Adorable corgi in the style of {}",
            "Painting of a black hole in the style of {}", "Times square in the style of {}",
        ),
    },
    "paper:fig14": {"object": ("A photo of {}",)},
    "paper:section5.1": {
        "object": (
            "A photo of {}", "A photo of {} on the moon", "An oil painting of {}",
            "Elmo holding a {}",
        ),
    },
    # the same kinds of prompts in words that microworld knows
    "microworld:edits": {
        "object": (
            "a photo of a {}", "a photo of a {} on the moon", "a photo of a {} on the beach",
            "a photo of a {} in the snow", "an oil painting of a {}", "a sketch of a {}",
            "a cartoon of a {} underwater", "a photo of a {} next to a cat",
            "a photo of a {} on top of a house",
        ),
        "style": (
            "a painting in the style of {}", "a cat in the style of {}",
            "a house in the style of {}", "a boat on the beach in the style of {}",
            "a tree in the snow in the style of {}",
        ),
    },
}  # fmt: skip
"""Prompt lists by name, then by the learnable property that they are for."""

COMMON_WORDS = {
    "microworld": {
        # all that its training knows, so that no untrained row is tried
        "object": (
            "cat", "dog", "mug", "teapot", "bird", "car", "house", "tree", "ball", "robot", "boat",
            "hat", "fish", "mushroom", "chair", "rabbit", "turtle", "bus", "plane", "vase", "bowl",
            "basket", "lamp", "flower", "drum", "castle", "shoe",
        ),
        "style": ("watercolor", "poster", "sketch", "cartoon", "chalk"),
    },
    "*": {
        "object": (
            "cat", "dog", "mug", "teapot", "bird", "car", "house", "tree", "ball", "robot", "boat",
            "hat", "fish", "mushroom", "chair", "statue", "toy", "bottle", "vase", "bag", "shoe",
            "clock", "flower", "plant", "person", "man", "woman", "child", "horse", "bear",
            "rabbit", "elephant", "doll", "lamp", "table", "sofa", "cup", "bowl", "book", "box",
            "phone", "guitar", "bicycle", "train", "plane", "ship", "building", "bridge", "castle",
            "dress", "shirt", "watch", "ring", "cake", "fruit", "bread", "stone", "painting",
        ),
        "style": (
            "watercolor", "sketch", "cartoon", "anime", "painting", "mosaic", "graffiti", "comic",
            "engraving", "pastel", "ink", "poster",
        ),
    },
}  # fmt: skip
"""Words of the vocabulary that name many things, by model family and learnable property; the first
ones are tried as initialisers if none is given."""

_Entry = TypeVar("_Entry")


def of_family(
    table: Mapping[str, Mapping[str, _Entry]], family: str, learnable_property: str
) -> _Entry:
    """Look up a table by model family ("*" is every other) and learnable property."""
    return table.get(family, table["*"])[learnable_property]


def fill(template: str, placeholder_token: str) -> str:
    """Put a word into a template."""
    return template.replace("{}", placeholder_token)


_UNSPACED = (
    "CJK", "IDEOGRAPHIC", "KANGXI", "BOPOMOFO", "HIRAGANA", "KATAKANA", "HENTAIGANA",
    "HALFWIDTH KATAKANA", "HANGUL", "HALFWIDTH HANGUL", "YI ", "TANGUT", "THAI", "LAO", "KHMER",
    "MYANMAR", "TIBETAN", "TAI ", "NEW TAI", "JAVANESE", "BALINESE",
)  # fmt: skip
"""Prefixes of Unicode's character names in scripts without spaces between words; Korean has none
before its particles."""


def _is_letter(character: str) -> bool:
    """Whether a character forms one word with a letter next to it."""
    if not (character.isalnum() or unicodedata.category(character).startswith("M")):
        return False
    return not unicodedata.name(character, "").startswith(_UNSPACED)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a part of a text is not a piece of a longer word."""
    beside = ((text[start - 1 : start], text[start]), (text[end : end + 1], text[end - 1]))
    return not any(
        outer and (outer == "_" or _is_letter(outer)) and _is_letter(inner)
        for outer, inner in beside
    )


def spellings(placeholder_token: str) -> set[str]:
    """A placeholder in all forms that a keyboard, a file or a clipboard may produce.

    An accented letter is one character in Unicode's form NFC and two in NFD, and looks the same.
    """
    return {
        placeholder_token,
        *(unicodedata.normalize(form, placeholder_token) for form in ("NFC", "NFD")),
    }


def places(text: str, placeholder_tokens: Iterable[str]) -> list[tuple[int, int, str]]:
    """Where placeholders are in a text: start, end and which; the longest if several begin there.

    A placeholder that begins or ends with a letter does not match inside a longer word: "cat" is
    not found in "cathedral". In scripts without spaces between words it matches anywhere. Each of
    its ``spellings`` is found.
    """
    meant = {form: token for token in placeholder_tokens for form in spellings(token)}
    forms = sorted(meant, key=len, reverse=True)
    found: list[tuple[int, int, str]] = []
    at = 0
    while starts := [start for form in forms if (start := text.find(form, at)) >= 0]:
        at = min(starts)
        fitting = ((at + len(form), meant[form]) for form in forms if text.startswith(form, at))
        here = next(((end, t) for end, t in fitting if _stands_alone(text, at, end)), None)
        if here is None:
            at += 1
        else:
            found.append((at, *here))
            at = here[0]
    return found


def replaced(text: str, texts: Mapping[str, str]) -> str:
    """A text with its placeholders replaced by other texts."""
    parts, last = [], 0
    for start, end, token in places(text, texts):
        parts += [text[last:start], texts[token]]
        last = end
    return "".join([*parts, text[last:]])


def names(prompt: str, placeholder_token: str) -> bool:
    """Whether a prompt contains a placeholder, as the tokenizer will find it."""
    return bool(places(prompt, [placeholder_token]))


def named(prompt: str, placeholder_tokens: Iterable[str]) -> set[str]:
    """Which of these placeholders a prompt contains, as the tokenizer will find them."""
    return {token for _, _, token in places(prompt, placeholder_tokens)}


_LIST_NAME = re.compile(r"(?:paper|microworld):\S*")
_LIKE_A_PLACEHOLDER = re.compile(r"<[^<>\s]+>|(?<![\w*])\w+\*(?![\w*])")


def expanded(given: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """Prompts with named lists inserted, and templates filled with every word they apply to.

    Args:
        given: Prompts, templates with "{}", names of ``PROMPT_LISTS`` such as "paper:fig4", or
            names of files that end in .txt (see ``read_prompts``).
        words: Learnable property ("object" or "style") by placeholder.

    Raises:
        PromptError: a list or file is missing, or no word fits a list or template.
    """
    found: list[str] = []
    for text in given:
        templates: Mapping[str, tuple[str, ...]] = {"": (text,)}
        if _LIST_NAME.fullmatch(text):
            if text not in PROMPT_LISTS:
                raise PromptError(
                    f"The prompt list must be one of {', '.join(PROMPT_LISTS)}, got {text!r}."
                )
            templates = PROMPT_LISTS[text]
        elif text.endswith(".txt"):
            templates = {"": read_prompts(Path(text))}
        filled: list[str] = []
        for kind, those in templates.items():
            fitting = [word for word, own in words.items() if kind in ("", own)]
            for template in those:
                filled += [fill(template, w) for w in fitting] if "{}" in template else [template]
        if not filled:
            kinds = " or ".join(kind for kind in templates if kind)
            got = ", ".join(f"{w!r}, learned as {own}" for w, own in words.items()) or "none"
            raise PromptError(
                f"{text!r} must be filled with a word{f' learned as {kinds}' if kinds else ''}, "
                f"got {got}; pass its file with --concepts."
            )
        found += filled
    return tuple(dict.fromkeys(found))


def strangers(prompt: str, placeholder_tokens: Sequence[str]) -> list[str]:
    """Text that looks like a placeholder (``<cat>``, ``S*``) and is none of the known ones."""
    rest = without_placeholder(prompt, placeholder_tokens)
    return _LIKE_A_PLACEHOLDER.findall(rest)


def check_text(prompt: str) -> None:
    """Refuse text that no tokenizer takes: bytes of the command line in another encoding.

    Raises:
        PromptError: the text holds such bytes.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"A prompt must be text in UTF-8, got {prompt!r}.") from error


def as_template(prompt: str, placeholder_token: str) -> str:
    """A prompt with "{}" instead of its placeholder.

    Raises:
        PromptError: the prompt does not contain the placeholder, or is not text.
    """
    check_text(prompt)
    if not names(prompt, placeholder_token):
        raise PromptError(
            f"A prompt or caption must contain the placeholder {placeholder_token!r}, got "
            f"{prompt!r}; for captions, --prefix-captions puts it in front."
        )
    return replaced(prompt, {placeholder_token: "{}"})


def with_word(caption: str, placeholder_token: str, noun: str | None = None) -> str:
    """A caption that contains the new word, so that the word can be trained with it.

    Args:
        caption: As a person or a model wrote it; one that already contains the word is not changed.
        placeholder_token: The word.
        noun: The word replaces its first occurrence in the caption. If there is none, the word is
            put in front, with a comma.
    """
    if names(caption, placeholder_token):
        return caption
    here = next(iter(places(caption, [noun])), None) if noun else None
    if here is None:
        return f"{placeholder_token}, {caption}" if caption else placeholder_token
    start, end, _ = here
    return caption[:start] + placeholder_token + caption[end:]


def without_placeholder(prompt: str, placeholder_tokens: Sequence[str]) -> str:
    """A prompt without its pseudo-words, for scoring: "A photo of on the moon"."""
    prompt = replaced(prompt, dict.fromkeys(placeholder_tokens, ""))
    return re.sub(r"\s+", " ", prompt).strip()


_BEFORE = (
    r"(?=$|\s+(?:as|at|beside|floating|from|full|hanging|in|made|near|next|on|sitting|under|wearing|"
    r"with)\b)"
)
"""What follows a word that is a thing of its own, and not part of another's name."""


def context(template: str) -> str:
    """What a template asks for besides its word, for people: "A photo on the moon".

    Args:
        template: A sentence with "{}" for the word.
    """
    text = re.sub(rf"\s+(?:in the style )?of (?:(?:a|an|the) )?{{}}{_BEFORE}", "", template)
    text = re.sub(rf"(?:\b(?:a|an|the) )?{{}}{_BEFORE}", "something", text)
    text = " ".join(text.replace("{}", "").split())
    return text[:1].upper() + text[1:]


def read_prompts(path: Path) -> tuple[str, ...]:
    """One prompt per line; blank lines and lines that begin with # are skipped.

    Raises:
        PromptError: the file cannot be read or has no prompts.
    """
    must = "The prompts must be a readable text file"
    lines = read_lines(path, must=must, error=PromptError)
    found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not found:
        raise PromptError(f"The prompts file must contain one prompt per line, got none in {path}.")
    return found
