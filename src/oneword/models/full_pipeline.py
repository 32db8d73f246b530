"""A complete pipeline with words in it, for tools that load pipelines and not words.

The words get tokens of their own, and rows at the end of each embedding table, as in the output of
diffusers' training script. Everything else is the model as it was loaded. CLIP's pooled output is
taken at the end of the prompt; the script's pipelines take it at the new word.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from tokenizers import AddedToken
from torch import Tensor, nn

from oneword._files import OutputError, check_target, hold
from oneword.concepts.concept import OUTPUT_VECTORS, Concept
from oneword.config.inversion import ResolvedConfig
from oneword.config.tuning import TUNING
from oneword.errors import ModelError, UserError, reason_of, why
from oneword.microworld import weights
from oneword.models.assembly import quiet
from oneword.models.contract import Backbone, Conditioning
from oneword.vocabulary.inject import injected
from oneword.vocabulary.kinds import VARYING
from oneword.vocabulary.tokenizer import is_single
from oneword.vocabulary.vocabulary import Vocabulary


INDEX = "model_index.json"
"""The file that makes a folder a pipeline; it is written last."""
_TRIED_IN = "a photo of a {} on the moon"
_NEAR = 0.02  # of the largest state: the same computation in another order, in bf16 too
_WAIT_S = 30.0  # for another command that writes into the same folder


def check_full_pipeline(
    backbone: Backbone, config: ResolvedConfig, folder: Path, *, replace: bool = False
) -> None:
    """Refuse, before training, a word that cannot be saved in a pipeline.

    A word with random rows is put into the pipeline and encoded from there; the conditioning must
    be the same as in training.

    Args:
        backbone: The model.
        config: How the word will be learned.
        folder: The folder for the pipeline.
        replace: Allow a placeholder that is already a word of the model.

    Raises:
        ModelError: the word will be more than embedding rows, the model's weights are packed or
            offloaded, or the family's text encoders or pipeline cannot hold a word.
        OutputError: the folder's disk has not enough space.
    """
    more = {
        f"setup {config.setup}": config.setup in TUNING,
        f"form {config.form}": config.form in VARYING,
        "vectors_at 'output'": config.vectors_at == "output",
    }
    for name, given in more.items():
        if given:
            raise ModelError(
                f"Cannot use save_as_full_pipeline with {name} because a pipeline can hold only a "
                "word of plain embeddings; leave one of them out."
            )
    _check_parts(backbone)
    size, place = _size(backbone), folder.absolute()
    check_target(folder / INDEX)
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    if free < size and not (folder / INDEX).is_file():  # which would be written over
        raise OutputError(
            f"{folder} must have {size / 1e9:.1f} GB of free disk space for the pipeline, got "
            f"{free / 1e9:.1f} GB; free some, or leave out --save-as-full-pipeline."
        )
    # a description has as many vectors as it has tokens
    num_vectors = max(config.num_vectors, 2 if config.form.startswith("captions") else 1)
    _check_count(backbone, num_vectors)
    rng = torch.Generator().manual_seed(0)
    rows = {
        name: v.std() * torch.randn(num_vectors, v.dim, generator=rng)
        for name, v in backbone.vocabularies.items()
    }
    word = Concept(placeholder_token=config.placeholder_token, rows=rows)
    prompts = [_TRIED_IN.format(word.placeholder_token)]
    with torch.no_grad():
        with injected(backbone, [word], replace=replace):
            wanted = backbone.encode_prompt(prompts)
        with _enlarged(backbone, [word]):
            try:
                found = backbone.encode_prompt(prompts)
            except (UserError, ValueError, RuntimeError, TypeError) as error:
                raise _cannot(backbone, reason_of(error)) from error
    if not _alike(wanted, found):
        token = config.placeholder_token
        small = "" if token.isalnum() and token.islower() else "; a token in lower case may work"
        raise _cannot(backbone, f"it reads {token!r} differently than training does{small}")


def save_full_pipeline(backbone: Backbone, concepts: Sequence[Concept], folder: Path) -> Path:
    """Write a model's pipeline with words in its tokenizers and embedding tables.

    A word of several vectors has the tokens ``word``, ``word_1``, ..., to which diffusers expands
    ``word`` in a prompt. Rows have the tables' type. The backbone itself is not changed.

    Args:
        backbone: The model.
        concepts: Words that consist only of embedding rows.
        folder: The folder; other files in it stay.

    Returns:
        The folder, for ``DiffusionPipeline.from_pretrained``.

    Raises:
        ModelError: a word is more than rows, or the model cannot hold it.
        OutputError: the folder cannot be written.
    """
    for concept in concepts:
        if concept.kind in (*VARYING, OUTPUT_VECTORS) or concept.deltas:
            raise ModelError(
                f"Cannot save {concept.placeholder_token!r} in a pipeline because it is of the "
                f"kind {concept.kind!r}{' with weight deltas' * bool(concept.deltas)} and a "
                "pipeline can hold only a word of plain embeddings; leave out "
                "--save-as-full-pipeline."
            )
        _check_count(backbone, concept.num_vectors)
    _check_parts(backbone)
    _size(backbone)
    pipeline = backbone.pipeline
    with hold(folder, wait_s=_WAIT_S), _enlarged(backbone, concepts), quiet():
        try:
            (folder / INDEX).unlink(missing_ok=True)  # half a pipeline is none
            with _own_solver(pipeline):
                pipeline.save_pretrained(folder)
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"Cannot write the pipeline to {folder}: {why(error)}; make room, then run the "
                "same command again."
            ) from error
    return folder


def _cannot(backbone: Backbone, reason: str) -> ModelError:
    return ModelError(
        f"Cannot save the pipeline of {backbone.name} with the word because {reason}; leave out "
        "--save-as-full-pipeline, and load the word's file in the other tool."
    )


def _check_count(backbone: Backbone, num_vectors: int) -> None:
    """Refuse a word of several vectors where the pipeline does not write out its tokens."""
    if num_vectors > 1 and not hasattr(backbone.pipeline, "maybe_convert_prompt"):
        raise _cannot(
            backbone,
            f"it would read only one of the word's {num_vectors} vectors (pass --num-vectors 1)",
        )


@contextmanager
def _own_solver(pipeline: Any) -> Iterator[None]:
    """While it lasts, a pipeline has the solver that it was loaded with."""
    ours = pipeline.scheduler
    pipeline.scheduler = getattr(pipeline, "own_scheduler", ours)
    try:
        yield
    finally:
        pipeline.scheduler = ours


def _check_parts(backbone: Backbone) -> None:
    """Refuse a pipeline with a part that its own libraries save and do not load.

    Raises:
        ModelError: it has one.
    """
    libraries = {"diffusers": diffusers, "transformers": transformers}
    with _own_solver(backbone.pipeline):
        index = dict(backbone.pipeline.config)
    for name, entry in index.items():
        library, kind = entry if isinstance(entry, list | tuple) and len(entry) == 2 else ("", "")
        if library in libraries and not hasattr(libraries[library], kind):
            raise _cannot(backbone, f"{library} can save its {name}, a {kind}, but not load it")


def _size(backbone: Backbone) -> int:
    """Bytes of a pipeline's weights.

    Raises:
        ModelError: they are packed, or wait elsewhere.
    """
    parts = [p for p in backbone.pipeline.components.values() if isinstance(p, nn.Module)]
    weights = [weight for part in parts for weight in part.parameters()]
    if any(w.is_meta or not w.is_floating_point() for w in weights):
        raise _cannot(
            backbone,
            "its weights are quantised or offloaded layer by layer (pass --weights full --offload "
            "vae)",
        )
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _alike(one: Conditioning, other: Conditioning) -> bool:
    """Whether two conditionings tell the denoiser the same."""
    return all(
        a.shape == b.shape
        and bool((a.float() - b.float()).abs().max() <= _NEAR * a.float().abs().max())
        for a, b in zip(_tensors(one), _tensors(other), strict=True)
    )


def _tensors(cond: Conditioning) -> list[Tensor]:
    states = cond.encoder_hidden_states
    several = [*states] if isinstance(states, tuple) else [states]
    return several if cond.pooled is None else [*several, cond.pooled]


# --- words inside the model, for as long as it is written


@contextmanager
def _enlarged(backbone: Backbone, concepts: Sequence[Concept]) -> Iterator[None]:
    """While it lasts, the pipeline's own tokenizers and tables hold the words."""
    for concept in concepts:
        weights.check_word(concept.placeholder_token, concept.provenance, backbone.name)
    dims = {name: vocabulary.dim for name, vocabulary in backbone.vocabularies.items()}
    words = [w.fitted(dims) for c in concepts for w in (c, *c.companions())]
    # as in training a row takes the place of the space before it; but where diffusers looks for the
    # first of several tokens in a prompt, it would not know one with a space
    several = any(word.num_vectors > 1 for word in words)
    takes_space = not (several and hasattr(backbone.pipeline, "maybe_convert_prompt"))
    with ExitStack() as undo:
        for vocabulary in backbone.vocabularies.values():
            try:
                _enlarge(vocabulary, words, undo, takes_space=takes_space)
            except (NotImplementedError, ValueError, TypeError, AttributeError) as error:
                raise _cannot(
                    backbone, f"its text encoder cannot take a new token ({why(error)})"
                ) from error
            if backbone.pool == "eos":
                _pool_at_the_end(vocabulary, undo)
        yield


