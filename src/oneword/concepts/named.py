"""Words by their files, as a person names them: PATH, or PATH=TOKEN, which renames a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.mixing import distinct
from oneword.config.checks import check_placeholder
from oneword.errors import ConfigError


def read_words(paths: Sequence[Path]) -> dict[Path, list[Concept]]:
    """The concepts of all files, by file.

    Raises:
        ConfigError: two have the same placeholder.
    """
    by_file = {path: read_concepts(path) for path in paths}
    found = [(path, concept) for path in paths for concept in by_file[path]]
    _, renamed = distinct([concept for _, concept in found])
    first: dict[str, Path] = {}
    for index, (path, concept) in enumerate(found):
        token = concept.placeholder_token
        if token in first:
            raise ConfigError(
                f"The words of the files must differ, got {token!r} in {first[token]} and in "
                f"{path}; rename one: --concepts {first[token]} "
                f"{without_token(path)}={renamed[index]!r}."
            )
        first[token] = path
    return by_file


def flat(words: Mapping[Path, Sequence[Concept]]) -> list[Concept]:
    """The concepts of all files, one after the other."""
    return [concept for own in words.values() for concept in own]


def without_token(path: Path) -> Path:
    """The file of ``PATH=TOKEN``."""
    renames = not path.exists() and "=" in str(path)
    return Path(str(path).rpartition("=")[0]) if renames else path


def read_concepts(path: Path) -> list[Concept]:
    """The concepts of a file or run folder; ``PATH=TOKEN`` gives its only word another name."""
    renames = not path.exists() and "=" in str(path)
    return [read_concept(path)] if renames else formats.load_all(path)


def read_concept(path: Path) -> Concept:
    """The only concept of a file or run folder, as ``read_concepts``."""
    if path.exists() or "=" not in str(path):
        return formats.load_concept(path)
    name, _, token = str(path).rpartition("=")
    check_placeholder(token, f"The token of PATH=TOKEN, {str(path)!r},")
    return formats.load_concept(Path(name), token)
