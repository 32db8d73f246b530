"""Judge and guide of the second world: what they learn from, stopped and resumed, landed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file


pytest.importorskip("skia")

from oneword.cli import microworld_train
from oneword.cli.main import main
from oneword.microworld import weights
from oneword.microworld.making import pairs, spelling, train as training, wide_oracle
from oneword.microworld.making.recipe import Recipe, Stage, recipe_for
from oneword.microworld.world import artwork, unseen, wide_scenes


BRIEF = Stage(
    num_samples=84, batch_size=4, learning_rate=1e-3, matrix_learning_rate=1e-3, warmup_steps=2
)
ONE_STEP = replace(BRIEF, num_samples=4)
RECIPE = Recipe(model="microworld-nano", world=2, judge=BRIEF, guide=BRIEF, num_check_pictures=12)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    assert training.train(folder, recipe=RECIPE, stages=("judge",))
    return folder


def test_nothing_held_out_is_learned_from():
    lessons = pairs._lessons(RECIPE)
    held = {artwork.things()[slug].noun for slug in unseen.counted()}
    assert not held & set(lessons.heads["noun"])
    rng = np.random.default_rng(0)
    for seed in range(300):
        scene = lessons.sample(seed)
        told, text = lessons.truth(scene), lessons.caption(scene, rng)
        assert all(told[name] in lessons.heads[name] for name in lessons.heads if name in told)
        assert not set(text.split()) & unseen.forbidden_words()


def test_hard_groups_share_all_but_the_thing():
    lessons = pairs._lessons(RECIPE)
    seeds = pairs._alike(lessons, np.random.default_rng(0), 64)
    assert len(seeds) == 64
    scenes = [lessons.sample(seed) for seed in seeds]
    first = scenes[:8]
    assert len({lessons.setting(scene) for scene in first}) == 1
    assert len({lessons.truth(scene)["noun"] for scene in first}) > 5
    wide = [scene for scene in scenes if isinstance(scene, wide_scenes.WideScene)]
    looks = Counter((s.place, s.style, s.things[0].look, s.things[0].colour) for s in wide)
    assert looks.most_common(1)[0][1] == 8
    loose = [lessons.sample(seed) for seed in range(64)]
    assert len({*map(lessons.setting, loose)}) > 2 * len({*map(lessons.setting, scenes)})


def test_a_stopped_training_goes_on_to_the_same_bits(work, tmp_path):
    assert not training.train(tmp_path, recipe=RECIPE, stages=("judge",), minutes=0)
    assert int(load_file(tmp_path / "judge.state.safetensors")["adam.0.step"]) == 20
    assert training.train(tmp_path, recipe=RECIPE, stages=("judge",))
    one, two = (load_file(folder / "judge/model.safetensors") for folder in (work, tmp_path))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_it_reads_its_own_worlds_captions(work):
    pairs.check_pairs(work, RECIPE, ("judge",))
    with pytest.raises(weights.WeightsError, match="own world, 1, got one of world 2"):
        pairs.check_pairs(work, replace(RECIPE, world=1), ("judge",))
    landed = weights.WEIGHTS / RECIPE.model
    pairs.check_pairs(landed, replace(RECIPE, world=1))  # whatever captions there were then
    with pytest.raises(weights.WeightsError, match="own world, 2, got one of world 1"):
        pairs.check_pairs(landed, RECIPE)
    assert 0 <= pairs.pair_retrieval(work / "judge", RECIPE) <= 1
    width = load_file(work / "judge/model.safetensors")["text_projection.weight"].shape
    assert width == (20, 20)


def test_the_landed_pairs_of_another_world_are_not_taken(tmp_path):
    for stage in ("judge", "guide", "oracle"):
        assert not weights.take(stage, tmp_path, RECIPE.model, 2)
    assert weights.take("vae", tmp_path, RECIPE.model, 2)
    assert weights.take("guide", tmp_path, RECIPE.model, 1)


def test_a_guide_of_another_world_is_not_added(tmp_path):
    folder = tmp_path / "work"
    brief = replace(RECIPE, guide=ONE_STEP)
    assert training.train(folder, recipe=brief, stages=("guide",))
    first = str(weights.WEIGHTS / "microworld-nano")
    with pytest.raises(weights.WeightsError, match="got one of world 2 and a model of world 1"):
        training.land(folder, weights.folder_of(first), brief)


def test_judge_and_guide_differ_and_see_more_than_the_first_worlds():
    first, second = recipe_for("microworld"), recipe_for("microworld", world=2)
    assert second.pair_sizes == first.pair_sizes == first.sizes
    assert second.judge.num_samples > first.judge.num_samples
    assert second.guide.num_samples > first.guide.num_samples
    assert len(spelling.wide_tokenizer("microworld")) > 14_000


def test_the_command_trains_them(tmp_path, monkeypatch, capsys):
    brief = replace(RECIPE, guide=ONE_STEP)
    monkeypatch.setattr(microworld_train, "recipe_for", lambda model, seed, world: brief)
    command = ["microworld", "train", "--model", "microworld-nano", "--world", "2"]
    assert main([*command, "--output-dir", str(tmp_path), "--stages", "guide"]) == 0
    assert weights.holds_guide_alone(tmp_path)


def test_every_noun_of_the_artists_is_read_as_the_oracle_has_it():
    nouns = {noun for noun, _ in wide_oracle.prototypes()}
    assert set(pairs._wide_heads()["noun"]) < nouns
    assert wide_scenes.VERSION == 2