def _enlarge(
    vocabulary: Vocabulary, words: Sequence[Concept], undo: ExitStack, *, takes_space: bool
) -> None:
    encoder: Any = vocabulary.text_encoder
    before, tokenizer = vocabulary.tokenizer, copy.deepcopy(vocabulary.tokenizer)
    names = [name for word in words for name in _names(word)]
    tokens = [
        AddedToken(name, normalized=False, lstrip=takes_space, single_word=is_single(name))
        for name in names
    ]
    if tokenizer.add_tokens(tokens) != len(tokens):
        raise ValueError(f"its tokenizer already knows one of {', '.join(names)}")
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(names))
    rows = torch.cat([word.rows[vocabulary.name] for word in words])
    count = len(vocabulary.weight)
    if int(ids.max()) >= count:
        _check_no_other_table(encoder, count)
        _resize(vocabulary, int(ids.max()) + 1)
        undo.callback(_resize, vocabulary, count)
    ids = ids.to(vocabulary.weight.device)
    with torch.no_grad():
        spare = vocabulary.weight[ids].clone()
        vocabulary.weight[ids] = rows.to(vocabulary.weight)
    undo.callback(_put_back, vocabulary, ids, spare)
    setattr(vocabulary.pipeline, vocabulary.tokenizer_attribute, tokenizer)
    undo.callback(setattr, vocabulary.pipeline, vocabulary.tokenizer_attribute, before)


