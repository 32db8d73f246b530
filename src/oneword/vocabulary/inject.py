"""Words outside the model: rows inserted at the embedding lookup, and tokenizers that know them.

The frozen table is never resized. Inside ``injected`` a placeholder becomes one token of a copy of
the tokenizer, then one row id for each vector of the concept. These ids are beyond the table, and a
hook on the lookup answers them with the concept's rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from oneword.concepts import deltas
from oneword.concepts.concept import OUTPUT_VECTORS, Concept, check_drawable
from oneword.microworld import weights
from oneword.prompts import spellings
from oneword.vocabulary.kinds import VARYING
from oneword.vocabulary.output_vectors import OutputSplice, OutputWord, ids_of, places, replaced
from oneword.vocabulary.splice import Splice
from oneword.vocabulary.tokenizer import with_words
from oneword.vocabulary.vocabulary import Vocabulary, initial_rows
from oneword.vocabulary.word import PlaceholderError, Word


_CPU = torch.device("cpu")


@contextmanager
def injected(backbone: Any, concepts: Sequence[Word], *, replace: bool = False) -> Iterator[None]:
    """Let prompts contain the concepts' placeholders inside the context.

    The rows are used without copying, so that gradients reach them if they require gradients.
    CLIP's pooled output is taken at the end-of-text token, unless the backbone's ``pool`` is
    "legacy": then it is taken where stock tools take it, on most models at the word itself. Weight
    deltas change the model for every prompt. On exit, also after an exception, the tokenizers and
    the model's parameters are the old objects, and no hook is left.

    Args:
        backbone: Anything with ``vocabularies``, and with ``pipeline`` if a concept has deltas.
        concepts: The words; there may be none. A concept's negative word is included.
        replace: Allow a placeholder that is already a word of the model.

    Raises:
        PlaceholderError: two concepts share a placeholder, one is a word of the model, or its rows
            are for another model.
        DeltaError: a concept's weight deltas are for another model.
        ConceptError: a concept's rows are for a CLIP that draws nothing, and is not this one, or
            for another world of the embedded model.
    """
    for concept in concepts:
        weights.check_word(
            concept.placeholder_token, concept.provenance, getattr(backbone, "name", "")
        )
    vocabularies: Mapping[str, Vocabulary] = backbone.vocabularies
    dims = {name: vocabulary.dim for name, vocabulary in vocabularies.items()}
    given = [
        word
        for concept in concepts
        for word in (
            (concept.fitted(dims), *(other.fitted(dims) for other in concept.companions()))
            if isinstance(concept, Concept)
            else (concept,)
        )
    ]
    concepts = [_as_read(word, vocabularies) for word in given]
    _check(backbone, vocabularies, concepts, replace=replace)
    changes = [c.deltas for c in given if isinstance(c, Concept) and c.deltas]
    with ExitStack() as undo:
        if changes:
            undo.enter_context(deltas.applied(backbone.pipeline, changes))
        if any(word.kind in VARYING for word in concepts):
            undo.enter_context(_by_layer(backbone))
        for name, vocabulary in vocabularies.items() if concepts else ():
            own = [c for c in concepts if name in c.rows]
            first_row = max(vocabulary.weight.shape[0], len(vocabulary.tokenizer) + len(concepts))
            original = vocabulary.tokenizer
            setattr(
                vocabulary.pipeline,
                vocabulary.tokenizer_attribute,
                with_words(original, own, first_row, getattr(backbone, "device", _CPU)),
            )
            undo.callback(setattr, vocabulary.pipeline, vocabulary.tokenizer_attribute, original)
            _splice_outputs(vocabulary, given, own, first_row, undo)
            splice = Splice(name, own, first_row)
            vocabulary.splice = splice
            undo.callback(setattr, vocabulary, "splice", None)
            for table in vocabulary.tables():
                undo.callback(table.register_forward_pre_hook(splice.before).remove)
                undo.callback(table.register_forward_hook(splice.after).remove)
            if getattr(backbone, "pool", "eos") == "legacy":
                continue
            for module in vocabulary.text_encoder.modules():
                before = module.__dict__.get("eos_token_id")
                if before is not None and before != original.eos_token_id:
                    module.eos_token_id = original.eos_token_id
                    undo.callback(setattr, module, "eos_token_id", before)
        yield


def _by_layer(backbone: Any) -> AbstractContextManager[None]:
    """Give each cross-attention layer of the denoiser prompts of its own.

    Raises:
        PlaceholderError: the denoiser has no such layers.
    """
    context = backbone.by_layer() if hasattr(backbone, "by_layer") else None
    if context is None:
        raise PlaceholderError(
            "Cannot use a word that differs from layer to layer with "
            f"{getattr(backbone, 'name', 'another model')} because its denoiser has no "
            "cross-attention layers (Stable Diffusion 1 and 2, SDXL and latent diffusion do); use "
            "--setup one-word."
        )
    return context


def _as_read(concept: Word, vocabularies: Mapping[str, Vocabulary]) -> Word:
    """The rows that text encoders read; a word with output vectors is read as its initialiser."""
    if concept.kind != OUTPUT_VECTORS:
        return concept
    token, word = concept.placeholder_token, concept.provenance.get("initializer_token")
    encoders = {key.partition(".")[0] for key in concept.rows}
    unknown = sorted(encoders - vocabularies.keys())
    if unknown or not word:
        raise PlaceholderError(
            f"The concept {token!r} must be output vectors of the model's text encoders "
            f"({', '.join(vocabularies)}) with their initializer token, got some for "
            f"{', '.join(sorted(encoders))} and {word!r}; use the model that it was learned on."
        )
    rows = {n: initial_rows(v, word, concept.num_vectors) for n, v in vocabularies.items()}
    return Concept(placeholder_token=token, rows=rows)


def _splice_outputs(
    vocabulary: Vocabulary,
    given: Sequence[Word],
    read: Sequence[Word],
    first_row: int,
    undo: ExitStack,
) -> None:
    """Insert the vectors of words that have some in the encoder's output."""
    vectors = {
        concept.placeholder_token: {
            key.partition(".")[2]: rows
            for key, rows in concept.rows.items()
            if key.partition(".")[0] == vocabulary.name
        }
        for concept in given
        if concept.kind == OUTPUT_VECTORS
    }
    words, row = [], first_row
    for concept in read:
        if concept.placeholder_token in vectors:
            own = vectors[concept.placeholder_token]
            words.append(OutputWord(row, concept.num_vectors, own))
        row += concept.num_vectors
    if not words:
        return
    encoder = vocabulary.text_encoder
    before = encoder.__dict__.get("forward")
    encoder.forward = OutputSplice(encoder, words, first_row)
    if before is None:
        undo.callback(delattr, encoder, "forward")
    else:
        undo.callback(setattr, encoder, "forward", before)


