"""The paper's scores of a concept, together with the references that are needed to interpret them.

A method is a callable from a prompt template and seeds to pictures, so that a learned word, an
existing word and a baseline are scored by the same code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.presets import ProtocolName
from oneword.evaluation import metrics
from oneword.evaluation.features import Judge
from oneword.generation.ddim_inversion import bipartite
from oneword.generation.generate import check_negative_prompt, drawn_as_learned, generate
from oneword.models.contract import Backbone
from oneword.models.emphasis import plain as plain_text
from oneword.prompts import (
    COMMON_WORDS,
    EDIT_PROMPTS,
    PAPER_EDIT_PROMPTS,
    PHOTO_PROMPTS,
    PLAIN_PROMPT,
    fill,
    of_family,
)


Method = Callable[[str, Sequence[int]], Pixels]
"""``method(template, seeds)``: one picture per seed, with the subject for the template's "{}"."""

OnPicture = Callable[[str, int, int], None]
"""``on_picture(method, done, total)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is drawn and compared."""

    photo: str
    """Template of image similarity."""
    edits: tuple[str, ...]
    """Templates of text similarity."""
    plain: str | None
    """Template of plain similarity; ``None``: no such score."""
    seeds: tuple[int, ...]
    emphasis: str = "none"
    """Weight syntax of the templates, as in a drawing's settings; the judge sees no weights."""

    @property
    def templates(self) -> tuple[str, ...]:
        """All templates; each is drawn once per seed."""
        return (self.photo, *self.edits, *([self.plain] if self.plain else []))


