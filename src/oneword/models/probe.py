"""Checks whether a new word works in a pipeline folder of any family, on the generic path.

The generic path is the basis of every family here: rows inserted at the lookup, and the pipeline's
own ``encode_prompt``. The denoiser is not run; that is the part of a family's file.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import requires_backends
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from oneword import catalog
from oneword._devices import pick_device, pick_dtype
from oneword._files import InputError, read_json
from oneword.concepts.concept import Concept
from oneword.config.model import ModelConfig
from oneword.errors import ModelError, UserError, reason_of
from oneword.models.assembly import quiet
from oneword.prompts import COMMON_WORDS
from oneword.vocabulary.inject import injected
from oneword.vocabulary.vocabulary import Vocabulary


_TOKEN = "<Probe-Word>"  # in both cases, so that a pipeline that lower-cases its prompts is found
_SENTENCE = "a photo of a {} on the table"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderProbe:
    """One text encoder: its table, and which parts of the generic path work."""

    text_encoder: str
    """Attribute of the pipeline, such as "text_encoder_2"."""
    kind: str
    """Class of the encoder."""
    tokenizer: str
    """Attribute of its tokenizer; "tokenizer.tokenizer" inside a processor."""
    num_tokens: int
    """Number of tokens that the tokenizer knows."""
    table: tuple[int, int]
    """Rows and width of the embedding table."""
    lookups: tuple[str, ...]
    """Modules of the encoder that read the table; these are hooked."""
    stands_for: bool | None
    """Whether a row copied from a word conditions like that word; ``None`` without a word to
    copy."""
    learns: bool
    """Whether a gradient returns to the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found in a folder."""

    pipeline: str
    """Class of the pipeline."""
    family: str | None
    """The family that loads it; ``None`` if there is none."""
    encoders: tuple[EncoderProbe, ...]
    unpaired: tuple[str, ...]
    """Text encoders without a tokenizer of their own, and tokenizers without a text encoder."""
    problems: tuple[str, ...]
    """The problems, in words."""

    @property
    def reaches(self) -> bool:
        """Whether a word can be learned in every text encoder on the generic path."""
        return bool(self.encoders) and not self.problems


def probe(config: ModelConfig) -> Probe:
    """Load a pipeline folder of any family and try the generic path.

    Raises:
        ModelError: the folder is not a pipeline, or cannot be loaded.
    """
    index = Path(config.model) / "model_index.json"
    try:
        kind = read_json(index, {"_class_name": str})["_class_name"]
    except InputError as error:
        raise ModelError(
            f"The folder must be a diffusers pipeline with a model_index.json that names its "
            f"class, got {config.model} ({error})."
        ) from error
    device = pick_device(config.device)
    try:
        # where a library is missing, diffusers has a class that can do nothing
        made = getattr(diffusers, kind, None)
        requires_backends(made, getattr(made, "_backends", []))
        with quiet():
            pipeline: Any = DiffusionPipeline.from_pretrained(
                config.model,
                dtype=pick_dtype(config.dtype, device, config.model),
                variant=config.variant,
            )
    except Exception as error:
        raise ModelError(
            f"The folder {config.model} must be a whole {kind}, got: {reason_of(error)}"
        ) from error
    return try_road(pipeline.to(device), config.model)


def try_road(pipeline: Any, name: str) -> Probe:
    """Find the text encoders of a loaded pipeline and pass a word through each.

    Args:
        pipeline: Any diffusers pipeline; its text encoders are frozen.
        name: The user's name for it.
    """
    vocabularies, unpaired = _vocabularies(pipeline)
    for vocabulary in vocabularies.values():
        vocabulary.text_encoder.requires_grad_(False).eval()
    problems: list[str] = []
    stands_for: dict[str, bool] = {}
    learns: dict[str, bool] = {}
    if not vocabularies:
        problems.append("no text encoder with an embedding table and a tokenizer was found")
    elif not hasattr(pipeline, "encode_prompt"):
        problems.append(
            "the pipeline has no encode_prompt, so a family file must define how prompts are "
            "encoded"
        )
    else:
        try:
            stands_for, learns = _send_word(pipeline, vocabularies, name)
        except Exception as error:
            # whatever a strange pipeline raises is a finding
            problems.append(f"encode_prompt failed with {type(error).__name__}: {reason_of(error)}")
    for encoder, learned in learns.items():
        if not learned:
            problems.append(
                f"no gradient reaches an embedding of {encoder}: the word is cut off or changed "
                "before it, its output is not used, or encode_prompt disables gradients"
            )
    if not all(stands_for.values()):
        problems.append(
            "a copied embedding does not work like its word: the prompt is changed on the way, "
            "such as to lower case, or split into parts"
        )
    family = catalog.of_pipeline(type(pipeline).__name__)
    return Probe(
        pipeline=type(pipeline).__name__,
        family=family.name if family else None,
        encoders=tuple(
            EncoderProbe(
                text_encoder=encoder,
                kind=type(vocabulary.text_encoder).__name__,
                tokenizer=_place_of(pipeline, vocabulary),
                num_tokens=len(vocabulary.tokenizer),
                table=(vocabulary.weight.shape[0], vocabulary.dim),
                lookups=tuple(_lookups(vocabulary)),
                stands_for=stands_for.get(encoder),
                learns=learns.get(encoder, False),
            )
            for encoder, vocabulary in vocabularies.items()
        ),
        unpaired=tuple(unpaired),
        problems=tuple(problems),
    )


def _vocabularies(pipeline: Any) -> tuple[dict[str, Vocabulary], list[str]]:
    """Text encoders with their tokenizers, by the encoder's attribute; and what is left over."""
    parts: Mapping[str, Any] = pipeline.components
    encoders = {name: part for name, part in parts.items() if _has_table(part)}
    tokenizers = {
        name: part
        for name, part in parts.items()
        if isinstance(part, PreTrainedTokenizerBase)
        or (isinstance(part, ProcessorMixin) and hasattr(part, "tokenizer"))
    }
    found, spare = {}, dict(tokenizers)
    # by the number that both end with, or else the next one in order
    for name in sorted(encoders, key=lambda n: f"tokenizer{_number(n)}" not in tokenizers):
        own = f"tokenizer{_number(name)}"
        place = own if own in spare else next(iter(spare), None)
        if place is None:
            continue
        part = spare.pop(place)
        holder, attribute = (
            (part, "tokenizer") if isinstance(part, ProcessorMixin) else (pipeline, place)
        )
        found[name] = Vocabulary(name, holder, attribute, encoders[name])
    ordered = {name: found[name] for name in encoders if name in found}
    return ordered, [*(name for name in encoders if name not in found), *spare]


