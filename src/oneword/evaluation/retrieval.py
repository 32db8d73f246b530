"""How well a word of a CLIP finds pictures of its thing among other pictures.

Source:
    Cohen et al. 2022, arXiv:2204.01694: each picture of a thing is looked for among those of
    others, by a sentence with its word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from oneword.concepts.concept import Concept
from oneword.config.palavra import FOUND_PROMPT
from oneword.evaluation.metrics import Mean, mean_interval
from oneword.models.guide import Features, Guide


WORD, BOTH, NOUN = "word", "noun and word", "noun"
"""What the sentence contains."""
FEW = 5  # up to this rank, a picture counts as found early


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """The rank at which each picture was found, by the contents of the sentence."""

    prompts: dict[str, str]
    ranks: dict[str, tuple[int, ...]]
    """Ranks from 1, for each picture alone among the others; the same pictures for each
    sentence."""
    num_others: int

    def reciprocal(self, name: str) -> tuple[float, ...]:
        """1 divided by each rank."""
        return tuple(1 / rank for rank in self.ranks[name])

    def mrr(self, name: str) -> float:
        """Mean reciprocal rank, in (0, 1]."""
        return sum(self.reciprocal(name)) / len(self.ranks[name])

    def gain(self) -> Mean | None:
        """Gain of noun and word over the noun alone, picture by picture, if there is a noun."""
        if NOUN not in self.ranks:
            return None
        pairs = zip(self.reciprocal(BOTH), self.reciprocal(NOUN), strict=True)
        return mean_interval([a - b for a, b in pairs])

    def plain(self) -> dict[str, Any]:
        """The numbers, as JSON values."""
        return {
            name: {
                "prompt": self.prompts[name],
                "mrr": self.mrr(name),
                "mean_rank": sum(ranks) / len(ranks),
                "first": sum(rank == 1 for rank in ranks) / len(ranks),
                f"first_{FEW}": sum(rank <= FEW for rank in ranks) / len(ranks),
                "ranks": list(ranks),
            }
            for name, ranks in self.ranks.items()
        } | {"num_others": self.num_others}


def ranks_of(
    text: Float[Tensor, " dim"], pictures: Features, others: Float[Tensor, "others dim"]
) -> tuple[int, ...]:
    """Rank of each picture by its cosine with a text, each alone among the others.

    Of equally near pictures, the one looked for comes last.

    Args:
        text: Features of unit length, as all.
        pictures: The pictures that are looked for.
        others: The pictures that they are looked for among.
    """
    near = (others @ text)[None] >= (pictures @ text)[:, None]
    return tuple((1 + near.sum(dim=1)).tolist())


def retrieval(
    guide: Guide,
    concept: Concept,
    pictures: Features,
    others: Float[Tensor, "others dim"],
    *,
    noun: str | None = None,
    prompt: str = FOUND_PROMPT,
) -> Retrieval:
    """Look for each picture of a concept among others.

    Args:
        guide: The CLIP whose word the concept is.
        concept: The word.
        pictures: Features of pictures that it was not learned from, of unit length.
        others: Likewise, for other things.
        noun: The thing's noun, used before the word, and alone for comparison.
        prompt: "*" for what is looked for.

    Raises:
        PlaceholderError: the word is not one of this CLIP.
    """
    token = concept.placeholder_token
    said = {WORD: token} if noun is None else {BOTH: f"{noun} {token}", WORD: token, NOUN: noun}
    prompts = {name: prompt.replace("*", text) for name, text in said.items()}
    with torch.no_grad():
        texts = guide.text_features(list(prompts.values()), [concept]).cpu()
    ranks = {n: ranks_of(text, pictures, others) for n, text in zip(prompts, texts, strict=True)}
    return Retrieval(prompts=prompts, ranks=ranks, num_others=len(others))