def protocol_for(
    family: str,
    *,
    preset: ProtocolName = "default",
    learnable_property: str = "object",
    edits: Sequence[str] = (),
    plain: bool = False,
    seeds: Sequence[int] = tuple(range(64)),
    emphasis: str = "none",
) -> Protocol:
    """The protocol of a model family.

    Args:
        family: The model's family.
        preset: With "paper", the paper's prompts for any family.
        learnable_property: "object" or "style".
        edits: Templates to use instead.
        plain: Also score against pictures on plain backgrounds.
        seeds: One picture for each; the paper draws 64.
        emphasis: Weight syntax of ``edits``.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.1.
    """
    own = of_family(EDIT_PROMPTS, family, learnable_property)
    if preset == "paper":
        family, own = "*", PAPER_EDIT_PROMPTS[learnable_property]
    return Protocol(
        photo=of_family(PHOTO_PROMPTS, family, learnable_property),
        edits=tuple(edits) or own,
        plain=PLAIN_PROMPT if plain and learnable_property == "object" else None,
        seeds=tuple(seeds),
        emphasis=emphasis,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one method; NaN if a score does not apply."""

    image_similarity: float
    """Mean pairwise cosine with the training pictures."""
    plain_similarity: float
    """The same for plain backgrounds, with drawings of the thing alone."""
    text_similarity: float
    """Mean over the edit prompts, by the paper's formula."""
    text_similarity_code: float
    """The same by the formula of the authors' code."""
    by_prompt: dict[str, float]
    """Text similarity, by the paper's formula, for each edit template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of all methods, and the pictures that they were computed from."""

    protocol: Protocol
    judge: str
    scores: dict[str, Scores]
    """By method, "training pictures" last."""
    pictures: dict[str, dict[str, Pixels]] = field(repr=False)
    """By method and template."""
    reached: float
    """Share of the way from the initialiser's plain similarity to the drawings'; NaN without
    one."""

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON values."""
        names = Scores.__dataclass_fields__
        return {
            "judge": self.judge,
            "photo_prompt": self.protocol.photo,
            "edit_prompts": list(self.protocol.edits),
            "plain_prompt": self.protocol.plain,
            "num_images_per_prompt": len(self.protocol.seeds),
            "seeds": list(self.protocol.seeds),
            "scores": {
                method: {name: getattr(s, name) for name in names}
                for method, s in self.scores.items()
            },
            "reached": self.reached,
        }


CONCEPT, INITIALIZER, BEST_NOUN = "concept", "initializer", "best noun"
TRAINING = "training pictures"


def evaluate(
    methods: Mapping[str, Method],
    pictures: Pixels,
    judge: Judge,
    protocol: Protocol,
    *,
    plain: Float[Tensor, "others 3 side side"] | None = None,
    on_picture: OnPicture | None = None,
) -> Evaluation:
    """Score methods with the same templates and seeds.

    Args:
        methods: Methods by name; "concept" and "initializer" also give ``reached``.
        pictures: The training pictures.
        judge: The CLIP that scores; it should not be used in training.
        protocol: Templates and seeds.
        plain: Pictures of the thing alone; needed if the protocol has a plain template.
        on_picture: Called with the progress of each method.
    """
    training = judge.images(pictures)
    plain_features = None if plain is None else judge.images(plain)
    # Scored against the prompt without its subject, as in the paper: "a photo of on the moon".
    said = [plain_text(template, protocol.emphasis) for template in protocol.edits]
    texts = judge.texts([bare(template) for template in said])
    scores: dict[str, Scores] = {}
    drawn: dict[str, dict[str, Pixels]] = {}
    names: dict[Method, str] = {}
    for name, method in methods.items():
        # the best noun is often the initialiser
        drawn[name] = dict(drawn[names[method]]) if method in names else {}
        names.setdefault(method, name)
        for i, template in enumerate(protocol.templates):
            if template not in drawn[name]:
                drawn[name][template] = method(template, protocol.seeds)
            if on_picture is not None:
                on_picture(name, i + 1, len(protocol.templates))
        features = {t: judge.images(p) for t, p in drawn[name].items()}
        edits = [features[t] for t in protocol.edits]
        scores[name] = Scores(
            image_similarity=metrics.image_similarity(features[protocol.photo], training),
            plain_similarity=(
                math.nan
                if protocol.plain is None or plain_features is None
                else metrics.image_similarity(features[protocol.plain], plain_features)
            ),
            **_text_scores(protocol, edits, texts),
        )
    own_plain = math.nan if plain_features is None else metrics.self_similarity(plain_features)
    scores[TRAINING] = Scores(
        image_similarity=metrics.self_similarity(training),
        plain_similarity=own_plain,
        **_text_scores(protocol, [training] * len(protocol.edits), texts),
    )
    reached = math.nan
    if CONCEPT in scores and INITIALIZER in scores:
        reached = metrics.share_of_way(
            scores[CONCEPT].plain_similarity, scores[INITIALIZER].plain_similarity, own_plain
        )
    return Evaluation(
        protocol=protocol, judge=judge.name, scores=scores, pictures=drawn, reached=reached
    )


def bare(template: str) -> str:
    """A prompt without its subject."""
    return " ".join(fill(template, "").split())


def _text_scores(protocol: Protocol, features: Sequence[Any], texts: Any) -> dict[str, Any]:
    by_prompt = {
        template: metrics.text_similarity(f, text)
        for template, f, text in zip(protocol.edits, features, texts, strict=True)
    }
    by_code = [
        metrics.text_similarity_code(f, text) for f, text in zip(features, texts, strict=True)
    ]
    return {
        "text_similarity": math.fsum(by_prompt.values()) / len(by_prompt),
        "text_similarity_code": math.fsum(by_code) / len(by_code),
        "by_prompt": by_prompt,
    }


def word(
    backbone: Backbone,
    text: str,
    concepts: Sequence[Concept] = (),
    *,
    sampling: SamplingConfig | None = None,
    batch_size: int = 16,
    replace: bool = False,
) -> Method:
    """The method that inserts a word, learned or known, into the template and draws."""

    def draw(template: str, seeds: Sequence[int]) -> Pixels:
        return generate(
            backbone,
            [fill(template, text)],
            seeds,
            concepts=concepts,
            sampling=sampling,
            batch_size=batch_size,
            replace=replace,
        ).pixels

    return draw


def redrawn(
    backbone: Backbone,
    pictures: Pixels,
    templates: Sequence[str],
    photo: str,
    concept: Concept,
    *,
    guidance_scale: float,
    num_inference_steps: int,
    sampler: str | None = None,
    batch_size: int = 16,
) -> Method:
    """The method that keeps a picture's noise and draws it again with another sentence.

    The first seed gets the first picture, and so on in turn.

    Args:
        backbone: The model.
        pictures: Pictures of the concept.
        templates: All templates that will be drawn; a picture is inverted once for all of them.
        photo: Template for what the pictures show.
        concept: The learned word.
        guidance_scale: For the way back from the noise.
        num_inference_steps: For each of the two ways.
        sampler: Sampler whose DDIM is used; ``None``: that of the preset that the word was learned
            with.
        batch_size: Pictures drawn at once.

    Source:
        Gal et al. 2022, arXiv:2208.01618, appendix A ("bipartite inversion").
    """
    token = concept.placeholder_token

    @cache
    def of(index: int) -> dict[str, Tensor]:
        (drawn,) = bipartite(
            backbone,
            pictures[index : index + 1],
            [fill(template, token) for template in templates],
            [guidance_scale],
            invert=fill(photo, token),
            concepts=[concept],
            num_inference_steps=num_inference_steps,
            sampler=sampler,
            batch_size=batch_size,
        ).values()
        return dict(zip(templates, drawn, strict=True))

    def draw(template: str, seeds: Sequence[int]) -> Pixels:
        return torch.stack([of(i % len(pictures))[template] for i in range(len(seeds))])

    return draw


def prompt_only(backbone: Backbone, **options: Any) -> Method:
    """The method that draws the prompt without its subject; ``options`` as for :func:`word`.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.2.
    """

    def draw(template: str, seeds: Sequence[int]) -> Pixels:
        return word(backbone, "", **options)(bare(template), seeds)

    return draw


def described(backbone: Backbone, captions: Sequence[str], **options: Any) -> Method:
    """The method that replaces the word by people's descriptions, each for some of the seeds.

    ``options`` as for :func:`word`. A description's own article is dropped if the template has one.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.2.
    """

    def draw(template: str, seeds: Sequence[int]) -> Pixels:
        has_article = re.search(r"\b(a|an|the) \{\}", template, re.IGNORECASE)
        drawn: list[Pixels] = [torch.empty(0)] * len(seeds)
        for index, caption in enumerate(captions):
            text = _ARTICLE.sub("", caption) if has_article else caption
            part = list(seeds)[index :: len(captions)]
            if part:
                pictures = word(backbone, text, **options)(template, part)
                drawn[index :: len(captions)] = list(pictures.split(1))
        return torch.cat(drawn)

    return draw


_ARTICLE = re.compile(r"^(a|an|the)\s+", re.IGNORECASE)


def best_noun(
    backbone: Backbone, judge: Judge, pictures: Pixels, learnable_property: str = "object"
) -> str | None:
    """The common word of the model's vocabulary that is nearest to the pictures for the judge.

    For a style, the nearest word for a style. ``None`` if the vocabulary has none of them as a
    single token.
    """
    words = [
        word
        for word in of_family(COMMON_WORDS, backbone.family, learnable_property)
        if all(vocabulary.is_word(word) for vocabulary in backbone.vocabularies.values())
    ]
    if not words:
        return None
    template = "a photo of a {}" if learnable_property == "object" else "in the style of {}"
    texts = judge.texts([fill(template, word) for word in words])
    cosines = (judge.images(pictures) @ texts.T).mean(0)
    return words[int(cosines.argmax())]


def learnable_property(concept: Concept) -> str:
    """What a concept was trained as: "style", or "object", which is also the default."""
    return concept.learnable_property


def concept_methods(
    backbone: Backbone,
    concept: Concept,
    judge: Judge,
    pictures: Pixels,
    **options: Any,
) -> dict[str, tuple[str, Method]]:
    """The concept, its initialiser and the best existing noun, each with its word and method.

    ``options`` as for :func:`word`. A concept that does not record its initialiser has none.

    Raises:
        PromptError: the negative prompt names the concept, but the others are drawn without it.
    """
    token, sampling = concept.placeholder_token, options.get("sampling") or backbone.sampling
    check_negative_prompt(sampling.negative_prompt, absent=[token])
    options["sampling"] = drawn_as_learned(backbone, [concept], options.get("sampling"))
    found = {
        CONCEPT: (
            token,
            word(backbone, token, [concept], **options),
        )
    }
    options.pop("replace", None)
    initializer = concept.provenance.get("initializer_token")
    if initializer:
        found[INITIALIZER] = (initializer, word(backbone, initializer, **options))
    noun = best_noun(backbone, judge, pictures, learnable_property(concept))
    if noun is not None:
        known = noun == initializer
        found[BEST_NOUN] = found[INITIALIZER] if known else (noun, word(backbone, noun, **options))
    return found
