"""Words outside the model: rows spliced in at the embedding lookup, and tokenizers that know them.

The frozen table is never resized. Inside ``injected`` a placeholder becomes one token of a copy of
the tokenizer, then as many row ids as the concept has vectors; these ids lie beyond the table, and
a hook on the lookup answers them from the concept's rows.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import BatchEncoding

from oneword._typing import Rows
from oneword.concepts import deltas
from oneword.concepts.concept import OUTPUT_VECTORS, Concept
from oneword.config.inversion import UserError
from oneword.vocabulary.output_vectors import OutputSplice, OutputWord, ids_of, places, replaced


_CPU = torch.device("cpu")


class PlaceholderError(UserError):
    """A placeholder cannot be used with this model or in this prompt."""


@runtime_checkable
class Word(Protocol):
    """What can be injected: a concept, or a word that is being learned, whose tensors change."""

    @property
    def placeholder_token(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def num_vectors(self) -> int: ...
    @property
    def rows(self) -> Mapping[str, Tensor]: ...
    @property
    def tensors(self) -> Mapping[str, Tensor]: ...
    @property
    def provenance(self) -> Mapping[str, Any]: ...


VARYING = {"xti": "oneword.training.extensions.xti", "neti": "oneword.training.extensions.neti"}
"""Kinds whose rows depend on the cross-attention layer, and perhaps the diffusion time, that reads
them; the module's ``rows_at(tensors, encoder, layer, time)`` gives (sequences, num_vectors, dim),
and its ``FORM`` says whether the time matters."""


@dataclass(slots=True, eq=False)
class Vocabulary:
    """One text encoder with its tokenizer: the words that a model has."""

    name: str
    """Key in concept files, such as "clip_l"."""
    pipeline: Any
    tokenizer_attribute: str
    """Where the pipeline keeps the tokenizer, such as "tokenizer_2"."""
    text_encoder: nn.Module
    longest: int | None = None
    """Tokens of the longest prompt, where the family's pipeline sets it."""
    splice: Splice | None = None
    """What answers look-ups of injected words, while there are any."""

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt."""
        return self.longest or self.tokenizer.model_max_length

    @property
    def tokenizer(self) -> Any:
        """The pipeline's tokenizer as it is now."""
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
        """Every embedding module that reads the table; on T5 it is not the one that is named."""
        weight = self.weight
        modules = self.text_encoder.modules()
        return [m for m in modules if isinstance(m, nn.Embedding) and m.weight is weight]

    def std(self) -> float:
        """Standard deviation of the table's entries: the scale of a relative learning rate."""
        parts = self.weight.detach().split(2048)  # a copy of the whole would be large
        # on the CPU, since not every device has float64
        sums = [(p.sum(), p.square().sum()) for p in (part.cpu().double() for part in parts)]
        total, squares = (float(sum(values)) for values in zip(*sums, strict=True))
        count = self.weight.numel()
        return math.sqrt((squares - total**2 / count) / (count - 1))

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, as it stands inside a sentence, without special tokens."""
        # Gemma and byte-level tokenizers have other tokens for words that no space precedes
        if self.tokenizer.is_fast:
            return list(self.tokenizer(f" {text}", add_special_tokens=False).input_ids)
        return _behind(self._bare, f" {text}")

    def _bare(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def rows_of(self, text: str) -> Rows:
        """The table's rows for a text, one per token, float32."""
        index = torch.tensor(self.ids(text), dtype=torch.long, device=self.weight.device)
        return self.weight.detach()[index].float()

    def is_word(self, text: str) -> bool:
        """Whether a text is one existing token that holds a letter or digit."""
        bare = self._bare(text)
        unknown = _unknown_id(self.tokenizer)
        known = any(len(ids) == 1 and ids[0] != unknown for ids in (bare, self.ids(text)))
        return known and any(c.isalnum() for c in text)

    def nearest(self, rows: Rows, count: int) -> list[list[tuple[str, float]]]:
        """For each row the existing tokens with the highest cosine, best first."""
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


def _unknown_id(tokenizer: Any) -> int | None:
    # CLIP's tokenizer spells every word in bytes and names its end token as "unknown"
    unknown = tokenizer.unk_token_id
    return None if unknown in (tokenizer.eos_token_id, None) else unknown


