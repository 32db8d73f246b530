r"""Weights in prompts, ``(word:1.3)``: their syntax, and their effect on the conditioning.

Brackets are common in normal text, and diffusers reads them as text. So do we, except for those
that end in a number. A1111's full syntax, in which every bracket counts, is read on request. ``\(``
and ``\)`` are text in any case.

Source:
    AUTOMATIC1111/stable-diffusion-webui 1.10: modules/prompt_parser.py for the syntax,
    modules/sd_emphasis.py ("Original") for the effect.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from oneword.prompts import PromptError
from oneword.vocabulary.vocabulary import Vocabulary


STEP = 1.1
"""Weight of a round bracket without a number; a square one has its inverse."""
MOST = 5.0
"""Largest weight: larger ones destroy a prompt, and such numbers are rarely meant as weights."""

_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a prompt with the same weight."""

    text: str
    weight: float = 1.0


_TOKEN = re.compile(
    r"""
    \\[\\()\[\]]
    | :\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
    | [()\[\]]
    | [^\\()\[\]:]+
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_ON_THE_WAY = re.compile(r":\s*[\d.]+\s*$")
_JOINING = re.compile(r"\b(BREAK|AND)\b")


def parts_of(prompt: str, emphasis: str = "numbers") -> list[Part]:
    r"""A prompt split into parts with their weights, without brackets and numbers.

    Nested weights multiply. A prompt without weights is one part, unchanged except for ``\(``.

    Args:
        prompt: The prompt as written.
        emphasis: "numbers": only ``(word:1.3)``; "a1111": also ``(word)`` and ``[word]``; or
            "none".

    Raises:
        PromptError: a weight is out of range, or the prompt uses A1111 syntax that is not
            supported.
    """
    if emphasis == "none":
        return [Part(prompt)]
    every = emphasis == "a1111"
    if every and (joining := _JOINING.search(prompt)):
        raise PromptError(
            f"Cannot read {joining[0]} in the prompt {prompt!r} with A1111's syntax; write it in "
            "lower case, or draw the parts one by one."
        )
    found: list[list[Any]] = []  # text and weight
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for part in found[start:]:
            part[1] *= factor

    for match in _TOKEN.finditer(prompt):
        text, number = match[0], match["number"]
        if number is not None and opened["("]:
            start = opened["("].pop()
            found[start][0] = ""
            multiply(start, float(number))
        elif text in ("(", "[") and (every or text == "("):
            if every and len(opened[text]) >= _DEEPEST:
                raise PromptError(
                    f"Brackets must be nested at most {_DEEPEST} deep, got more in {prompt[:80]!r}."
                )
            opened[text].append(len(found))
            found.append(["" if every else text, 1.0])
        elif text == ")" and opened["("]:
            start = opened["("].pop()
            if every:
                multiply(start, STEP)
            else:
                found.append([text, 1.0])
        elif text == "]" and opened["["]:
            start = opened["["].pop()
            _refuse_changes("".join(part[0] for part in found[start:]), prompt)
            multiply(start, 1 / STEP)
        elif len(text) == 2 and text[0] == "\\" and (every or text[1] in "()"):
            found.append([text[1], 1.0])
        else:
            found.append([text, 1.0])
    for start in opened["("] if every else ():
        multiply(start, STEP)
    for start in opened["["]:
        multiply(start, 1 / STEP)
    kept = [Part(text, round(weight, 9)) for text, weight in found if text]
    for part in kept:
        if not 0 <= part.weight <= MOST:
            raise PromptError(
                f"A weight must be in [0, {MOST:g}], got {part.weight:g} for {part.text!r} in "
                f"{prompt!r}; if the brackets are text, write \\( and \\), or pass --emphasis "
                "none."
            )
    by_weight = itertools.groupby(kept, lambda part: part.weight)
    return [Part("".join(p.text for p in own), weight) for weight, own in by_weight]


def _refuse_changes(inside: str, prompt: str) -> None:
    if _ON_THE_WAY.search(inside) or "|" in inside:
        raise PromptError(
            f"Cannot change a prompt between steps, as '[{inside}]' in {prompt!r} asks, because "
            "square brackets are only weights here; if they are text, write \\[."
        )


def is_weighted(parts: Sequence[Part]) -> bool:
    """Whether a prompt has a weight with an effect."""
    return any(part.weight != 1 for part in parts)


def plain(prompt: str, emphasis: str = "numbers") -> str:
    """A prompt without its weights."""
    return _joined(parts_of(prompt, emphasis))


def _joined(parts: Sequence[Part]) -> str:
    # Each part is tokenised separately, as in A1111. CLIP's tokenizer does that if there are spaces
    # between them, which give no tokens.
    if not is_weighted(parts):
        return "".join(part.text for part in parts)
    return " ".join(text for part in parts if (text := part.text.strip()))


def spelled(prompt: str, emphasis: str = "numbers", *, squares: bool = True) -> str:
    r"""The same prompt for a tool that reads every bracket as a weight.

    Args:
        prompt: The prompt as written.
        emphasis: Its syntax.
        squares: Whether square brackets are also weights there.
    """
    letters = r"([\\()\[\]])" if squares else r"([\\()])"
    return "".join(
        escaped if part.weight == 1 else f"({escaped}:{part.weight:.6g})"
        for part in parts_of(prompt, emphasis)
        for escaped in (re.sub(letters, r"\\\1", part.text),)
    )


def brackets_left(prompts: Sequence[str], emphasis: str) -> list[str]:
    """Prompts with weights that also have brackets read as text, for a message."""
    return [
        prompt
        for prompt in prompts
        if emphasis == "numbers"
        and is_weighted(parts := parts_of(prompt, emphasis))
        and re.search(r"\([^()]*\)|\[[^\[\]]*\]", "".join(p.text for p in parts))
    ]


# --- what they do


def weighed(
    states: Float[Tensor, "batch tokens dim"], weights: Float[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens dim"]:
    """Hidden states times their tokens' weights, with the mean of each prompt's states preserved.

    A prompt whose weights are all 1 is unchanged, to the bit. If the mean is tiny compared with the
    states, or would change its sign, it is not restored.

    Source:
        AUTOMATIC1111/stable-diffusion-webui 1.10, modules/sd_emphasis.py, ``EmphasisOriginal``:
        ``z' = w z``, then ``z' mean(z) / mean(z')``, there over a batch of one prompt.
    """
    before = states.float()
    after = before * weights[..., None]
    mean = before.mean(dim=(1, 2), keepdim=True)
    factor = mean / after.mean(dim=(1, 2), keepdim=True)
    spread = before.square().mean(dim=(1, 2), keepdim=True).sqrt()
    sound = (mean.abs() > 1e-4 * spread) & torch.isfinite(factor) & (factor > 0)
    after = (after * torch.where(sound, factor, torch.ones_like(factor))).to(states.dtype)
    changed = (weights != 1).any(dim=1)
    return torch.where(changed[:, None, None], after, states)


def token_weights(parts: Sequence[Part], vocabulary: Vocabulary, count: int) -> list[float]:
    """The weight of each token of a prompt, including special tokens and padding.

    Args:
        parts: The prompt's parts.
        vocabulary: The vocabulary whose tokenizer reads it; inside ``injected`` a word has one
            token per vector.
        count: Number of tokens that the encoder reads.

    Raises:
        PromptError: a weight begins or ends inside a token.
    """
    tokenizer = vocabulary.tokenizer

    def bare(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    one, full = bare("a"), list(tokenizer("a").input_ids)
    head = full.index(one[0])
    tail = len(full) - head - len(one)
    inner = [part.weight for part in parts if part.text.strip() for _ in bare(part.text.strip())]
    if len(inner) != len(bare(_joined(parts))):
        raise PromptError(
            f"A weight must begin and end at a word, got one inside a word in {_joined(parts)!r}."
        )
    inner = inner[: count - head - tail]
    return [1.0] * head + inner + [1.0] * (count - head - len(inner))


@contextmanager
def weighing(
    pipelines: Sequence[Any], vocabularies: Mapping[str, Vocabulary], emphasis: str
) -> Iterator[None]:
    """Inside the context, pipelines read weights in the prompts that they encode.

    Args:
        pipelines: Pipelines with an ``encode_prompt`` whose first two results are the hidden states
            of the prompts and of the negative ones, with several encoders side by side.
        vocabularies: The encoders' vocabularies, in that order.
        emphasis: The syntax of weights.
    """
    for pipeline in pipelines:
        pipeline.encode_prompt = _weighing(pipeline.encode_prompt, vocabularies, emphasis)
    try:
        yield
    finally:
        for pipeline in pipelines:
            del pipeline.encode_prompt


def _weighing(
    encode: Callable[..., Any], vocabularies: Mapping[str, Vocabulary], emphasis: str
) -> Callable[..., Any]:
    signature = inspect.signature(encode)

    @functools.wraps(encode)
    def encode_weighed(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options)
        read: dict[int, list[list[Part]]] = {}
        for place, name in enumerate(("prompt", "negative_prompt")):
            texts = given.arguments.get(name)
            if texts is None:
                continue
            several = [texts] if isinstance(texts, str) else list(texts)
            read[place] = [parts_of(text, emphasis) for text in several]
            given.arguments[name] = [_joined(parts) for parts in read[place]]
        results = list(encode(*given.args, **given.kwargs))
        for place, several in read.items():
            if results[place] is not None and any(map(is_weighted, several)):
                results[place] = _with_weights(results[place], several, vocabularies)
        return tuple(results)

    return encode_weighed


def _with_weights(
    states: Tensor, prompts: Sequence[Sequence[Part]], vocabularies: Mapping[str, Vocabulary]
) -> Tensor:
    """The hidden states of several prompts with their weights, encoder by encoder."""
    widths = [vocabulary.dim for vocabulary in vocabularies.values()]
    found = []
    for part, vocabulary in zip(states.split(widths, dim=-1), vocabularies.values(), strict=True):
        rows = [token_weights(parts, vocabulary, states.shape[1]) for parts in prompts]
        weights = torch.tensor(rows, device=states.device)
        found.append(weighed(part, weights.repeat_interleave(len(states) // len(rows), dim=0)))
    return torch.cat(found, dim=-1)
