"""The words that a run has saved, compared: what each draws, and which one the judge prefers."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.evaluation import choosing
from oneword.evaluation.choosing import RankBy
from oneword.evaluation.features import Judge
from oneword.generation.generate import Drawing, OnPicture, drawn_as_learned, generate
from oneword.models.contract import Backbone
from oneword.prompts import replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What every saved word draws for the same prompts and seeds."""

    steps: Mapping[int, Drawing]
    """Drawings by step, oldest first."""
    initializer: Drawing | None
    """What their initialiser draws; ``None`` if they did not start from a word."""


def compare(
    backbone: Backbone,
    words: Mapping[int, Concept],
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    sampling: SamplingConfig | None = None,
    batch_size: int = 8,
    replace: bool = False,
    on_picture: OnPicture | None = None,
) -> Compared:
    """Draw every prompt with every seed and every word.

    Args:
        backbone: The run's model.
        words: Words of one run, by step.
        prompts: Prompts with the words' placeholder.
        seeds: One picture per prompt and seed.
        sampling: Unset fields are those that the words were learned with.
        batch_size: Pictures drawn at once.
        replace: Allow a placeholder that is already a word of the model.
        on_picture: Called with the progress of drawing all of them.

    Raises:
        UserError: as for :func:`oneword.generate`.
    """
    last = words[max(words)]
    token, start = last.placeholder_token, str(last.provenance.get("initializer_token") or "")
    chosen = drawn_as_learned(backbone, [last], sampling)
    count = len(prompts) * len(seeds)
    total = count * (len(words) + bool(start))
    drawn: list[Drawing] = []

    def draw(texts: Sequence[str], own: Sequence[Concept], how: SamplingConfig) -> Drawing:
        def report(done: float, _: int) -> None:
            if on_picture is not None:
                on_picture(count * len(drawn) + done, total)

        drawn.append(
            generate(
                backbone, texts, seeds, concepts=own, sampling=how, batch_size=batch_size,
                replace=replace, on_picture=report,
            )
        )  # fmt: skip
        return drawn[-1]

    beside = None
    if start:
        texts = [replaced(text, {token: start}) for text in (*prompts, chosen.negative_prompt)]
        beside = draw(texts[:-1], [], dataclasses.replace(chosen, negative_prompt=texts[-1]))
    steps = {step: draw(prompts, [word], chosen) for step, word in words.items()}
    return Compared(steps=steps, initializer=beside)


def scores(
    compared: Compared,
    judge: Judge,
    *,
    rank_by: RankBy | None = None,
    references: Mapping[str, Pixels] | None = None,
) -> dict[int, float]:
    """Score of each word's pictures, by step: the mean of what :func:`choosing.choose` ranks by.

    Args:
        compared: What the words drew.
        judge: The CLIP that ranks.
        rank_by: As for :func:`choosing.choose`.
        references: Training pictures by placeholder.

    Raises:
        ChoosingError: image similarity is requested, and there are no training pictures.
    """
    return {
        step: statistics.fmean(
            choosing.choose(
                drawing, judge, keep=1, rank_by=rank_by, references=references
            ).scores
        )
        for step, drawing in compared.steps.items()
    }  # fmt: skip