def _behind(encode: Callable[[str], list[int]], text: str) -> list[int]:
    """Ids of a text that follows another: some tokenizers put a space before what comes first."""
    head, whole = encode("a"), encode(f"a{text}")
    return whole[len(head) :] if whole[: len(head)] == head else encode(text)


def initial_rows(vocabulary: Vocabulary, initializer_token: str, num_vectors: int) -> Rows:
    """Rows that a new word starts from.

    One vector is the mean of the initialiser's tokens; several are its tokens in order, the last
    one repeated.

    Raises:
        PlaceholderError: the tokenizer does not know the initialiser.
    """
    for word in initializer_token.split() or [initializer_token]:
        ids = vocabulary.ids(word)
        # byte-level tokenizers spell what they do not know nearly letter by letter
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


class _WordTokenizer:
    """Mixed into a copy of a tokenizer: placeholders become row ids before truncation."""

    _expansions: dict[int, list[int]]  # id of the placeholder's token -> row ids
    _spellings: dict[int, str]
    _first_row: int
    _original: Any
    _device: torch.device
    _known: dict[tuple[str, bool], list[int]]

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        # diffusers would otherwise rewrite prompts that hold an added token
        return self._original.added_tokens_encoder

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        plain = super().__call__  # type: ignore[misc]
        texts = [text] if isinstance(text, str) else text
        is_prompts = isinstance(texts, list | tuple) and all(isinstance(t, str) for t in texts)
        if args or not is_prompts or not self._names_one(texts):
            return plain(text, *args, **kwargs)
        special = kwargs.get("add_special_tokens", True)
        encoded = [self._expanded(t, special) for t in texts]
        limit = kwargs.get("max_length") or self.model_max_length  # type: ignore[attr-defined]
        if kwargs.get("truncation"):
            encoded = [
                self._truncated(ids, limit, special, t)
                for ids, t in zip(encoded, texts, strict=True)
            ]
        features = {"input_ids": encoded, "attention_mask": [[1] * len(ids) for ids in encoded]}
        if "token_type_ids" in self.model_input_names:  # type: ignore[attr-defined]
            features["token_type_ids"] = [[0] * len(ids) for ids in encoded]
        padding = kwargs.get("padding", False)
        batch = BatchEncoding(features)
        if padding:
            batch = self.pad(  # type: ignore[attr-defined]
                batch,
                padding=padding,
                max_length=limit if padding == "max_length" else None,
                pad_to_multiple_of=kwargs.get("pad_to_multiple_of"),
            )
        data = {key: list(value) for key, value in batch.items()}
        if kwargs.get("return_attention_mask") is False:
            data.pop("attention_mask")
        if isinstance(text, str) and kwargs.get("return_tensors") is None:
            data = {key: value[0] for key, value in data.items()}
        found = BatchEncoding(data, tensor_type=kwargs.get("return_tensors"))
        if self._device.type == "cuda" and kwargs.get("return_tensors") == "pt":
            # pipelines move ids as they are, for which the CPU would wait in every step
            for key, value in found.items():
                found[key] = value.pin_memory().to(self._device, non_blocking=True)
        return found

    def _names_one(self, texts: Sequence[str]) -> bool:
        return any(spelling in t for t in texts for spelling in self._spellings.values())

    def _expanded(self, text: str, special: bool) -> list[int]:
        if (text, special) not in self._known:
            find = self._by_offsets if self.is_fast else self._by_parts  # type: ignore[attr-defined]
            self._known[text, special] = find(text, special)
        return self._known[text, special]

    def _by_parts(self, text: str, special: bool) -> list[int]:
        """Ids where the tokenizer, written in Python, does not say where its tokens stand.

        What stands between the words is tokenised alone, as it would be behind another word.
        """
        plain = super().__call__  # type: ignore[misc]

        def bare(part: str) -> list[int]:
            return list(plain(part, add_special_tokens=False).input_ids)

        rows = {word: self._expansions[token] for token, word in self._spellings.items()}
        parts = apart(self, text)
        ids = bare(parts[0].removesuffix(" ") if parts[1:] else text)
        for i in range(1, len(parts), 2):
            after = parts[i + 1]
            # as with other tokenizers a row takes the place of the space before it, too
            ids += rows[parts[i]]
            ids += _behind(bare, after.removesuffix(" ") if parts[i + 2 :] else after)
        if not special:
            return ids
        head, tail = self._special_lengths()
        full = list(plain("a").input_ids)
        return full[:head] + ids + full[len(full) - tail :]

    def _by_offsets(self, text: str, special: bool) -> list[int]:
        encoded = super().__call__(  # type: ignore[misc]
            text, add_special_tokens=special, return_offsets_mapping=True
        )
        ids: list[int] = []
        before: tuple[int, int] | None = None
        for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
            if token in self._expansions and _stands_alone(
                text, start, end, self._spellings[token]
            ):
                # Gemma's words hold the space before them; a row takes such a word's place. Some
                # tokenizers give a lone space no width
                lone = before in ((start - 1, start), (start, start))
                if lone and text[start - 1] == " ":
                    ids.pop()
                ids += self._expansions[token]
            else:
                ids.append(token)
            before = start, end
        return ids

    def _truncated(self, ids: list[int], limit: int, special: bool, text: str) -> list[int]:
        if len(ids) <= limit:
            return ids
        head, tail = self._special_lengths() if special else (0, 0)
        kept = ids[: limit - tail] + ids[len(ids) - tail :]
        if any(token >= self._first_row for token in ids[limit - tail : len(ids) - tail]):
            raise PlaceholderError(
                f"A prompt must fit {limit - head - tail} tokens up to its placeholder's last "
                f"vector, got {len(ids) - head - tail} tokens in {text!r}; shorten the prompt or "
                "move the placeholder to its front."
            )
        return kept

    def _special_lengths(self) -> tuple[int, int]:
        plain = super().__call__  # type: ignore[misc]
        bare = plain("a", add_special_tokens=False).input_ids
        full = plain("a").input_ids
        head = full.index(bare[0])
        return head, len(full) - head - len(bare)

    def _readable(self, ids: Any) -> Any:
        if isinstance(ids, Tensor):
            ids = ids.tolist()
        if isinstance(ids, int):
            return self._owner(ids) if ids >= self._first_row else ids
        return [self._readable(i) for i in ids]

    def _owner(self, row: int) -> int:
        return next(token for token, rows in self._expansions.items() if row in rows)

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        return super().decode(self._readable(token_ids), *args, **kwargs)  # type: ignore[misc]

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        readable = self._readable(sequences)
        return super().batch_decode(readable, *args, **kwargs)  # type: ignore[misc]

    def convert_ids_to_tokens(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        readable = self._readable(ids)
        return super().convert_ids_to_tokens(readable, *args, **kwargs)  # type: ignore[misc]


def _is_single(token: str) -> bool:
    """Whether a placeholder begins and ends like a word, so that it must not match inside one."""
    return token[0].isalnum() and token[-1].isalnum()


def _stands_alone(text: str, start: int, end: int, spelling: str) -> bool:
    """Whether a token is the placeholder itself and no piece of another word."""
    if text[start:end] != spelling:
        return False
    neighbours = text[max(0, start - 1) : start] + text[end : end + 1]
    return not (_is_single(spelling) and any(c.isalnum() or c == "_" for c in neighbours))


def truncated(tokenizer: Any, ids: list[int], limit: int, text: str) -> list[int]:
    """The first ids of a prompt, of which a family's own road has made more than it takes.

    Args:
        tokenizer: A pipeline's, inside ``injected`` or not.
        ids: Without special tokens.
        limit: How many may stay.
        text: The prompt, for the message.

    Raises:
        PlaceholderError: a word of a concept would be cut off.
    """
    cut = getattr(tokenizer, "_truncated", None)
    return ids[:limit] if cut is None else cut(ids, limit, special=False, text=text)


def _with_words(
    tokenizer: Any, concepts: Sequence[Word], first_row: int, device: torch.device
) -> Any:
    """A copy of a tokenizer that turns each concept's placeholder into its row ids."""
    words = copy.deepcopy(tokenizer)
    decoding = getattr(words, "_wrap_decode_method_backend_tokenizer", None)
    if decoding is not None:  # CLIP's tokenizer patches its own decoding; a copy loses the patch
        decoding()
    words.__class__ = type(type(tokenizer).__name__, (_WordTokenizer, type(tokenizer)), {})
    words._original = tokenizer
    words._first_row, words._device, words._known = first_row, device, {}
    words._expansions, words._spellings = {}, {}
    row = first_row
    for concept in concepts:
        token = concept.placeholder_token
        added = AddedToken(token, normalized=False, single_word=_is_single(token))
        if words.is_fast:
            words.add_tokens([added])
            index = words.convert_tokens_to_ids(token)
        else:  # it is found in the text, and needs a token for decoding alone
            index = row
            words._added_tokens_decoder[index] = added
        words._expansions[index] = list(range(row, row + concept.num_vectors))
        words._spellings[index] = token
        row += concept.num_vectors
    return words


class Splice:
    """Hooks on one text encoder's lookups."""

    def __init__(self, encoder: str, words: Sequence[Word], first_row: int) -> None:
        self.encoder, self.words, self.first_row = encoder, words, first_row
        self.ids: Tensor | None = None
        self.place: tuple[Tensor, Tensor] | None = None
        """Layer, int64, and diffusion time in [0, 1) for which each sequence is encoded; without
        them a word that varies answers with its plain rows."""

    @property
    def varies(self) -> bool:
        """Whether a word's rows depend on the layer that reads them."""
        return any(word.kind in VARYING for word in self.words)

    @property
    def timed(self) -> bool:
        """Whether a word's rows depend on the diffusion time at which they are read."""
        return any(
            importlib.import_module(VARYING[word.kind]).FORM.timed
            for word in self.words
            if word.kind in VARYING
        )

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002
        self.ids = args[0]
        return (args[0].masked_fill(args[0] >= self.first_row, 0), *args[1:])

    def after(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:  # noqa: ARG002
        ids = self.ids
        assert ids is not None
        index = (ids - self.first_row).clamp_min(0)
        if self.place is None or not self.varies:
            table = torch.cat([word.rows[self.encoder].to(output.device) for word in self.words])
            found = F.embedding(index, table)
        else:
            tables = self._tables(self.place, output.device)
            found = tables.gather(1, index[..., None].expand(-1, -1, tables.shape[2]))
        found = found.to(output.dtype)
        # Gemma multiplies what it looks up, by a number in the table's own type
        scale = getattr(module, "embed_scale", None)
        if isinstance(scale, Tensor):
            scale = scale.to(output.dtype)
        found = found if scale is None else found * scale
        return torch.where((ids >= self.first_row)[..., None], found, output)

    def _tables(self, place: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
        """The rows of all words for each sequence: (sequences, rows, dim)."""
        parts = []
        for word in self.words:
            if word.kind in VARYING:
                module = importlib.import_module(VARYING[word.kind])
                rows = module.rows_at(word.tensors, self.encoder, *place)
            else:
                rows = word.rows[self.encoder].expand(len(place[0]), -1, -1)
            parts.append(rows.to(device))
        return torch.cat(parts, dim=1)


def apart(tokenizer: Any, text: str) -> list[str]:
    """A text in parts, of which every second one is a placeholder that the tokenizer knows.

    Args:
        tokenizer: A pipeline's, inside ``injected`` or not.
        text: A prompt.

    Returns:
        One part more than twice the number of placeholders; what stands between may be empty.
    """
    spellings = sorted(getattr(tokenizer, "_spellings", {}).values(), key=len, reverse=True)
    parts, last = [], 0
    for found in re.finditer("|".join(map(re.escape, spellings)), text) if spellings else ():
        if _stands_alone(text, *found.span(), found[0]):
            parts += [text[last : found.start()], found[0]]
            last = found.end()
    return [*parts, text[last:]]


@contextmanager
def injected(backbone: Any, concepts: Sequence[Word], *, replace: bool = False) -> Iterator[None]:
    """Let prompts hold the concepts' placeholders, for as long as the context lasts.

    The rows are used as they are, so that gradients reach them if they ask for gradients. CLIP's
    pooled output is taken at the end-of-text token, unless the backbone's ``pool`` is
    "legacy": then where stock tools take it, on most models at the word itself. Weight deltas
    change the model for every prompt. On exit, by exception too, the tokenizers and the model's
    parameters are the old objects and no hook is left.

    Args:
        backbone: Anything with ``vocabularies``, and with ``pipeline`` where a concept has deltas.
        concepts: The words; none is fine. A concept brings its negative word along.
        replace: Allow a placeholder that is already a word of the model.

    Raises:
        PlaceholderError: two concepts share a placeholder, one is a word of the model, or its rows
            are for another model.
        DeltaError: a concept's weight deltas are for another model.
    """
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
                _with_words(original, own, first_row, getattr(backbone, "device", _CPU)),
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
    """Let each cross-attention layer of the denoiser read prompts of its own.

    Raises:
        PlaceholderError: it has no such layers.
    """
    context = backbone.by_layer() if hasattr(backbone, "by_layer") else None
    if context is None:
        raise PlaceholderError(
            "A word that differs from layer to layer needs a denoiser with cross-attention layers "
            f"(Stable Diffusion 1 and 2, SDXL, latent diffusion), got "
            f"{getattr(backbone, 'name', 'another model')}; use --setup one-word with it."
        )
    return context


def _as_read(concept: Word, vocabularies: Mapping[str, Vocabulary]) -> Word:
    """The rows that text encoders read: a word with output vectors is read as its initialiser."""
    if concept.kind != OUTPUT_VECTORS:
        return concept
    token, word = concept.placeholder_token, concept.provenance.get("initializer_token")
    encoders = {key.partition(".")[0] for key in concept.rows}
    unknown = sorted(encoders - vocabularies.keys())
    if unknown or not word:
        raise PlaceholderError(
            f"The concept {token!r} must be output vectors of the model's text encoders "
            f"({', '.join(vocabularies)}) with their initializer token, got some for "
            f"{', '.join(sorted(encoders))} and {word!r}; use the model it was learned on."
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
    """Let the encoder's output hold the vectors of those words that have some there."""
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
    """What the text encoders say of an initialiser, wherever the model listens.

    Which places of an encoder's output the model uses (the last layer, an earlier one, several) is
    found by asking which of them its conditioning depends on.

    Args:
        backbone: The model.
        initializer_token: Existing word or words.
        num_vectors: As many as the word's.
        sentences: With "{}" for the word; the vectors are means over them.

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
        # copies: some pipelines write into what they are given
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
                "Output vectors need a model that reads its text encoders' output token by token, "
                "got none; learn rows with --vectors-at input."
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
        if first.placeholder_token == second.placeholder_token:
            raise PlaceholderError(
                f"Placeholders must differ, got {first.placeholder_token!r} twice; load one of the "
                "concepts under another word, with FILE=OTHER-WORD on the command line or "
                "concept.named(...) in Python."
            )
    for concept in concepts:
        token = concept.placeholder_token
        if not token or any(c.isspace() for c in token):
            raise PlaceholderError(
                f"The placeholder must be non-empty and without spaces, got {token!r}."
            )
        fitting = concept.rows.keys() & vocabularies.keys()
        for name in concept.rows if fitting != concept.rows.keys() else ():
            width = concept.rows[name].shape[1]
            own = {n: v.dim for n, v in vocabularies.items()}
            if name not in vocabularies:
                raise PlaceholderError(
                    f"The concept {token!r} has rows of width {width} for the text encoder {name}, "
                    f"got the model {model} with {own}; use the model it was learned on."
                )
        for name in fitting:
            vocabulary, width = vocabularies[name], concept.rows[name].shape[1]
            if width != vocabulary.dim:
                raise PlaceholderError(
                    f"The concept {token!r} has rows of width {width} for the text encoder {name}, "
                    f"got the model {model} of width {vocabulary.dim}; use the model it was "
                    "learned on."
                )
            if hasattr(vocabulary.tokenizer, "_expansions"):
                raise PlaceholderError(
                    "Concepts must be injected together, got an injection inside another; pass all "
                    "of them at once."
                )
            if vocabulary.is_word(token) and not replace:
                raise PlaceholderError(
                    f"The placeholder must be new to the model, got {token!r}, which {model} knows "
                    f"as a word; choose another such as '<{token}>', or pass --replace."
                )
