"""Words, run folders and studies say which world of the embedded model they are of."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image

from oneword.concepts import formats, mixing
from oneword.concepts.concept import Concept, ConceptError
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.scoring import StudyConfig
from oneword.errors import ConfigError
from oneword.microworld import weights
from oneword.models.loading import load_backbone
from oneword.runs import train as runs
from oneword.study import grid, work
from oneword.study.plan import Study
from oneword.training.parts import rows_of_file
from oneword.vocabulary.inject import injected


NANO = "microworld-nano"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(2):
        Image.new("RGB", (40, 40), (90 * i, 120, 40)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def backbones(wide_model):
    return {
        w: load_backbone(ModelConfig(model=m, device="cpu"))
        for w, m in ((1, NANO), (2, wide_model))
    }


def training(pictures, folder, model, steps=1):
    return TrainConfig(
        train_data_dir=pictures, output_dir=folder, validation_steps=0,
        model=ModelConfig(model=model, device="cpu"),
        inversion=InversionConfig(
            placeholder_token="<x>", initializer_token="cat", max_train_steps=steps,
            train_batch_size=1, num_evaluation_samples=1,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def learned(backbones, pictures, wide_model, tmp_path_factory):
    """A run folder of each world."""
    folders = {}
    for world, model in ((1, NANO), (2, wide_model)):
        folders[world] = tmp_path_factory.mktemp("runs") / str(world)
        runs.train(training(pictures, folders[world], model), backbone=backbones[world])
    return folders


def older(concept):
    """The same word as it was written before there were two worlds."""
    told = {name: value for name, value in concept.provenance.items() if name != "world"}
    return dataclasses.replace(concept, provenance=told)


@pytest.mark.parametrize("world", [1, 2])
def test_a_word_says_its_world_and_is_refused_by_another(learned, backbones, world):
    word, other = formats.load_concept(learned[world]), 3 - world
    assert word.provenance["world"] == world
    with injected(backbones[world], [word]):
        pass
    says = rf"version {other}, got one that was learned in version {world}; learn it again"
    with pytest.raises(ConceptError, match=says), injected(backbones[other], [word]):
        pass


def test_an_older_word_is_of_the_first_world(learned, backbones):
    word = older(formats.load_concept(learned[1]))
    with injected(backbones[1], [word]):
        pass
    with pytest.raises(ConceptError, match="learned in version 1"), injected(backbones[2], [word]):
        pass
    unknown = dataclasses.replace(word, provenance={})
    with injected(backbones[2], [unknown]):  # nobody knows, as of other tools' files
        pass


def test_a_word_is_no_start_for_one_of_another_world(learned, backbones):
    with pytest.raises(ConceptError, match="learned in version 1"):
        rows_of_file(backbones[2], learned[1] / formats.LEARNED, 1)


def test_words_of_two_worlds_are_not_mixed(learned):
    words = [formats.load_concept(learned[world]) for world in (1, 2)]
    with pytest.raises(ConceptError, match="got versions 1 and 2; learn one"):
        mixing.average(words, "<y>")
    assert mixing.average([words[1], words[1]], "<y>").provenance["world"] == 2


def test_a_word_of_another_model_has_no_world(tiny_sd, backbones):
    assert weights.told(tiny_sd.name) == {}
    word = Concept(placeholder_token="<x>", rows={"clip": torch.zeros(1, 48)},
                   provenance={"family": "stable_diffusion", "base_model": "x"})  # fmt: skip
    with injected(backbones[2], [word]):
        pass


def test_a_run_folder_goes_on_in_its_own_world_alone(learned, backbones, pictures, wide_model):
    record = json.loads((learned[1] / "config.json").read_text())
    assert record["world"] == 1
    assert json.loads((learned[2] / "config.json").read_text())["world"] == 2
    with pytest.raises(ConfigError, match=r"world of version 1, got a model of version 2; pass"):
        runs.train(training(pictures, learned[1], wide_model), backbone=backbones[2])
    before = formats.load_concept(learned[1]).sha256()
    record.pop("world")  # an older folder
    (learned[1] / "config.json").write_text(json.dumps(record))
    outcome = runs.train(training(pictures, learned[1], NANO), backbone=backbones[1])
    assert outcome.result.status == "finished"
    assert formats.load_concept(learned[1]).sha256() == before
    with pytest.raises(ConfigError, match=r"world of version 1, got a model of version 2; pass"):
        runs.train(training(pictures, learned[1], wide_model), backbone=backbones[2])


def study(pictures, out, model):
    return Study(StudyConfig(
        output_dir=out, concepts=(str(pictures),), seeds=(0,), setups=("prompt-only",),
        model=ModelConfig(model=model, device="cpu"), num_images_per_prompt=1, dino="none",
    ))  # fmt: skip


def test_a_study_and_its_rows_say_their_world(pictures, wide_model, tmp_path):
    first, second = (study(pictures, tmp_path / "a", model) for model in (NANO, wide_model))
    grid.claim(first).release()
    assert json.loads((tmp_path / "a" / "study.json").read_text())["world"] == 1
    (tmp_path / "a" / "jobs").mkdir()
    (spec,) = first.specs
    row = {"concept": spec.concept, "setup": spec.setup, "seed": spec.seed, "set_size": None,
           "kind": "photo", "draw_time_s": 1.0}  # fmt: skip
    work.write_rows(first.folder, spec, [row])
    with pytest.raises(ConfigError, match=r"its protocol differs: .*world was 1 and is 2"):
        grid.claim(second)
    rows = tmp_path / "results.jsonl"
    rows.write_text(json.dumps(row | {"world": 2}) + "\n")
    with pytest.raises(ConfigError, match=r"of version 1, got .* of version 2; run that study"):
        grid.take_in(study(pictures, tmp_path / "b", NANO), rows)
    rows.write_text(json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=r"of version 2, got .* of version 1; run that study"):
        grid.take_in(study(pictures, tmp_path / "c", wide_model), rows)
    assert grid.take_in(study(pictures, tmp_path / "b", NANO), rows) == 1


def test_an_older_study_is_of_the_first_world(pictures, tmp_path):
    grid.claim(study(pictures, tmp_path, NANO)).release()
    record = tmp_path / "study.json"
    told = json.loads(record.read_text())
    del told["world"]
    record.write_text(json.dumps(told))
    grid.claim(study(pictures, tmp_path, NANO)).release()
    assert json.loads(record.read_text())["world"] == 1
