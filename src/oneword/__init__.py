"""oneword: teach a frozen text-to-image model one new word from three to five pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

if TYPE_CHECKING:
    from oneword.backbones.base import load as load_backbone
    from oneword.bipartite import bipartite
    from oneword.composition import compose, invert_together
    from oneword.concept import Concept
    from oneword.config import (
        ComposeConfig,
        DebiasConfig,
        InversionConfig,
        ModelConfig,
        SamplingConfig,
        TrainConfig,
    )
    from oneword.editing import edit, ranked, read_picture, save as save_edits
    from oneword.evaluation.choosing import choose
    from oneword.evaluation.fairness import compare as compare_fairness, debias
    from oneword.evaluation.features import load_judge
    from oneword.evaluation.gallery import save_gallery
    from oneword.formats import load as load_concept, save as save_concept
    from oneword.generation import generate, save as save_drawing
    from oneword.images import read_folder
    from oneword.inversion import Job, invert, invert_many
    from oneword.sharing import push as push_concept, write_card
    from oneword.vocabulary import injected

_PUBLIC = {
    "Concept": ("concept", "Concept"),
    "ComposeConfig": ("config", "ComposeConfig"),
    "DebiasConfig": ("config", "DebiasConfig"),
    "InversionConfig": ("config", "InversionConfig"),
    "Job": ("inversion", "Job"),
    "ModelConfig": ("config", "ModelConfig"),
    "SamplingConfig": ("config", "SamplingConfig"),
    "TrainConfig": ("config", "TrainConfig"),
    "bipartite": ("bipartite", "bipartite"),
    "choose": ("evaluation.choosing", "choose"),
    "compare_fairness": ("evaluation.fairness", "compare"),
    "compose": ("composition", "compose"),
    "debias": ("evaluation.fairness", "debias"),
    "edit": ("editing", "edit"),
    "generate": ("generation", "generate"),
    "injected": ("vocabulary", "injected"),
    "invert": ("inversion", "invert"),
    "invert_together": ("composition", "invert_together"),
    "invert_many": ("inversion", "invert_many"),
    "load_backbone": ("backbones.base", "load"),
    "load_judge": ("evaluation.features", "load_judge"),
    "load_concept": ("formats", "load"),
    "push_concept": ("sharing", "push"),
    "ranked": ("editing", "ranked"),
    "read_picture": ("editing", "read_picture"),
    "read_folder": ("images", "read_folder"),
    "save_concept": ("formats", "save"),
    "write_card": ("sharing", "write_card"),
    "save_gallery": ("evaluation.gallery", "save_gallery"),
    "save_edits": ("editing", "save"),
    "save_drawing": ("generation", "save"),
}
__all__ = [
    "ComposeConfig",
    "Concept",
    "DebiasConfig",
    "InversionConfig",
    "Job",
    "ModelConfig",
    "SamplingConfig",
    "TrainConfig",
    "bipartite",
    "choose",
    "compare_fairness",
    "compose",
    "debias",
    "edit",
    "generate",
    "injected",
    "invert",
    "invert_many",
    "invert_together",
    "load_backbone",
    "load_concept",
    "load_judge",
    "push_concept",
    "ranked",
    "read_folder",
    "read_picture",
    "save_concept",
    "save_drawing",
    "save_edits",
    "save_gallery",
    "write_card",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'oneword' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f"oneword.{module}"), attribute)