def _number(name: str) -> str:
    """The ``_2`` of ``text_encoder_2``."""
    stem, _, end = name.rpartition("_")
    return f"_{end}" if stem and end.isdecimal() else ""


def _has_table(part: Any) -> bool:
    if not isinstance(part, PreTrainedModel):
        return False
    try:
        return isinstance(part.get_input_embeddings(), nn.Embedding)
    except (NotImplementedError, AttributeError):
        return False  # a picture's encoder, or a safety checker


def _place_of(pipeline: Any, vocabulary: Vocabulary) -> str:
    if vocabulary.pipeline is pipeline:
        return vocabulary.tokenizer_attribute
    holder = next(n for n, part in pipeline.components.items() if part is vocabulary.pipeline)
    return f"{holder}.{vocabulary.tokenizer_attribute}"


def _lookups(vocabulary: Vocabulary) -> Iterator[str]:
    tables = {id(table) for table in vocabulary.tables()}
    for name, module in vocabulary.text_encoder.named_modules():
        if id(module) in tables:
            yield name


def _send_word(
    pipeline: Any, vocabularies: dict[str, Vocabulary], name: str
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Whether a copied row conditions like its word, and whether a gradient reaches each row."""
    backbone = SimpleNamespace(vocabularies=vocabularies, name=name, pool="eos")
    nouns = COMMON_WORDS["*"]["object"]
    known = [n for n in nouns if all(v.is_word(n) for v in vocabularies.values())]
    noun = known[0] if known else nouns[0]
    rows = {
        encoder: vocabulary.rows_of(noun).mean(0, keepdim=True).requires_grad_()
        for encoder, vocabulary in vocabularies.items()
    }
    with injected(backbone, [Concept(placeholder_token=_TOKEN, rows=rows)]), torch.enable_grad():
        found = list(_floats(_encoded(pipeline, _SENTENCE.format(_TOKEN), len(rows))))
        total = torch.stack([part.float().square().sum() for part in found]).sum()
        gradients: tuple[Tensor | None, ...] = (None,) * len(rows)
        if total.requires_grad:
            gradients = torch.autograd.grad(total, list(rows.values()), allow_unused=True)
    learns = {
        encoder: gradient is not None and bool(gradient.isfinite().all() and gradient.any())
        for encoder, gradient in zip(rows, gradients, strict=True)
    }
    if not known:
        return {}, learns
    with torch.no_grad():
        plain = list(_floats(_encoded(pipeline, _SENTENCE.format(noun), len(rows))))
    alike = len(plain) == len(found) and all(
        a.shape == b.shape and torch.allclose(a, b, atol=1e-4 if a.dtype == torch.float32 else 0.1)
        for a, b in zip(found, plain, strict=True)
    )
    return dict.fromkeys(rows, alike), learns


def _encoded(pipeline: Any, prompt: str, count: int) -> Any:
    """Call ``encode_prompt`` with what every family's has, and nothing for what it asks besides.

    Where it reads with one of the ``count`` text encoders at a time, with each.
    """
    given = {
        "prompt": [prompt],
        "device": pipeline.device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": False,
        "clean_caption": False,
    }
    parameters = inspect.signature(pipeline.encode_prompt).parameters
    if "prompt" not in parameters:
        raise UserError(f"it takes no prompt but {', '.join(parameters)}")
    open_ones = [
        n
        for n, p in parameters.items()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    options = {name: given.get(name) for name in open_ones}
    options |= {name: value for name, value in given.items() if name in parameters}
    turns: list[dict[str, int]] = [{}]
    if "text_encoder_index" in parameters:
        turns = [{"text_encoder_index": index} for index in range(count)]
    with quiet():
        return [pipeline.encode_prompt(**options, **turn) for turn in turns]


def _floats(value: Any) -> Iterator[Tensor]:
    """Every tensor of floats in what a pipeline returns, in order."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _floats(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _floats(inner)
