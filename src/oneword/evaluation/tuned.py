"""Side effects of changed weights: drift of other prompts, and editing at high guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.evaluation import harness, metrics
from oneword.evaluation.features import Judge
from oneword.generation.generate import drawn_as_learned
from oneword.models.contract import Backbone
from oneword.prompts import COMMON_WORDS, EDIT_PROMPTS, PHOTO_PROMPTS, fill, of_family
from oneword.vocabulary.inject import injected


_NUM_UNRELATED = 4  # nouns, each in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far a concept has changed what the model draws for prompts that do not name it."""

    prompts: tuple[str, ...]
    similarity: float
    """Mean cosine of the pictures before and after, by prompt and seed; 1: nothing has changed."""
    pixel_change: float
    """Mean absolute difference of such a pair, for pixels in [-1, 1]."""
    text_before: float
    """Mean text similarity of the pictures with their prompts, without the concept."""
    text_after: float
    """The same with the concept."""
    by_prompt: dict[str, float]
    """``similarity`` of each prompt."""
    before: Pixels = field(repr=False)
    """One per (prompt, seed), seeds running fastest."""
    after: Pixels = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON values."""
        pictures = ("before", "after")
        return {n: getattr(self, n) for n in self.__dataclass_fields__ if n not in pictures}


def unrelated_prompts(backbone: Backbone, concept: Concept) -> tuple[str, ...]:
    """Prompts about other things: common nouns that the concept was not learned from.

    Half are plain photos, half are the family's edit prompts.
    """
    nouns = [
        noun
        for noun in of_family(COMMON_WORDS, backbone.family, "object")
        if noun != concept.provenance.get("initializer_token")
        and all(v.is_word(noun) for v in backbone.vocabularies.values())
    ][:_NUM_UNRELATED]
    photo = of_family(PHOTO_PROMPTS, backbone.family, "object")
    edits = of_family(EDIT_PROMPTS, backbone.family, "object")
    templates = [photo if i % 2 == 0 else edits[i % len(edits)] for i in range(len(nouns))]
    return tuple(fill(t, noun) for t, noun in zip(templates, nouns, strict=True))


def class_prompts(backbone: Backbone, concept: Concept) -> tuple[str, ...]:
    """The concept's class in a plain photo, which prior preservation should protect."""
    noun = concept.provenance.get("initializer_token")
    return (fill(of_family(PHOTO_PROMPTS, backbone.family, "object"), noun),) if noun else ()


def drift(
    backbone: Backbone,
    concept: Concept,
    judge: Judge,
    prompts: Sequence[str] | None = None,
    seeds: Sequence[int] = tuple(range(4)),
    *,
    sampling: SamplingConfig | None = None,
    batch_size: int = 8,
) -> Drift:
    """Draw the same prompts from the same noise without and with a concept, and compare.

    A word without weight deltas changes nothing: its similarity is 1 and its change 0.

    Args:
        backbone: The model.
        concept: The word with its weight deltas.
        judge: The CLIP that compares.
        prompts: Prompts without the concept's word; ``None``: ``unrelated_prompts``.
        seeds: One picture each.
        sampling: As in ``generation.generate``.
        batch_size: Pictures drawn at once.

    Source:
        The language drift of Ruiz et al. 2022, arXiv:2208.12242, section 3.3.
    """
    chosen = unrelated_prompts(backbone, concept) if prompts is None else tuple(prompts)
    pairs = [(prompt, seed) for prompt in chosen for seed in seeds]
    sampling = drawn_as_learned(backbone, [concept], sampling)

    def drawn(concepts: Sequence[Concept]) -> Pixels:
        with injected(backbone, concepts):
            return torch.cat(
                [
                    backbone.draw([p for p, _ in part], [s for _, s in part], sampling).cpu()
                    for part in (
                        pairs[i : i + batch_size] for i in range(0, len(pairs), batch_size)
                    )
                ]
            )

    before, after = drawn([]), drawn([concept])
    texts = judge.texts(list(chosen))
    features = [
        judge.images(pixels).unflatten(0, (len(chosen), len(seeds))) for pixels in (before, after)
    ]
    cosines = (features[0].double() * features[1].double()).sum(-1)
    text_before, text_after = (
        sum(metrics.text_similarity(f, t) for f, t in zip(own, texts, strict=True)) / len(chosen)
        for own in features
    )
    return Drift(
        prompts=chosen,
        similarity=float(cosines.mean()),
        pixel_change=float((after - before).abs().mean()),
        text_before=text_before,
        text_after=text_after,
        by_prompt=dict(zip(chosen, cosines.mean(1).tolist(), strict=True)),
        before=before,
        after=after,
    )


def guidance_sweep(
    backbone: Backbone,
    concepts: Mapping[str, Concept],
    pictures: Pixels,
    judge: Judge,
    protocol: harness.Protocol,
    scales: Sequence[float],
    *,
    sampling: SamplingConfig | None = None,
) -> dict[float, harness.Evaluation]:
    """Scores of several concepts of the same thing at several guidance scales.

    Gal et al. report that editing collapses at high guidance after pivotal tuning.

    Args:
        backbone: The model.
        concepts: Concepts by the name of their method, such as "one-word" and "pivotal".
        pictures: The pictures that they were learned from.
        judge: The CLIP that scores.
        protocol: Templates and seeds.
        scales: Scales of classifier-free guidance.
        sampling: All other settings of sampling.

    Returns:
        Evaluations by scale.

    Source:
        Gal et al. 2022, arXiv:2208.01618, appendix A.
    """
    found = {}
    for scale in scales:
        own = dataclasses.replace(sampling or SamplingConfig(), guidance_scale=scale)
        methods = {
            name: harness.word(backbone, concept.placeholder_token, [concept], sampling=own)
            for name, concept in concepts.items()
        }
        found[scale] = harness.evaluate(methods, pictures, judge, protocol)
    return found
