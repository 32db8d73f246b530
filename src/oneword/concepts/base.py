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
        say = f"; its rows are those of {fits}" if fits != "unknown" else ""
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(
                f"A word's file must say on which model it was learned, got {path}, which names "
                f"none{say}; type the model with --model."
            )
        if not is_embedded(name) and not is_there(Path(name)) and not hub.is_repository(name):
            raise ConfigError(
                f"A word's file must name its model so that it can be found, got {path} with "
                f"{name[:200]!r}, which is no file or folder here and no hub id{say}; type where "
                "the model is with --model."
            )
        found.setdefault(name, path)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise ConfigError(
            f"Words must be learned on one model, got {first}, learned on {one}, and {second}, "
            f"learned on {other}; draw with one of them, or type the model with --model."
        )
    return next(iter(found))
