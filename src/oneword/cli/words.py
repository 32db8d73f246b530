"""The model that is named on the command line, or by the words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from oneword.cli import options
from oneword.concepts.base import base_of
from oneword.concepts.concept import Concept
from oneword.config.model import AUTO, EMBEDDED, ModelConfig


def on_base(
    model: ModelConfig, words: Mapping[Path, Sequence[Concept]], *, say: bool = True
) -> ModelConfig:
    """The model as it is asked for; where none is named, that of the words, which is then said.

    Raises:
        ConfigError: the words' files do not say which one that is.
    """
    if model.model != AUTO:
        return model
    if not any(words.values()):
        return dataclasses.replace(model, model=EMBEDDED[0])
    base = base_of(words)
    if say:
        options.say(f"Using the base model {base}, named in {', '.join(map(str, words))}.")
    return dataclasses.replace(model, model=base)
