"""The base model of learned words, as their files name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from oneword._files import is_there
from oneword.concepts import hub
from oneword.concepts.concept import Concept, check_drawable
from oneword.concepts.formats.names import family_of
from oneword.config.model import is_embedded
from oneword.errors import ConfigError


def may_be_model(name: str) -> bool:
    """Whether a name is an embedded model, an existing folder or file, or like a hub id."""
    return is_embedded(name) or is_there(Path(name)) or hub.is_repository(name)


def base_of(words: Mapping[Path, Sequence[Concept]]) -> str:
    """The model that all words were learned on.

    Args:
        words: The concepts of each file, one at least.

    Returns:
        An embedded model, a hub id, or the path of an existing folder or file.

    Raises:
        ConfigError: a file names no model or one that cannot be found, or two files name different
            models.
        ConceptError: a word's rows are for a CLIP that draws nothing.
    """
    found: dict[str, Path] = {}
    for path, concept in ((path, own) for path, owns in words.items() for own in owns):
        check_drawable(concept.placeholder_token, concept.rows)
        name = concept.provenance.get("base_model")
        fits = family_of({n: rows.shape[1] for n, rows in concept.rows.items()})
        say = f"; its embeddings are for {fits}" if fits != "unknown" else ""
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(
                f"Cannot tell on which model the word in {path} was learned because its file "
                f"names none{say}; pass --model."
            )
        if not may_be_model(name):
            raise ConfigError(
                f"Cannot find the model {name[:200]!r} of the word in {path} because it is no "
                f"file, folder or hub id{say}; pass --model with its place."
            )
        found.setdefault(name, path)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise ConfigError(
            f"Cannot draw with {first}, learned on {one}, and {second}, learned on {other}, "
            "because words must be learned on one model; leave one of them out, or pass --model."
        )
    return next(iter(found))
