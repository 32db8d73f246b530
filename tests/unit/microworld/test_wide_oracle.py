"""The second world's oracle: prototypes, truths, calibration, and a training of a few steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file


pytest.importorskip("skia")

from oneword.cli.main import main
from oneword.microworld import weights
from oneword.microworld.making import oracle, oracle_pictures, train as training, wide_oracle
from oneword.microworld.making.oracle import NONE
from oneword.microworld.making.recipe import Recipe, Stage, recipe_for
from oneword.microworld.making.wide_oracle import PARTS, WideOracle, prototypes, truth
from oneword.microworld.world import artwork, concepts, inventory, unseen, wide_scenes
from oneword.microworld.world.wide_scenes import Figure, WideScene


SIZES = weights.SIZES
RECIPE = Recipe(
    model="microworld-nano",
    world=2,
    oracle=Stage(
        num_samples=72, batch_size=3, learning_rate=1e-3, matrix_learning_rate=1e-3, warmup_steps=2
    ),
    num_calibration=0,
    num_check_pictures=12,
)


def reader(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251
        return WideOracle(SIZES[RECIPE.model].oracle_width, SIZES[RECIPE.model].size_px).eval()


def test_all_nouns_and_held_out_things_have_one_prototype_each():
    nouns = [noun for noun, _ in prototypes()]
    assert prototypes()[0] == (NONE, NONE)
    assert {*inventory.NOUNS, *inventory.PROFESSIONS} < set(nouns)
    assert {thing.noun for thing in artwork.things().values()} < set(nouns)
    assert ("mug", NONE) in prototypes()
    assert ("mug", "gold-mug") in prototypes()
    # one for both worlds' rockets, and for the lantern that the artists call otherwise
    assert [pair for pair in prototypes() if pair[0] == "rocket"] == [("rocket", "rocket")]
    assert ("red paper lantern", "lantern") in prototypes()
    assert ("igloo", "igloo") in prototypes()
    assert len(set(prototypes())) == len(prototypes()) == 831


def test_what_is_true_of_a_picture_of_either_world():
    first = Figure(slug="rocket", look="line icon", colour="red")
    second = Figure(slug="elephant", look="line icon")
    scene = WideScene(things=(first, second), relation="on", place="moon", style="chalk")
    assert truth(scene) == {
        "noun": "rocket", "second_noun": "elephant", "concept": "rocket", "look": "line icon",
        "colour": "red", "scene": "moon", "style": "chalk", "relation": "on", "count": "one",
    }  # fmt: skip
    alone = truth(WideScene(things=(second,) * 2, relation="count"))
    assert (alone["second_noun"], alone["count"], alone["concept"]) == (NONE, "two", NONE)
    assert "colour" not in alone
    mug = concepts.concept_scenes(concepts.get("gold-mug"), 1)[0]
    found = truth(mug, "gold-mug")
    assert (found["noun"], found["concept"], found["look"]) == ("mug", "gold-mug", PARTS)
    igloo = concepts.concept_scenes(concepts.get("igloo"), 1)[0]
    assert (truth(igloo, "igloo")["noun"], truth(igloo, "igloo")["concept"]) == ("igloo", "igloo")


def test_every_truth_is_a_value_that_the_oracle_knows():
    rng = np.random.default_rng(0)
    drawn = [oracle_pictures.sample(rng) for _ in range(3000)]
    told = [truth(scene, concept) for scene, concept in drawn]
    for found in told:
        assert all(
            found[name] in wide_oracle.HEADS[name] for name in wide_oracle.HEADS if name in found
        )
        assert prototypes()[wide_oracle.prototype_of(found["noun"], found["concept"])] == (
            found["noun"], found["concept"],
        )  # fmt: skip
    assert {found["style"] for found in told} == {*inventory.STYLES, *inventory.HIDDEN_STYLES}
    assert {found["look"] for found in told} == set(wide_oracle.HEADS["look"])
    held = sum(found["noun"] in _nouns(unseen.held_out()) for found in told)
    known = sum(found["noun"] in _nouns(unseen.known()) for found in told if found["look"] != PARTS)
    # a held-out thing is as frequent as a known one, so that none is read for being frequent
    assert 0.7 < held / len(unseen.held_out()) / (known / len(unseen.known())) < 1.7


def _nouns(slugs):
    return {artwork.things()[slug].noun for slug in slugs}


def test_a_calibrated_thing_is_read_by_its_nearest_prototype():
    oracle_of_all = reader()
    names = [("rocket", "rocket"), ("mug", "gold-mug"), ("elephant", NONE)]
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    told = [{"noun": noun, "concept": own, "second_noun": NONE} for noun, own in names]
    before = oracle_of_all.prototypes.detach().clone()
    wide_oracle.calibrate(oracle_of_all, [(pixels[:2], told[:2]), (pixels[2:], told[2:])])
    assert [(r["noun"], r["concept"]) for r in oracle_of_all.read(pixels)] == names
    moved = (oracle_of_all.prototypes != before).any(dim=1).nonzero()[:, 0].tolist()
    assert moved == sorted({0, *(prototypes().index(pair) for pair in names)})
    places = oracle_of_all.embed(pixels)[1]["noun"]
    at = prototypes().index(names[0])
    torch.testing.assert_close(oracle_of_all.prototypes[at], places[0])


def test_it_starts_from_what_the_first_worlds_oracle_knows():
    landed = weights.load_oracle(RECIPE.model)
    wide = reader()
    wide.start_from(landed)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    cells = landed.features(pixels)
    torch.testing.assert_close(wide.features(pixels), cells)
    for head in ("scene", "style", "colour"):
        torch.testing.assert_close(wide.heads[head].weight, landed.heads[head].weight)
    at = list(wide_oracle.HEADS).index("scene"), list(oracle.HEADS).index("scene")
    assert torch.equal(wide.questions[at[0]], landed.questions[at[1]])
    again = reader(1)
    again.start_from(wide)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), wide.parameters(), strict=True)
    )


def test_things_and_their_held_out_names_are_counted_together():
    read = [{"noun": "mug", "concept": NONE, "scene": "moon"}, {"noun": "cat", "concept": NONE}]
    told = [
        {"noun": "mug", "concept": "gold-mug", "scene": "moon"},
        {"noun": "cat", "concept": NONE},
    ]
    assert wide_oracle.agreement(read, told) == {
        "thing": 0.5, "noun": 1.0, "concept": 0.5, "scene": 1.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide-oracle")
    assert training.train(folder, recipe=RECIPE, stages=("vae", "oracle"))
    return folder


def test_a_stopped_training_goes_on_to_the_same_bits(work, tmp_path):
    assert not training.train(tmp_path, recipe=RECIPE, stages=("vae", "oracle"), minutes=0)
    assert int(load_file(tmp_path / "oracle.state.safetensors")["adam.0.step"]) == 20
    assert training.train(tmp_path, recipe=RECIPE, stages=("oracle",))
    one, two = (load_file(f / "oracle" / "model.safetensors") for f in (work, tmp_path))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    landed = weights.load_oracle(RECIPE.model).state_dict()
    assert not torch.equal(one["places"], landed["places"])


def test_its_accuracy_is_of_every_attribute_and_through_the_vae(work):
    found = oracle_pictures.oracle_accuracy(work, RECIPE)
    assert {"thing", "scene", "colour", "style", "relation", "count", "look"} <= found.keys()
    assert all(0 <= share <= 1 for share in found.values())


def test_calibration_draws_everything_that_has_a_prototype(monkeypatch):
    few = {slug: artwork.things()[slug] for slug in ("rocket", "elephant", "lion")}
    monkeypatch.setattr(oracle_pictures.artwork, "things", lambda: few)
    drawn = list(oracle_pictures.each(np.random.default_rng(0), 4))
    pairs = [(s, c) for s, c in drawn if isinstance(s, WideScene)]
    assert [len(s.things) for s, _ in pairs].count(2) in (2, 3)
    own = {c for _, c in drawn} - {NONE}
    assert own == {c for _, c in prototypes()} - {NONE}
    nouns = {s.things[0].noun for s, c in drawn if c == NONE and not isinstance(s, WideScene)}
    assert nouns == {*inventory.NOUNS, *inventory.PROFESSIONS}


def test_a_later_worlds_recipe_has_the_oracle_alone(tmp_path):
    with pytest.raises(
        weights.WeightsError, match=r"of world 2 must be some of vae, .*got denoiser"
    ):
        training.train(tmp_path, recipe=RECIPE, stages=("vae", "denoiser"))
    with pytest.raises(weights.WeightsError, match="leave out --from-scratch"):
        training.train(tmp_path, recipe=RECIPE, stages=("oracle",), from_scratch=True)
    assert training.stages_of(RECIPE) == ("vae", "judge", "oracle", "guide")
    assert not list(tmp_path.iterdir())


def test_the_recipe_of_the_second_world_sees_more():
    first, second = recipe_for("microworld"), recipe_for("microworld", world=2)
    assert second.oracle.num_samples > first.oracle.num_samples
    assert second.guide.num_samples > first.guide.num_samples
    assert replace(second, world=1, oracle=first.oracle, guide=first.guide) == first
    assert second.world == wide_scenes.VERSION


def test_the_weights_stay_small():
    with torch.device("meta"):
        full = WideOracle(SIZES["microworld"].oracle_width, SIZES["microworld"].size_px)
    assert 2 * sum(t.numel() for t in full.state_dict().values()) < 3.6e6


def test_the_command_trains_it(tmp_path, capsys):
    arguments = ["microworld", "train", "--model", "microworld-nano", "--world", "2", "--stages",
                 "vae", "oracle", "--minutes", "0", "--output-dir", str(tmp_path)]  # fmt: skip
    assert main(arguments) == 0
    assert (tmp_path / "oracle.state.safetensors").exists()
    assert main([*arguments[:8], "denoiser", "--output-dir", str(tmp_path)]) != 0
    assert "got denoiser" in " ".join(capsys.readouterr().err.split())
