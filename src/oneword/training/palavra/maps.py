"""The two maps that start every word of a CLIP, their losses, and texts with a row for a word.

Source:
    Cohen et al. 2022, arXiv:2204.01694, and the code that its authors published with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oneword._typing import Pixels, Rows
from oneword.concepts.concept import ROWS
from oneword.config.palavra import LAYERS, ResolvedPalavra
from oneword.errors import UserError
from oneword.models.guide import Features, Guide
from oneword.training.deep_sets import DeepSets, draw_weights
from oneword.training.draws import generator
from oneword.vocabulary.inject import injected


STAR = "*"
"""Placeholder of the word in PALAVRA's prompts, as published."""
_PLACE = "<palavra>"  # what the tokenizer knows it by
_CHUNK = 128  # texts or pictures that are read at once
_WEIGHTS = 21  # stream of the draws of the first weights


class PalavraError(UserError):
    """A CLIP's word, or the maps for it, cannot be learned."""


def contrastive_loss(
    first: Float[Tensor, "num dim"], second: Float[Tensor, "num dim"], temperature: float
) -> Float[Tensor, ""]:
    """Contrastive loss: how badly each vector finds its partner among all others of both sides.

    ``-mean log(exp(<a, b> / t) / sum exp(<a, c> / t))`` over all 2 num vectors a, with b the
    partner of a and c every vector but a; all of unit length.

    Args:
        first: Of any length.
        second: Their partners.
        temperature: t.

    Source:
        The published code of Cohen et al. 2022, arXiv:2204.01694; the loss is SimCLR's.
    """
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    both = torch.cat([first, second])
    among = both @ both.T / temperature
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    others = among.masked_fill(itself, -torch.inf).logsumexp(dim=1)
    partners = (first * second).sum(dim=1) / temperature
    return (others - torch.cat([partners, partners])).mean()


def unit_distance(
    first: Float[Tensor, "*some dim"], second: Float[Tensor, "*some dim"]
) -> Float[Tensor, ""]:
    """Mean over vectors and entries of the squared difference of vectors of unit length."""
    return F.mse_loss(F.normalize(first, dim=-1), F.normalize(second, dim=-1))


