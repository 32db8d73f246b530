"""oneword: teach a frozen text-to-image model one new word from three to five pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

if TYPE_CHECKING:
    from oneword.concepts.card import push as push_concept, write_card
    from oneword.concepts.concept import Concept
    from oneword.concepts.formats import load as load_concept, save as save_concept
    from oneword.config.inversion import (
        ComposeConfig,
        DebiasConfig,
        InversionConfig,
        ModelConfig,
        SamplingConfig,
        TrainConfig,
    )
    from oneword.evaluation.choosing import choose
    from oneword.evaluation.fairness import compare as compare_fairness, debias
    from oneword.evaluation.features import load_judge
    from oneword.evaluation.gallery import save_gallery
    from oneword.generation.ddim_inversion import bipartite
    from oneword.generation.editing import edit, ranked, read_picture, save as save_edits
    from oneword.generation.generate import generate, save as save_drawing
    from oneword.images import read_folder
    from oneword.models.contract import load as load_backbone
    from oneword.runs.compose import compose, invert_together
    from oneword.training.loop import invert, invert_many
    from oneword.training.parts import Job
    from oneword.vocabulary.inject import injected

_PUBLIC = {
    "Concept": ("concepts.concept", "Concept"),
    "ComposeConfig": ("config.inversion", "ComposeConfig"),
    "DebiasConfig": ("config.inversion", "DebiasConfig"),
    "InversionConfig": ("config.inversion", "InversionConfig"),
    "Job": ("training.loop", "Job"),
    "ModelConfig": ("config.inversion", "ModelConfig"),
    "SamplingConfig": ("config.inversion", "SamplingConfig"),
    "TrainConfig": ("config.inversion", "TrainConfig"),
    "bipartite": ("generation.ddim_inversion", "bipartite"),
    "choose": ("evaluation.choosing", "choose"),
    "compare_fairness": ("evaluation.fairness", "compare"),
    "compose": ("runs.compose", "compose"),
    "debias": ("evaluation.fairness", "debias"),
    "edit": ("generation.editing", "edit"),
    "generate": ("generation.generate", "generate"),
    "injected": ("vocabulary.inject", "injected"),
    "invert": ("training.loop", "invert"),
    "invert_together": ("runs.compose", "invert_together"),
    "invert_many": ("training.loop", "invert_many"),
    "load_backbone": ("models.contract", "load"),
    "load_judge": ("evaluation.features", "load_judge"),
    "load_concept": ("concepts.formats", "load"),
    "push_concept": ("concepts.card", "push"),
    "ranked": ("generation.editing", "ranked"),
    "read_picture": ("generation.editing", "read_picture"),
    "read_folder": ("images", "read_folder"),
    "save_concept": ("concepts.formats", "save"),
    "write_card": ("concepts.card", "write_card"),
    "save_gallery": ("evaluation.gallery", "save_gallery"),
    "save_edits": ("generation.editing", "save"),
    "save_drawing": ("generation.generate", "save"),
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
