"""Backbones that many tests share."""

from __future__ import annotations

import pytest

import tiny
from oneword.backbones.base import Backbone, load
from oneword.config import ModelConfig


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder of a tiny epsilon pipeline."""
    return tiny.save(tiny.stable_diffusion(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_v_folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder of a tiny v-prediction pipeline."""
    pipeline = tiny.stable_diffusion("v_prediction", seed=1)
    return tiny.save(pipeline, tmp_path_factory.mktemp("models") / "tiny-v")


@pytest.fixture(scope="session")
def tiny_sd(tiny_folder) -> Backbone:
    return load(ModelConfig(model=str(tiny_folder), device="cpu"))


@pytest.fixture(scope="session")
def tiny_sd_v(tiny_v_folder) -> Backbone:
    return load(ModelConfig(model=str(tiny_v_folder), device="cpu"))