def initial_outputs(
    backbone: Any, initializer_token: str, num_vectors: int, sentences: Sequence[str]
) -> dict[str, Tensor]:
    """The text encoders' output for an initialiser, at every place that the model uses.

    The places of an encoder's output that the model uses (the last layer, an earlier one, several)
    are those that its conditioning depends on.

    Args:
        backbone: The model.
        initializer_token: Existing word or words.
        num_vectors: Number of the word's vectors.
        sentences: With "{}" for the word; the vectors are means over these sentences.

    Returns:
        By encoder and place, such as "clip_l.last_hidden_state": (num_vectors, dim), float32.

    Raises:
        PlaceholderError: the tokenizer does not know the initialiser, or the model uses no place of
            any encoder's output.
    """
    vocabularies: Mapping[str, Vocabulary] = backbone.vocabularies
    rows = {n: initial_rows(v, initializer_token, num_vectors) for n, v in vocabularies.items()}
    heard: dict[str, tuple[Tensor, Tensor]] = {}  # ids of the word's vectors from 0 on; leaf

    def listen(name: str, module: Any, args: Any, kwargs: Any, output: Any) -> Any:  # noqa: ARG001
        ids = ids_of(args, kwargs)
        leaves = {p: x.detach().requires_grad_() for p, x in places(output, ids).items()}
        word = ids - vocabularies[name].tokenizer._first_row
        heard.update({f"{name}.{place}": (word, leaf) for place, leaf in leaves.items()})
        # copies, because some pipelines modify what they are given
        return replaced(output, {place: leaf.clone() for place, leaf in leaves.items()})

    with injected(backbone, [Concept(placeholder_token="<probe>", rows=rows)]), ExitStack() as undo:
        for name, vocabulary in vocabularies.items():
            hook = vocabulary.text_encoder.register_forward_hook(
                partial(listen, name), with_kwargs=True
            )
            undo.callback(hook.remove)
        with torch.enable_grad():
            said = backbone.encode_prompt([s.replace("{}", "<probe>") for s in sentences])
            states = said.encoder_hidden_states
            tensors = [*(states if isinstance(states, tuple) else [states]), said.pooled]
            total = sum(x.float().sum() for x in tensors if x is not None and x.requires_grad)
        if not isinstance(total, Tensor):
            raise PlaceholderError(
                "Cannot use output vectors because this model does not read its text encoders' "
                "output token by token; pass --vectors-at input."
            )
        leaves = [leaf for _, leaf in heard.values()]
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return {
        key: torch.stack([leaf.detach()[word == i].float().mean(0) for i in range(num_vectors)])
        for (key, (word, leaf)), gradient in zip(heard.items(), gradients, strict=True)
        if gradient is not None
    }


