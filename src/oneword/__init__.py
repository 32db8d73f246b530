"""oneword: teach a frozen text-to-image model one new word from three to five pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

if TYPE_CHECKING:
    from oneword.backbones.base import load as load_backbone
    from oneword.bipartite import bipartite
    from oneword.concept import Concept
    from oneword.config import InversionConfig, ModelConfig, SamplingConfig, TrainConfig
    from oneword.editing import edit, read_picture, save as save_edits
    from oneword.formats import load as load_concept, save as save_concept
    from oneword.generation import generate, save as save_drawing
    from oneword.images import read_folder
    from oneword.inversion import Job, invert, invert_many
    from oneword.vocabulary import injected

_PUBLIC = {
    "Concept": ("concept", "Concept"),
    "InversionConfig": ("config", "InversionConfig"),
    "Job": ("inversion", "Job"),
    "ModelConfig": ("config", "ModelConfig"),
    "SamplingConfig": ("config", "SamplingConfig"),
    "TrainConfig": ("config", "TrainConfig"),
    "bipartite": ("bipartite", "bipartite"),
    "edit": ("editing", "edit"),
    "generate": ("generation", "generate"),
    "injected": ("vocabulary", "injected"),
    "invert": ("inversion", "invert"),
    "invert_many": ("inversion", "invert_many"),
    "load_backbone": ("backbones.base", "load"),
    "load_concept": ("formats", "load"),
    "read_folder": ("images", "read_folder"),
    "read_picture": ("editing", "read_picture"),
    "save_concept": ("formats", "save"),
    "save_drawing": ("generation", "save"),
    "save_edits": ("editing", "save"),
}
__all__ = [
    "Concept",
    "InversionConfig",
    "Job",
    "ModelConfig",
    "SamplingConfig",
    "TrainConfig",
    "bipartite",
    "edit",
    "generate",
    "injected",
    "invert",
    "invert_many",
    "load_backbone",
    "load_concept",
    "read_folder",
    "read_picture",
    "save_concept",
    "save_drawing",
    "save_edits",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'oneword' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f"oneword.{module}"), attribute)
