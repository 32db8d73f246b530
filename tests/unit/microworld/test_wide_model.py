"""A model of the second world, in a folder of its own: loaded, measured, sampled, shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from oneword.cli.main import main
from oneword.config.model import ModelConfig, is_embedded
from oneword.evaluation import world
from oneword.microworld import weights
from oneword.microworld.making import models, train as training, wide
from oneword.microworld.making.oracle import Oracle
from oneword.microworld.making.recipe import Recipe, Stage
from oneword.microworld.making.wide_oracle import WideOracle
from oneword.microworld.world import artwork, sheets, unseen, wide_prompts, wide_scenes
from oneword.models.guide import Guide
from oneword.models.loading import load_backbone


def test_a_folder_is_a_model_like_those_that_ship(wide_model, tmp_path):
    assert is_embedded(wide_model)
    assert not is_embedded(str(tmp_path))
    backbone = load_backbone(ModelConfig(model=wide_model, device="cpu"))
    assert backbone.family == "microworld"
    assert backbone.vocabularies["clip"].is_word("teacup")
    assert weights.world(wide_model) == 2
    assert weights.world() == weights.world("microworld-nano") == 1


def test_the_oracle_is_that_of_the_models_world(wide_model):
    wide, first = weights.load_oracle(wide_model), weights.load_oracle("microworld-nano")
    assert isinstance(wide, WideOracle)
    assert isinstance(first, Oracle)
    pixels = torch.zeros(1, 3, 64, 64)
    assert first.read(pixels)[0].keys() < wide.read(pixels)[0].keys()


PROMPTS = wide_prompts.evaluation_prompts(500, 0)


def right(prompt, **other):
    parts = {"concept": "none", "second_noun": "none", "colour": "red", "look": "flat sticker"}
    read = parts | prompt.truth | other
    return {name: value for name, value in read.items() if name != "second_look"}


def test_prompts_are_counted_by_what_they_ask_for():
    found = world.wide_obeyed([right(p) for p in PROMPTS], PROMPTS)
    assert set(found) == {*world.WIDE_BARS, "count", "look"}
    assert all(all(hits) for hits in found.values())
    kinds = [p.kind for p in PROMPTS]
    assert len(found["noun on plain ground"]) == kinds.count("plain") == 150
    assert len(found["noun in places"]) == kinds.count("place") == 160
    assert len(found["both nouns"]) == len(found["relation"]) == 150
    assert len(found["scene"]) == len(found["style"]) == 500
    assert len(found["count"]) == kinds.count("count")
    wrong = world.wide_obeyed([right(p, noun="moai", count="x") for p in PROMPTS], PROMPTS)
    for name in ("noun on plain ground", "noun in places", "both nouns", "count"):
        assert not any(wrong[name]), name
    assert all(wrong["scene"])
    assert all(wrong["relation"])
    second = world.wide_obeyed([right(p, second_noun="moai") for p in PROMPTS], PROMPTS)
    assert not any(second["both nouns"])
    assert all(second["noun in places"])


def test_a_share_has_its_interval_and_its_bar():
    one = torch.zeros(1, 3, 8, 8)
    found = world.WorldScores(
        value={"relation": 0.75, "count": 1.0}, ceiling={"relation": 1.0, "count": 1.0},
        num={"relation": 40, "count": 4}, bars=world.WIDE_BARS, appearance={}, prompts=("a",),
        generated=one, drawn=one,
    ).plain()  # fmt: skip
    assert found["relation"]["bar"] == 0.75
    assert found["relation"]["interval"] == pytest.approx([0.598, 0.858], abs=1e-3)
    assert "bar" not in found["count"]


@pytest.fixture
def own(wide_model, tmp_path):
    return Path(shutil.copytree(wide_model, tmp_path / "own"))


def test_the_command_measures_it_and_writes_its_card(own, tmp_path, capsys):
    pytest.importorskip("skia")
    scores = tmp_path / "scores.json"
    arguments = ["--num-prompts", "20", "--num-people", "1", "--num-inference-steps", "1",
                 "--json", str(scores), "--output-dir", str(tmp_path / "sheets")]  # fmt: skip
    command = ["microworld", "evaluate", "--model", str(own), "--save-to-card", *arguments]
    assert main(command) == 0
    shown = capsys.readouterr().out
    for name in ("noun on plain ground", "noun in places", "both nouns", "doctor"):
        assert name in shown
    found = json.loads(scores.read_text())
    assert found["scene"]["num"] == 20
    assert found["noun in places"]["bar"] == 0.85
    assert weights.card_of(own)["scores"] == found | {"num_prompts": 20, "seed": 0}
    assert (tmp_path / "sheets" / "generated.png").exists()
    assert "moon" in (tmp_path / "sheets" / "prompts.txt").read_text()
    assert weights.checked(own)


def test_scores_after_fewer_samples_are_a_curve(own, tmp_path, capsys):
    pytest.importorskip("skia")
    few = ["--num-prompts", "8", "--num-people", "0", "--num-inference-steps", "1"]
    command = ["microworld", "evaluate", "--model", str(own), "--save-to-card", *few]
    bare = Path(shutil.copytree(own, tmp_path / "bare"))
    card = {n: v for n, v in weights.card_of(bare).items() if n not in ("sha256", "scores")}
    weights.seal(bare, card)
    assert main([*command, "--earlier", str(bare)]) != 0
    told = "".join(capsys.readouterr().err.split())
    assert f"Cannottakethescoresof{bare}becauseitscardhasnone" in told
    assert main([*command, "--earlier", "microworld-nano"]) != 0
    assert "same world, 2, got microworld-nano of world 1" in capsys.readouterr().err
    earlier = []
    for samples in (64, 32):
        folder = Path(shutil.copytree(own, tmp_path / str(samples)))
        card = weights.card_of(folder) | {"denoiser_samples": samples}
        score = {"value": 0.5, "interval": [0.25, 0.75], "ceiling": 1.0, "num": 8}
        weights.seal(folder, {n: v for n, v in card.items() if n != "sha256"})
        weights.add_scores({"scene": score, "appearance": {}}, str(folder))
        earlier.append(str(folder))
    assert main([*command, "--earlier", *earlier]) == 0
    shown = capsys.readouterr().out
    assert "50.0% (25.0% to" in " ".join(shown.split())
    assert shown.index(" 32 ") < shown.index(" 64 ")
    found = weights.card(str(own))
    assert [row["samples"] for row in found["curve"]] == [32, 64]
    assert found["curve"][0]["scores"]["scene"]["value"] == 0.5
    assert found["scores"]["scene"]["num"] == 8


def test_the_sheets_show_everything_that_training_knows(capsys):
    found = sheets.wide(seed=1)
    assert set(found) == {"things", "looks", "styles", "colours", "places", "relations"}
    prompts = [p for rows in found.values() for row in rows.values() for p in row]
    assert {len(row) for rows in found.values() for row in rows.values()} == {8}
    slugs = {thing.slug for p in prompts for thing in p.scene.things}
    assert slugs <= set(unseen.known())
    assert len(slugs) > 250
    assert all(p.truth["scene"] == place for place, row in found["places"].items() for p in row)
    assert all(p.truth["colour"] == c for c, row in found["colours"].items() for p in row)
    assert set(found["relations"]) == set(wide_scenes.RELATIONS) - {"alone"}
    held = sheets.wide_held_out()
    assert len(held) == 80
    assert any(label == "rocket (test)" for label in held)
    looks = [[scene.things[0].look for scene in row] for row in held.values()]
    assert all(row == [*looks[0][:4]] * 2 and len(set(row)) == 4 for row in looks)


def test_explore_draws_the_second_world(wide_model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("skia")
    whole = sheets.wide()
    few = {name: {next(iter(rows)): next(iter(rows.values()))[:2]} for name, rows in whole.items()}
    monkeypatch.setattr(sheets, "wide", lambda seed: few)
    held = dict(list(sheets.wide_held_out().items())[:2])
    monkeypatch.setattr(sheets, "wide_held_out", lambda seed: held)
    arguments = ["--model", wide_model, "--output-dir", str(tmp_path)]
    assert main(["microworld", "explore", *arguments]) == 0
    assert "7 sheets" in capsys.readouterr().out
    drawn, both = (Image.open(tmp_path / f"{n}.png").size for n in ("held-out", "places"))
    assert both[0] < drawn[0]  # two pictures in a row, eight of what is held out
    assert both[1] > 2 * 64  # drawn, and below it generated


def test_sample_says_what_it_reads(wide_model, tmp_path, capsys):
    arguments = ["a sticker of a teapot", "--num-images-per-prompt", "1", "--model", wide_model]
    assert main(["microworld", "sample", *arguments, "--output-dir", str(tmp_path)]) == 0
    assert "relation" in capsys.readouterr().out


def test_a_model_that_is_none_is_a_sentence(tmp_path, capsys):
    assert main(["microworld", "card", "--model", str(tmp_path)]) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "must be microworld or microworld-nano, or the folder of one with a card.json" in told


def test_a_damaged_file_of_a_folder_is_a_sentence(own, capsys, tmp_path):
    part = next((own / "pipeline/unet").glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1])
    arguments = ["--model", str(own), "--output-dir", str(tmp_path / "x"), "a cat"]
    assert main(["microworld", "sample", *arguments]) != 0
    assert "must have SHA-256" in " ".join(capsys.readouterr().err.split())


def save_pairs(work, recipe):
    """Pairs that read the second world's captions, with nothing learned."""
    tokens = wide.tokenizer(recipe.model)
    for pair in ("judge", "guide"):
        shutil.rmtree(work / pair, ignore_errors=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # noqa: TID251
            made = models.clip(tokens, recipe.pair_sizes, judge=pair == "judge")
        made.save_pretrained(work / pair)
        tokens.save_pretrained(work / pair)


def test_a_guide_of_the_second_world_knows_its_words_and_is_added_to_a_model(own, tmp_path):
    pytest.importorskip("skia")
    stage = Stage(num_samples=16, batch_size=8, learning_rate=1e-3, matrix_learning_rate=1e-3)
    recipe = Recipe(model="microworld-nano", world=2, num_check_pictures=6, guide=stage)
    alone = tmp_path / "alone"
    assert training.train(alone, recipe=recipe, stages=("guide",))
    training.land(alone, own, recipe)
    card = weights.checked(own) and weights.card_of(own)
    assert card["guide"]["from"].endswith("--stages guide --world 2")
    assert 0 <= card["retrieval"]["guide"] <= 1
    guide = Guide.load(None, str(own), device=torch.device("cpu"))
    first = Guide.load(None, "microworld-nano", device=torch.device("cpu"))
    noun = next(
        thing.noun
        for slug in unseen.known()
        if " " not in (thing := artwork.things()[slug]).noun
        and not first.vocabularies[first.tower].is_word(thing.noun)
    )
    assert guide.vocabularies[guide.tower].is_word(noun)


def test_landing_puts_the_parts_of_one_world_together(own, wide_model, tmp_path):
    pytest.importorskip("skia")
    work = tmp_path / "work"
    for part in ("unet", "text_encoder", "tokenizer", "vae"):
        shutil.copytree(own / "pipeline" / part, work / part)
    recipe = Recipe(model="microworld-nano", num_check_pictures=6, world=2)
    for pair in ("judge", "guide"):
        shutil.copytree(own / pair, work / pair)  # the first world's
    (work / "oracle").mkdir()
    save_file(load_file(own / "oracle.safetensors"), work / "oracle" / "model.safetensors")
    made = {"samples": 24, "world": 2, "history": [], "recipe": {"seed": 5},
            "readings": [{"samples": 12}]}  # fmt: skip
    (work / "denoiser.json").write_text(json.dumps(made))
    with pytest.raises(weights.WeightsError, match=r"of one world, got a denoiser of world 2"):
        training.land(work, tmp_path / "landed", replace(recipe, world=1))
    with pytest.raises(weights.WeightsError, match=r"A model's judge must read .* world, 2, got"):
        training.land(work, tmp_path / "landed", recipe)
    save_pairs(work, recipe)
    landed = training.land(work, tmp_path / "landed", recipe)
    card = weights.card(str(landed))
    assert card["world"] == 2
    assert card["recipe"]["denoiser"] == {"seed": 5}
    assert card["readings"] == [{"samples": 12}]
    assert "--world 2" in card["made_by"]
    # of what is there, whatever the recipe would have made
    assert card["sizes"]["unet_channels"] == [32, 48]
    assert card["sizes"]["text_dim"] == 48
    assert card["pair_sizes"]["text_dim"] == 20
    assert set(card["retrieval"]) == {"judge", "guide"}
    assert set(card["vae_psnr_db"]) & {"flat sticker", "line icon", "glossy sticker"}
    assert {"thing", "scene", "colour", "style"} <= card["oracle_accuracy"].keys()
    tokens = [json.loads((Path(f) / "pipeline/tokenizer/tokenizer.json").read_text())["model"]
              for f in (landed, wide_model)]  # fmt: skip
    assert tokens[0]["vocab"] == tokens[1]["vocab"]
    assert isinstance(weights.load_oracle(str(landed)), WideOracle)