def _resize(vocabulary: Vocabulary, count: int) -> None:
    """Give a table so many rows; what is drawn for new ones moves no generator."""
    encoder: Any = vocabulary.text_encoder
    device = vocabulary.weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), quiet():
        encoder.resize_token_embeddings(count, mean_resizing=False)


def _put_back(vocabulary: Vocabulary, ids: Tensor, rows: Tensor) -> None:
    with torch.no_grad():
        vocabulary.weight[ids] = rows


def _names(word: Concept) -> list[str]:
    """A token for each vector, as diffusers names them."""
    token = word.placeholder_token
    return [token, *(f"{token}_{i}" for i in range(1, word.num_vectors))]


def _check_no_other_table(encoder: Any, count: int) -> None:
    """Refuse an encoder with a layer as wide as its table that would not grow with it."""
    head = encoder.get_output_embeddings()
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == count and module is not head:
            raise ValueError(f"{name} has one output per token of the old vocabulary")


def _pool_at_the_end(vocabulary: Vocabulary, undo: ExitStack) -> None:
    """Let CLIP pool at the end-of-text token rather than at the highest id, a new word's."""
    encoder: Any = vocabulary.text_encoder
    end = vocabulary.tokenizer.eos_token_id
    owners = [m for m in encoder.modules() if m.__dict__.get("eos_token_id") not in (None, end)]
    for owner in (*owners, encoder.config) if owners else ():
        undo.callback(setattr, owner, "eos_token_id", owner.eos_token_id)
        owner.eos_token_id = end
