"""Backbones that many tests share, and the order of tests; ``conftest.py`` hands it to pytest."""

from __future__ import annotations

import garbage  # (before what leaves much)


# isort: split

import typecheck  # noqa: F401  (before what it checks)


# isort: split

import briefly  # noqa: F401  (before torch)


# isort: split

import os
import shutil
from pathlib import Path


# no test finds out about the network by itself
os.environ.setdefault("HF_HUB_OFFLINE", "0")

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

import tiny
from oneword.config.encoder import LATENTS
from oneword.config.model import ModelConfig
from oneword.config.presets import SAMPLERS
from oneword.microworld import weights
from oneword.microworld.making import models, wide
from oneword.microworld.making.wide_oracle import WideOracle
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.training.encoder.files import FILE, About, Encoder
from oneword.training.encoder.network import SetEncoder, Shape
from oneword.training.encoder.towers import probe, tower_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, and what waits much, lest one process is left with it."""
    waiting = Path(__file__).parent / "web"
    items.sort(
        key=lambda item: (item.get_closest_marker("long") is None, waiting not in item.path.parents)
    )


def pytest_collection_finish() -> None:
    garbage.look()


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn in three steps where nothing says in how many."""
    monkeypatch.setitem(SAMPLERS, "model", {"*": {"num_inference_steps": 3}})


@pytest.fixture
def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is not asked, and so not for a minute in vain where there is no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder of a tiny epsilon pipeline."""
    return tiny.save(tiny.make("stable_diffusion"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_v_folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder of a tiny v-prediction pipeline."""
    pipeline = tiny.make("stable_diffusion_v")
    return tiny.save(pipeline, tmp_path_factory.mktemp("models") / "tiny-v")


@pytest.fixture(scope="session")
def tiny_sd(tiny_folder) -> Backbone:
    return load_backbone(ModelConfig(model=str(tiny_folder), device="cpu"))


@pytest.fixture(scope="session")
def tiny_sd_v(tiny_v_folder) -> Backbone:
    return load_backbone(ModelConfig(model=str(tiny_v_folder), device="cpu"))


@pytest.fixture(scope="session")
def tiny_encoder(tiny_sd, tmp_path_factory):
    """File of an encoder for the tiny epsilon pipeline, with random weights."""
    tower = tower_of(tiny_sd, LATENTS)
    features = tower(probe(tiny_sd)).shape[1]
    dims = {name: vocabulary.dim for name, vocabulary in tiny_sd.vocabularies.items()}
    network = SetEncoder(Shape(features=features, width=16, num_vectors=1, encoders=dims))
    network.fit(
        torch.randn(9, features, generator=torch.Generator().manual_seed(1)),
        {name: v.rows_of("cat dog") for name, v in tiny_sd.vocabularies.items()},
    )
    with torch.no_grad():
        for module in network.rows.values():
            module.weight.normal_(generator=torch.Generator().manual_seed(2))
    about = About(
        model=tiny_sd.name, family=tiny_sd.family, version="", guide=LATENTS,
        allow_same_clip=False, most_pictures=5, learns=("object",), trained={"things": 7},
    )  # fmt: skip
    file = tmp_path_factory.mktemp("encoder") / FILE
    file.write_bytes(Encoder.of(network, about, tiny_sd, tower).data())
    return file


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model of the second world: its words, an oracle of it, nothing learned."""
    folder = tmp_path_factory.mktemp("worlds") / "second"
    kept_out = shutil.ignore_patterns("encoders", "projector", "codebook.safetensors")
    shutil.copytree(weights.WEIGHTS / "microworld-nano", folder, ignore=kept_out)
    tokens = wide.tokenizer()
    tokens.save_pretrained(folder / "pipeline/tokenizer")
    sizes = weights.SIZES["microworld-nano"]
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        encoder = CLIPTextModel(models.text_config(tokens, sizes, sizes.text_layers))
        oracle = WideOracle(sizes.oracle_width, sizes.size_px)
    encoder.half().save_pretrained(folder / "pipeline/text_encoder")
    oracle.start_from(weights.load_oracle("microworld-nano"))
    save_file(oracle.half().state_dict(), folder / "oracle.safetensors")
    told = {n: v for n, v in weights.card_of(folder).items() if n not in ("sha256", "codebook")}
    weights.seal(folder, told | {"world": 2, "name": "second"})
    return str(folder)


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder of a tiny CLIP with random weights."""
    return tiny_clip(tmp_path_factory.mktemp("judge"), seed=0)


@pytest.fixture(scope="session")
def guide_folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder of another tiny CLIP with random weights."""
    return tiny_clip(tmp_path_factory.mktemp("guide"), seed=1)


def tiny_clip(folder, *, seed):
    """Save a tiny CLIP with the tiny tokenizer."""
    tokens = tiny.tokenizers.tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251
        config = CLIPConfig(
            text_config=size | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id},
            vision_config=size | {"image_size": 24, "patch_size": 8},
            projection_dim=12,
        )
        CLIPModel(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