def _check(
    backbone: Any,
    vocabularies: Mapping[str, Vocabulary],
    concepts: Sequence[Word],
    *,
    replace: bool,
) -> None:
    model = getattr(backbone, "name", "the model")
    for first, second in itertools.combinations(concepts, 2):
        if second.placeholder_token in spellings(first.placeholder_token):
            raise PlaceholderError(
                f"Placeholder tokens must differ, got {first.placeholder_token!r} twice; rename "
                "one with FILE=OTHER-WORD on the command line or concept.named(...) in Python."
            )
    for concept in concepts:
        token = concept.placeholder_token
        if not token or any(c.isspace() for c in token):
            raise PlaceholderError(
                f"The placeholder token must be non-empty and without spaces, got {token!r}."
            )
        check_drawable(token, concept.rows, vocabularies)
        missing = vocabularies.keys() - concept.rows.keys()
        if missing and missing != vocabularies.keys():
            raise PlaceholderError(
                f"The concept {token!r} must have embeddings for each text encoder of {model} "
                f"({', '.join(vocabularies)}), got none for {', '.join(sorted(missing))}, which "
                "would read the placeholder token as letters; use a file that contains all of "
                "them."
            )
        fitting = concept.rows.keys() & vocabularies.keys()
        for name in concept.rows if fitting != concept.rows.keys() else ():
            width = concept.rows[name].shape[1]
            own = {n: v.dim for n, v in vocabularies.items()}
            if name not in vocabularies:
                raise PlaceholderError(
                    f"The concept {token!r} has embeddings of width {width} for the text encoder "
                    f"{name}, got the model {model} with {own}; use the model that it was learned "
                    "on."
                )
        for name in fitting:
            vocabulary, width = vocabularies[name], concept.rows[name].shape[1]
            if width != vocabulary.dim:
                raise PlaceholderError(
                    f"The concept {token!r} has embeddings of width {width} for the text encoder "
                    f"{name}, got the model {model} of width {vocabulary.dim}; use the model that "
                    "it was learned on."
                )
            if hasattr(vocabulary.tokenizer, "_expansions"):
                raise PlaceholderError(
                    "Concepts must be injected together, got an injection inside another; pass all "
                    "of them at once."
                )
            if vocabulary.is_word(token) and not replace:
                raise PlaceholderError(
                    f"The placeholder token must be new to the model, got {token!r}, which is a "
                    f"word of {model}; choose another such as '<{token}>', or pass --replace."
                )