class TextToImage(nn.Module):
    """From a text's features to those of a picture of the same: ``x + W x + b``.

    Args:
        dim: Length of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.change = nn.Linear(dim, dim)

    def forward(self, texts: Tensor) -> Tensor:
        """Map features (..., dim) to the same shape."""
        return texts + self.change(texts)


class Maps:
    """Both maps, and the progress of their training.

    ``to_word`` goes from a set of pictures' features to a row of the CLIP's table, ``to_image``
    from a text's features to a picture's; ``optimizers`` are theirs, by the same names; ``epochs``
    are those done, and ``history`` holds a dict of numbers for each that was tested.
    """

    def __init__(self, settings: ResolvedPalavra, dim: int, width: int) -> None:
        """Make networks without weights; see ``drawn`` and ``put``.

        Args:
            settings: The settings.
            dim: Length of the CLIP's features.
            width: Width of a row of its table.
        """
        self.settings = settings
        with torch.device("meta"):
            self.to_word = DeepSets(
                dim,
                settings.hidden,
                width,
                num_layers=LAYERS,
                dropout=settings.dropout,
            )
            self.to_image = TextToImage(dim)
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self.epochs = 0
        self.history: list[dict[str, float]] = []

    def parts(self) -> dict[str, nn.Module]:
        """Both networks by name."""
        return {"to_word": self.to_word, "to_image": self.to_image}

    def drawn(self, device: torch.device) -> Maps:
        """The same with initial weights, by the settings' seed."""
        g = generator(self.settings.seed, _WEIGHTS)
        for part in self.parts().values():
            part.to_empty(device="cpu")
            draw_weights(part, g)
        return self._ready(device)

    def put(self, tensors: Mapping[str, Tensor], device: torch.device) -> Maps:
        """The same with the output of ``tensors``.

        Raises:
            PalavraError: tensors are missing, unknown, or of other shapes.
        """
        rest = dict(tensors)
        for name, part in self.parts().items():
            own = {n: rest.pop(f"{name}.{n}") for n in part.state_dict() if f"{name}.{n}" in rest}
            own = {n: t.float() for n, t in own.items()}
            try:
                part.load_state_dict(own, assign=True)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise PalavraError(
                    f"The maps must be complete and of this CLIP's sizes, got: {reason}"
                ) from error
        self._ready(device)
        for name, optimizer in self.optimizers.items():
            for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
                prefix = f"adam.{name}.{i}."
                names = [n for n in rest if n.startswith(prefix)]
                own = {n.removeprefix(prefix): rest.pop(n) for n in names}
                if own and (
                    own.keys() != {"step", "exp_avg", "exp_avg_sq"}
                    or own["exp_avg"].shape != parameter.shape
                    or own["exp_avg_sq"].shape != parameter.shape
                ):
                    raise PalavraError(
                        f"The maps' state of Adam must fit their weights, got {', '.join(own)} "
                        f"for {name} {i}."
                    )
                optimizer.state[parameter] = {
                    n: t.clone() if n == "step" else t.to(device, copy=True) for n, t in own.items()
                }
        if rest:
            raise PalavraError(f"The maps must contain nothing else, got {min(rest)}.")
        return self

    def _ready(self, device: torch.device) -> Maps:
        for name, part in self.parts().items():
            part.to(device)
            rate = self.settings.learning_rate
            self.optimizers[name] = torch.optim.Adam(part.parameters(), lr=rate, foreach=False)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Weights, and the state of Adam, on the CPU."""
        found: dict[str, Tensor] = {}
        for name, part in self.parts().items():
            found |= {f"{name}.{n}": t for n, t in part.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
                own = optimizer.state.get(parameter, {})
                found |= {f"adam.{name}.{i}.{n}": t for n, t in own.items()}
        return {n: t.detach().cpu().contiguous() for n, t in found.items()}


# --- reading a CLIP


@dataclass(slots=True, eq=False)
class _Word:
    """A word whose rows change, one for each text that is read."""

    rows: Mapping[str, Tensor]
    placeholder_token: str = _PLACE
    kind: str = ROWS
    num_vectors: int = 1
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Reader:
    """Encodes texts with a CLIP, with rows for a word, inside ``reading``."""

    def __init__(self, guide: Guide, word: _Word) -> None:
        self.guide, self._word = guide, word
        self.vocabulary = guide.vocabularies[guide.tower]

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "num dim"]:
        """Features of texts from the CLIP's projection, not of unit length."""
        found = []
        for start in range(0, len(texts), _CHUNK):
            part = list(texts[start : start + _CHUNK])
            batch = self._ids(part)
            found.append(self._features(batch.input_ids, batch.attention_mask))
        return torch.cat(found)

    def with_rows(self, prompt: str, rows: Rows) -> Float[Tensor, "num_vectors features"]:
        """Features of a prompt with each row for the star, as from ``texts``; differentiable.

        Args:
            prompt: Contains "*".
            rows: One for each text.
        """
        ids = self._ids([prompt.replace(STAR, _PLACE)]).input_ids
        assert self.vocabulary.splice is not None
        which = torch.arange(len(rows), device=ids.device)[:, None]
        ids = torch.where(ids >= self.vocabulary.splice.first_row, ids + which, ids)
        self._word.rows = {self.guide.tower: rows}
        return self._features(ids, torch.ones_like(ids))

    def first_row(self, word: str) -> Float[Tensor, " dim"]:
        """The table's row for a word; for a word of several tokens, that of the first."""
        return self.vocabulary.rows_of(word)[0]

    def _ids(self, texts: list[str]) -> Any:
        tokenizer = self.vocabulary.tokenizer
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return batch.to(self.guide.device)

    def _features(self, ids: Tensor, mask: Tensor) -> Tensor:
        read = self.guide.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return self.guide.model.text_projection(read)


@contextmanager
def reading(guide: Guide) -> Iterator[Reader]:
    """Let a CLIP encode texts with rows for a word; on exit it is unchanged."""
    width = guide.vocabularies[guide.tower].dim
    word = _Word({guide.tower: torch.zeros(1, width, device=guide.device)})
    with injected(guide, [word]):
        yield Reader(guide, word)


@torch.no_grad()
def picture_features(guide: Guide, pixels: Pixels) -> Features:
    """Features of pictures of the CLIP's own size, of unit length, on the CPU.

    Args:
        guide: The CLIP.
        pixels: In [-1, 1].
    """
    parts = [
        guide.image_features((part.to(guide.device) + 1) / 2).cpu() for part in pixels.split(_CHUNK)
    ]
    return torch.cat(parts)
