"""Choosing among pictures: the judge ranks the candidates of each prompt, and the best are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.concepts.named import flat, without_token
from oneword.errors import ConfigError, UserError
from oneword.evaluation.features import Judge
from oneword.generation.generate import Drawing
from oneword.images import read_folder
from oneword.models.emphasis import plain
from oneword.prompts import names, without_placeholder
from oneword.runs.folder import pictures_of


RankBy = Literal["image", "text", "mean"]


class ChoosingError(UserError):
    """The candidates cannot be ranked as requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which pictures of a drawing are kept, and the scores that decided."""

    rank_by: RankBy
    diversity: float
    judge: str
    kept: tuple[int, ...]
    """Indices into the drawing: prompt after prompt, the best of each first."""
    image: tuple[float, ...]
    """For every picture, kept or not: mean cosine with the training pictures of its prompt's words;
    NaN if none are known."""
    text: tuple[float, ...]
    """For every picture: cosine with its prompt, without the placeholders."""
    scores: tuple[float, ...]
    """The scores that the ranking used."""

    @property
    def dropped(self) -> tuple[int, ...]:
        """The other indices, in the order of the drawing."""
        return tuple(sorted(set(range(len(self.scores))) - set(self.kept)))


def choose(
    drawing: Drawing,
    judge: Judge,
    *,
    keep: int,
    rank_by: RankBy | None = None,
    references: Mapping[str, Pixels] | None = None,
    diversity: float = 0.0,
) -> Choice:
    """Keep the best pictures of each prompt.

    Args:
        drawing: Candidates, the same number for each prompt; the paper drew 16.
        judge: The CLIP that ranks.
        keep: Pictures to keep of each prompt, 1 or more.
        rank_by: "image" (similarity to the references), "text" (to the prompt), or the plain "mean"
            of the two cosines; ``None``: "mean" if every prompt has references, else "text".
        references: Training pictures by placeholder.
        diversity: In [0, 1]. 0 keeps the highest scores; higher values prefer pictures that differ
            from those already kept.

    Raises:
        ChoosingError: there are fewer candidates than ``keep``, or ``rank_by`` needs references and
            a prompt has none.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.7 proposes the ranking by CLIP; diversity is
        maximal marginal relevance (Carbonell and Goldstein 1998, doi:10.1145/290941.291025).
    """
    if not 0 <= diversity <= 1:
        raise ChoosingError(f"diversity must be in [0, 1], got {diversity}.")
    rank_by = check_references(drawing.prompts, references or {}, rank_by)
    tokens: list[str] = list(json.loads(drawing.settings["concepts"]))
    features = judge.images(drawing.pixels)
    known = {token: judge.images(p) for token, p in (references or {}).items()}
    places: dict[str, list[int]] = {}
    for i in range(len(drawing.prompts)):
        places.setdefault(drawing.asked(i), []).append(i)
    image, text = [math.nan] * len(features), [math.nan] * len(features)
    for own in places.values():
        if not 1 <= keep <= len(own):
            raise ChoosingError(
                f"keep must be in 1..{len(own)}, the number of pictures drawn per prompt, got "
                f"{keep}; raise --num-images-per-prompt (the paper draws 16)."
            )
    for prompt in dict.fromkeys(drawing.prompts):
        # a judge would read the brackets of weights as text
        said = plain(prompt, drawing.settings.get("emphasis", "none"))
        read = judge.texts([without_placeholder(said, tokens)])[0].double()
        words = [known[token] for token in known if names(prompt, token)]
        for i in (i for i, own in enumerate(drawing.prompts) if own == prompt):
            seen = features[i].double()
            text[i] = float(seen @ read)
            if words:
                image[i] = sum(float((w.double() @ seen).mean()) for w in words) / len(words)
    ranked = {"image": image, "text": text}.get(rank_by) or [
        (a + b) / 2 for a, b in zip(image, text, strict=True)
    ]
    kept: list[int] = []
    for own in places.values():
        best = best_of([ranked[i] for i in own], features[own], keep, diversity)
        kept += [own[i] for i in best]
    return Choice(
        rank_by=rank_by,
        diversity=diversity,
        judge=judge.name,
        kept=tuple(kept),
        image=tuple(image),
        text=tuple(text),
        scores=tuple(ranked),
    )


def check_references(
    prompts: Sequence[str], references: Mapping[str, Pixels], rank_by: RankBy | None
) -> RankBy:
    """The score that prompts are ranked by, given training pictures of these words.

    Raises:
        ChoosingError: image similarity is requested and a prompt has no references.
    """
    bare = next((p for p in prompts if not any(names(p, word) for word in references)), None)
    if rank_by is None:
        return "text" if bare is not None else "mean"
    if rank_by != "text" and bare is not None:
        raise ChoosingError(
            f"Cannot rank by {rank_by!r} because the training pictures of a word in every prompt "
            f"are unknown for {bare!r}; pass --train-data-dir, or --rank-by text."
        )
    return rank_by


def best_of(
    scores: Sequence[float], features: Float[Tensor, "num dim"], keep: int, diversity: float = 0.0
) -> list[int]:
    """Indices of the best, one by one: with a high score, and unlike those already taken.

    Each next one has the highest ``(1 - diversity) * score - diversity * nearest``, where
    ``nearest`` is its highest cosine with one already taken. The first has the highest score. Of
    equals, the earlier one is taken.
    """
    cosines = features.double() @ features.double().T
    taken = [max(range(len(scores)), key=lambda i: scores[i])]
    while len(taken) < keep:
        nearest = cosines[:, taken].max(dim=1).values.tolist()
        taken.append(
            max(
                (i for i in range(len(scores)) if i not in taken),
                key=lambda i: (1 - diversity) * scores[i] - diversity * nearest[i],
            )
        )
    return taken


def references_of(
    words: Mapping[Path, Sequence[Concept]], resolution: int, *, given: Sequence[Path] = ()
) -> dict[str, Pixels]:
    """Training pictures by word, as far as they are known.

    Args:
        words: The concepts of each file or run folder.
        resolution: Side of the pictures, px.
        given: A folder of pictures for each word; empty: those that the run folders name.

    Raises:
        ConfigError: ``given`` is not one folder per word.
        ImageError: a folder's pictures cannot be used.
    """
    concepts = flat(words)
    if given and len(given) != len(concepts):
        raise ConfigError(
            f"--train-data-dir must be one folder per loaded word, got {len(given)} for "
            f"{len(concepts)} words."
        )
    folders: list[Path | None] = [*given]
    for path, own in words.items() if not given else ():
        folders += [pictures_of(without_token(path))] * len(own)
    return {
        concept.placeholder_token: read_folder(folder, resolution=resolution).pixels
        for concept, folder in zip(concepts, folders, strict=True)
        if folder is not None
    }


def scored(
    drawing: Drawing, judge: Judge, *, references: Mapping[str, Pixels] | None = None
) -> Drawing:
    """The same pictures, each with its similarities as :func:`choose` finds them.

    Args:
        drawing: The pictures.
        judge: The CLIP that scores.
        references: Training pictures by placeholder; without them image similarity is empty.
    """
    return drawing.told(_similarities(choose(drawing, judge, keep=1, references=references)))


def means_told(drawing: Drawing) -> list[str]:
    """A line for each prompt of a drawing that was scored, with the means of its pictures."""
    found: dict[str, list[dict[str, str]]] = {}
    for prompt, facts in zip(drawing.prompts, drawing.facts, strict=True):
        found.setdefault(prompt, []).append(facts)
    return [
        f"{prompt}: image similarity {mean_of(own, 'image_similarity')}, text similarity "
        f"{mean_of(own, 'text_similarity')}"
        for prompt, own in found.items()
    ]


def mean_of(facts: Sequence[Mapping[str, str]], name: str) -> str:
    """The mean of a similarity over the text entries of some pictures, as text."""
    numbers = [float(own[name]) for own in facts if own.get(name)]
    return f"{sum(numbers) / len(numbers):.3f}" if numbers else "unknown"


def _similarities(choice: Choice) -> list[dict[str, str]]:
    """Text entries of every picture."""
    return [
        {
            "image_similarity": "" if math.isnan(image) else f"{image:.4f}",
            "text_similarity": f"{text:.4f}",
        }
        for image, text in zip(choice.image, choice.text, strict=True)
    ]


def apart(drawing: Drawing, choice: Choice) -> tuple[Drawing, Drawing | None]:
    """The kept pictures, and the dropped ones if any, each with its similarities."""
    told = drawing.told([own | {"ranked_by": choice.rank_by} for own in _similarities(choice)])
    return told.only(choice.kept), told.only(choice.dropped) if choice.dropped else None
