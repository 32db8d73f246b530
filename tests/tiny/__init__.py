"""Tiny pipelines of the real classes with random weights, built in under a second.

A file for each family, which registers its pipelines by the family's name; ``tokenizers``,
``encoders`` and ``parts`` hold what several share.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from oneword.catalog import FAMILIES
from tiny import encoders, parts, tokenizers
from tiny.registry import PIPELINES, Tiny


__all__ = ["PIPELINES", "Tiny", "encoders", "make", "names", "parts", "save", "tokenizers"]

for _module in pkgutil.iter_modules(__path__, "tiny."):
    importlib.import_module(_module.name)


def names() -> list[str]:
    """Names of the tiny pipelines, in the catalog's order of their families."""
    return sorted(PIPELINES, key=lambda name: [*FAMILIES].index(PIPELINES[name].family))


def make(name: str, **options: Any) -> Any:
    """A tiny pipeline by its name, with options of its own."""
    return PIPELINES[name].make(**options)


def save(pipeline: DiffusionPipeline, folder: Path) -> Path:
    """Save a pipeline and return its folder."""
    pipeline.save_pretrained(folder)
    return folder
