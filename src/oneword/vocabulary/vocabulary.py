"""The words that a model knows: a text encoder with its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oneword._typing import Rows
from oneword.vocabulary.splice import Splice
from oneword.vocabulary.word import PlaceholderError


_PART = 2048  # rows of a table that are copied at once


@dataclass(slots=True, eq=False)
class Vocabulary:
    """One text encoder with its tokenizer: the words that a model knows."""

    name: str
    """Key in concept files, such as "clip_l"."""
    pipeline: Any
    tokenizer_attribute: str
    """The pipeline's attribute for the tokenizer, such as "tokenizer_2"."""
    text_encoder: nn.Module
    longest: int | None = None
    """Tokens of the longest prompt, if the family's pipeline sets it."""
    splice: Splice | None = None
    """Answers lookups of injected words, while there are any."""

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt."""
        return self.longest or self.tokenizer.model_max_length

    @property
    def tokenizer(self) -> Any:
        """The pipeline's current tokenizer."""
        return getattr(self.pipeline, self.tokenizer_attribute)

    @property
    def weight(self) -> Tensor:
        """The frozen input table, (rows, dim)."""
        return self.text_encoder.get_input_embeddings().weight  # type: ignore[operator]

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.weight.shape[1]

    def tables(self) -> list[nn.Embedding]:
        """Every embedding module that reads the table; for T5, not the one its class names."""
        weight = self.weight
        modules = self.text_encoder.modules()
        return [m for m in modules if isinstance(m, nn.Embedding) and m.weight is weight]

    def std(self) -> float:
        """Standard deviation of the table's entries: the scale of a relative learning rate."""
        parts = self.weight.detach().split(_PART)  # a copy of the whole would be large
        # on the CPU, because not every device has float64
        sums = [(p.sum(), p.square().sum()) for p in (part.cpu().double() for part in parts)]
        total, squares = (float(sum(values)) for values in zip(*sums, strict=True))
        count = self.weight.numel()
        return math.sqrt((squares - total**2 / count) / (count - 1))

    def existing(self) -> Iterator[Rows]:
        """The rows of the existing tokens, float32, in parts."""
        for part in self.weight.detach()[: len(self.tokenizer)].split(_PART):
            yield part.float()

    def median_norm(self) -> float:
        """Median length (Euclidean norm) of the existing rows."""
        return float(torch.cat([part.norm(dim=1) for part in self.existing()]).median())

    def gaps(self, rows: Rows) -> Float[Tensor, " rows"]:
        """Euclidean distance from each row to the nearest existing one."""
        exact = "donot_use_mm_for_euclid_dist"
        parts = [
            torch.cdist(rows.to(part), part, compute_mode=exact).amin(dim=1)
            for part in self.existing()
        ]
        return torch.stack(parts).amin(dim=0)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text inside a sentence, without special tokens."""
        # Gemma and byte-level tokenizers have other tokens for words without a space before them
        if self.tokenizer.is_fast:
            return list(self.tokenizer(f" {text}", add_special_tokens=False).input_ids)
        return behind(self._bare, f" {text}")

    def _bare(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def rows_of(self, text: str) -> Rows:
        """The table's rows for a text, one per token, float32."""
        index = torch.tensor(self.ids(text), dtype=torch.long, device=self.weight.device)
        return self.weight.detach()[index].float()

    def is_word(self, text: str) -> bool:
        """Whether a text is one existing token with a letter or digit."""
        bare = self._bare(text)
        unknown = _unknown_id(self.tokenizer)
        known = any(len(ids) == 1 and ids[0] != unknown for ids in (bare, self.ids(text)))
        return known and any(c.isalnum() for c in text)

    def nearest(self, rows: Rows, count: int) -> list[list[tuple[str, float]]]:
        """For each row, the existing tokens with the highest cosine, best first."""
        table = F.normalize(self.weight.detach().float()[: len(self.tokenizer)], dim=1)
        cosines = F.normalize(rows.to(table), dim=1) @ table.T
        best = cosines.topk(min(count, len(table)))
        return [
            [
                (str(self.tokenizer.convert_ids_to_tokens(i)), round(v, 4))
                for i, v in zip(index, value, strict=True)
            ]
            for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def distance_to_words(
    vocabularies: Mapping[str, Vocabulary], rows: Mapping[str, Tensor]
) -> float | None:
    """Distance of a word from the model's existing words: from the nearest sequence of them.

    Euclidean, for all vectors of the word together, in units of the median length of the table's
    rows, as the mean over the text encoders. 0 means that the word is a sequence of existing
    tokens.

    Args:
        vocabularies: The model's, by text encoder.
        rows: The word's, by text encoder, each (num_vectors, dim).

    Returns:
        ``None`` if no rows belong to an embedding table.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.3, speaks of this distance without defining it;
        the measure is ours.
    """
    found = [
        float(vocabulary.gaps(rows[name]).norm()) / vocabulary.median_norm()
        for name, vocabulary in vocabularies.items()
        if name in rows and rows[name].shape[-1] == vocabulary.dim
    ]
    return math.fsum(found) / len(found) if found else None


def _unknown_id(tokenizer: Any) -> int | None:
    # CLIP's tokenizer spells every word in bytes, and its "unknown" token is the end token
    unknown = tokenizer.unk_token_id
    return None if unknown in (tokenizer.eos_token_id, None) else unknown


def behind(encode: Callable[[str], list[int]], text: str) -> list[int]:
    """Ids of a text that follows another; some tokenizers put a space before the first text."""
    head, whole = encode("a"), encode(f"a{text}")
    return whole[len(head) :] if whole[: len(head)] == head else encode(text)


def initial_rows(vocabulary: Vocabulary, initializer_token: str, num_vectors: int) -> Rows:
    """The rows that a new word starts from.

    One vector is the mean of the initialiser's tokens; several are its tokens in order, the last
    one repeated.

    Raises:
        PlaceholderError: the tokenizer does not know the initialiser.
    """
    for word in initializer_token.split() or [initializer_token]:
        ids = vocabulary.ids(word)
        # byte-level tokenizers spell unknown words nearly letter by letter
        spelled = len(ids) > 1 and len(word.encode()) < 2 * len(ids)
        if not ids or spelled or _unknown_id(vocabulary.tokenizer) in ids:
            raise PlaceholderError(
                "The initializer token must be known to the model's tokenizer "
                f"{vocabulary.name}, got {word!r}; choose a common word, or leave it out to have "
                "one chosen."
            )
    rows = vocabulary.rows_of(initializer_token)
    if num_vectors == 1:
        return rows.mean(dim=0, keepdim=True)
    return rows[[min(i, len(rows) - 1) for i in range(num_vectors)]]
