"""A small folder of pictures, and runs on it that take seconds."""

from __future__ import annotations

import threading

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

import hub_server
import tiny
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of the tiny pipelines of all families, each made when it is first asked for."""
    place = tmp_path_factory.mktemp("families")

    class Folders(dict):
        def __missing__(self, name):
            self[name] = tiny.save(tiny.make(name), place / name)
            return self[name]

    return Folders()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def make(photos, tiny_folder, tmp_path):
    def config(output="run", inversion=None, **fields):
        settings = {
            "initializer_token": "cat",
            "max_train_steps": 12,
            "train_batch_size": 2,
            "evaluation_steps": 3,
            "num_evaluation_samples": 4,
        } | (inversion or {})
        return TrainConfig(**{
            "train_data_dir": photos,
            "output_dir": tmp_path / output,
            "model": ModelConfig(model=str(tiny_folder), device="cpu"),
            "inversion": InversionConfig(**settings),
            "validation_steps": 0,
            "checkpointing_steps": 4,
        } | fields)  # fmt: skip

    return config


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A stand-in for the Hub, which every call goes to."""
    hub = hub_server.Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", "")
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


@pytest.fixture
def token(monkeypatch):
    """One that may write, as after ``hf auth login``."""
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    assert huggingface_hub.get_token() == hub_server.TOKEN
    return hub_server.TOKEN
