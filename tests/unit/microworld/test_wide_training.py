"""Training on the second world: resumable to the same bits, and read back by the usual classes."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file


pytest.importorskip("skia")

from oneword.cli.main import main
from oneword.microworld import weights
from oneword.microworld.making import models, packing, sizes, wide, wide_latents, wide_reading
from oneword.microworld.making.reading import Settings
from oneword.microworld.making.wide import Shelf, StateError, WideRecipe
from oneword.microworld.making.wide_latents import Gallery, LatentsError
from oneword.microworld.making.wide_reading import Scope
from oneword.microworld.world import unseen


RECIPE = WideRecipe(
    model="microworld-nano", num_samples=24, batch_size=4, small_fraction=0.5, warmup_steps=2
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "world.zip"
    packing.pack(path, slugs=("elephant", "teapot", "lion"), num_variants=1, num_drawn=2)
    return path


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    folder = tmp_path_factory.mktemp("latents")
    made = Shelf(folder, Gallery(model="microworld-nano", num_pictures=12, shard_size=4))
    assert wide_latents.make(folder, made.gallery)
    return made


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory) -> wide.Trainer:
    return wide.train(parts, tmp_path_factory.mktemp("whole"), RECIPE)


def weights_of(trainer: wide.Trainer) -> torch.Tensor:
    tensors = (*trainer.parts.parameters(), *trainer.average.parameters())
    return torch.cat([p.detach().flatten() for p in tensors])


def test_all_samples_are_seen_and_the_weights_move(whole):
    assert whole.samples == 24
    assert whole.history[-1]["samples"] == 24
    start = wide.denoiser(RECIPE).state_dict()
    moved = whole.parts["unet"].state_dict()
    assert all(not torch.equal(start[name], tensor) for name, tensor in moved.items())


@pytest.mark.parametrize("source", ["parts", "shelf"])
def test_a_stopped_training_goes_on_to_the_same_bits(source, request, tmp_path, monkeypatch):
    source = request.getfixturevalue(source)
    step = wide.Trainer.learn

    def until(trainer, *arguments):
        loss = step(trainer, *arguments)
        if trainer.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(wide.Trainer, "learn", until)
    stopped = wide.train(source, tmp_path / "a", RECIPE)
    assert stopped.step == 3
    monkeypatch.undo()
    later = wide.train(source, tmp_path / "a", RECIPE)
    assert later.step == 6
    assert torch.equal(weights_of(later), weights_of(wide.train(source, tmp_path / "b", RECIPE)))


def test_a_state_goes_from_parts_to_latents(parts, shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(wide.Trainer, "update", lambda *_: pytest.fail("nothing is left to do"))
    with pytest.raises(pytest.fail.Exception):
        wide.train(parts, tmp_path, RECIPE)
    lines = []
    trainer = wide.train(shelf, tmp_path, RECIPE, tell=lines.append)
    assert trainer.samples == 24
    assert lines[-1].startswith("24 samples: loss ")
    assert lines[-1].endswith(" 0.0 hours left")


def test_what_is_missing_of_the_latents_is_made_first(tmp_path, shelf):
    fresh = Shelf(tmp_path / "latents", shelf.gallery)
    lines = []
    late = wide.train(fresh, tmp_path / "state", RECIPE, minutes=0, tell=lines.append)
    assert late.step == 0
    assert not lines
    brief = replace(RECIPE, num_samples=4)
    assert wide.train(fresh, tmp_path / "state", brief, tell=lines.append).samples == 4
    assert lines[0].startswith("latents 1 of 3: ")
    with pytest.raises(LatentsError, match="must have seed 1, got 0"):
        wide.train(replace(fresh, gallery=replace(shelf.gallery, seed=1)), tmp_path / "b", RECIPE)


def test_a_batch_of_latents_belongs_to_its_step_whatever_part_of_it_is_seen(shelf):
    whole, second = (
        wide.Picker(RECIPE, shelf.gallery, part) for part in (slice(0, 4), slice(2, 4))
    )
    for step in (2, 3):
        found, half = whole(step), second(step)
        assert found.numbers == half.numbers
        assert found.seed == half.seed
        assert (found.ids[2:] == half.ids).all()
        assert found.ids.shape == (4, RECIPE.context(step))
    assert RECIPE.context(2) == RECIPE.short_context
    assert RECIPE.context(3) == wide.CONTEXT
    assert whole(1).numbers != whole(2).numbers


def test_no_caption_is_cut_short():
    tokens, rng = wide.tokenizer(), np.random.default_rng(0)
    gallery = Gallery()
    texts = [wide.wide_captions.caption(gallery.scene(i), rng) for i in range(1000)]
    assert max(len(ids) for ids in tokens(texts).input_ids) <= WideRecipe().short_context


def test_the_tiny_model_spells_rare_words_in_pieces():
    recipe = wide.recipe_for("microworld-nano")
    assert wide.recipe_for("microworld") == WideRecipe()
    tokens, rng = wide.tokenizer("microworld-nano"), np.random.default_rng(0)
    assert len(tokens) < 0.4 * len(wide.tokenizer())
    assert tokens.tokenize("elephant") == ["elephant</w>"]
    pieces = tokens.tokenize("elephants")
    assert len(pieces) > 1
    assert "".join(pieces) == "elephants</w>"
    gallery = Gallery(model="microworld-nano", num_pictures=2000)
    texts = [wide.wide_captions.caption(gallery.scene(i), rng) for i in range(1000)]
    assert max(len(ids) for ids in tokens(texts).input_ids) <= recipe.short_context


def test_matrices_are_shared_evenly():
    matrices = [torch.zeros(rows, 16) for rows in (16, 64, 32, 32, 16)]
    owners = wide._owners(matrices, 2)
    loads = [
        sum(m.numel() for m, o in zip(matrices, owners, strict=True) if o == k) for k in (0, 1)
    ]
    assert abs(loads[0] - loads[1]) <= 16 * 16
    assert wide._owners(matrices, 1) == [0] * 5


def test_a_batch_is_shared_evenly(shelf, parts, tmp_path):
    with pytest.raises(StateError, match=r"shared evenly.*got batch_size 4 and num_processes 3"):
        wide.train(shelf, tmp_path, RECIPE, num_processes=3)
    with pytest.raises(StateError, match=r"one of latents .*got batch_size 4 and num_processes 2"):
        wide.train(parts, tmp_path, RECIPE, num_processes=2)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(shelf, tmp_path):
    """Gradients averaged, each matrix stepped by one process, and a state that one goes on from."""
    brief = replace(RECIPE, num_samples=4)
    one = wide.train(shelf, tmp_path / "one", brief)
    two = wide.train(shelf, tmp_path / "two", brief, num_processes=2)
    assert two.step == one.step == 1
    start = wide.denoiser(brief).state_dict()
    for name, tensor in one.parts["unet"].state_dict().items():
        moved = (tensor - start[name]).norm()
        # what is made orthogonal or divided by its own size shows the rounding of bf16
        assert (two.parts["unet"].state_dict()[name] - tensor).norm() <= 0.8 * moved + 1e-6, name
    for (_, mine), (_, theirs) in zip(one.matrices, two.matrices, strict=True):
        mean, other = (t.muon.state[v]["momentum_buffer"] for t, v in ((one, mine), (two, theirs)))
        assert (mean - other).norm() <= 0.1 * mean.norm() + 1e-9


SCOPE = Scope(
    held_out=("bicycle", "cactus"),
    known=("lion", "teapot", "volcano"),
    neighbours=("bicycle", "cactus", "lion", "teapot", "volcano", "elephant"),
    rows=(1, 2),
    num_drawn=2,
    settings=Settings(fit_steps=2, fit_pictures=2, num_nouns=2, num_inference_steps=2),
)


def test_readings_are_taken_on_the_way(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(wide_reading, "Scope", lambda: SCOPE)
    lines = []
    trained = wide.train(shelf, tmp_path, RECIPE, marks=(4, 9, 30), tell=lines.append)
    assert trained.samples == 24
    rows = {p.stem: json.loads(p.read_text()) for p in tmp_path.glob("reading-*.json")}
    assert {name: row["samples"] for name, row in rows.items()} == {"reading-4": 4, "reading-9": 12}
    assert [row["size_px"] for row in rows.values()] == [32, 32]
    assert sum(line.startswith("{") for line in lines) == 2
    row = rows["reading-9"]
    for place in ("plain", "beach", "meadow"):
        assert row[f"top1_drawings_{place}"] > 0.5
        assert 0 <= row[f"top1_known_{place}"] <= 1
    assert {"top1_best_noun", "top1_rows_1", "top1_rows_2", "loss_no_caption"} <= row.keys()
    assert row["loss_rows_1"] != row["loss_best_noun"]
    with Image.open(tmp_path / "reading-9.png") as sheet:
        assert 2 * 32 <= sheet.width < 3 * 32
    # the weights of each reading can be exported later
    wide.export(tmp_path, tmp_path / "made", RECIPE, at=4)
    made = json.loads((tmp_path / "made/denoiser.json").read_text())
    assert made["samples"] == 4
    assert made["readings"] == [rows["reading-4"]]
    wide.export(tmp_path, tmp_path / "last", RECIPE)
    first, last = (
        wide.plain.state_of(tmp_path / name / "unet")["conv_out.weight"]
        for name in ("made", "last")
    )
    kept = load_file(tmp_path / "average-4.safetensors")["unet.conv_out.weight"]
    assert torch.equal(first.half(), kept)
    assert not torch.equal(first, last)
    made = json.loads((tmp_path / "last/denoiser.json").read_text())
    assert [row["samples"] for row in made["readings"]] == [4, 12]
    with pytest.raises(StateError, match=r"kept in .*, 4, 9, got 30"):
        wide.export(tmp_path, tmp_path / "none", RECIPE, at=30)
    with pytest.raises(StateError, match="must be of the same recipe, got seed 0"):
        wide.export(tmp_path, tmp_path / "none", replace(RECIPE, seed=1), at=4)
    # the training did not notice
    plain = wide.train(shelf, tmp_path / "other", RECIPE)
    assert torch.equal(weights_of(plain), weights_of(trained))


def test_a_reading_at_any_time(shelf, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wide_reading, "Scope", lambda: SCOPE)
    monkeypatch.setattr(wide, "recipe_for", lambda _, seed: replace(RECIPE, seed=seed))
    wide.train(shelf, tmp_path, replace(RECIPE, num_samples=4), tell=[].append)
    assert wide.main(["--state", str(tmp_path), "--num-samples", "4", "--read"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == json.loads((tmp_path / "reading-4.json").read_text())
    with pytest.raises(SystemExit):
        wide.main(["--state", str(tmp_path)])
    assert "there is nothing to do; pass --latents" in capsys.readouterr().err


def test_which_reading_is_due(tmp_path):
    marks = wide_reading.MARKS
    assert wide_reading.due(tmp_path, marks, 499_999) is None
    assert wide_reading.due(tmp_path, marks, 1_200_000) == 1_000_000
    wide_reading.path_of(tmp_path, 1_000_000).touch()
    assert wide_reading.due(tmp_path, marks, 1_499_999) is None
    assert wide._marks(None, drawn=True) == marks
    assert wide._marks(None, drawn=False) == ()
    assert wide._marks([7, 3], drawn=False) == (3, 7)


def test_a_reading_looks_at_the_development_half_alone():
    scope = Scope()
    halves = unseen.counted()
    assert {halves[slug] for slug in scope.held_out} == {"development"}
    assert len(scope.held_out) == 40
    assert len(scope.known) == 80
    assert not set(scope.known) & unseen.held_out()


def test_learned_rows_stand_behind_the_table():
    words = wide_reading.Spelled(wide.tokenizer())
    tokens = words.tokens
    (line,) = words(["a *1 *0 on the beach"])
    expected = tokens("a x on the beach").input_ids
    assert line[:3].tolist() == [expected[0], expected[1], len(tokens) + 1]
    assert line[3] == len(tokens)
    assert line[4:8].tolist() == expected[3:7]
    assert len(line) == 77
    assert words([""])[0, :2].tolist() == [tokens.bos_token_id, tokens.eos_token_id]
    assert words.first_row("ear of corn") == tokens("corn").input_ids[1]


@pytest.mark.parametrize("start", ["landed", "denoiser", "nothing"])
def test_what_a_training_starts_from(start):
    recipe = replace(RECIPE, start=start)
    landed = weights.pipeline_folder(RECIPE.model)
    theirs = wide.plain.state_of(landed / "unet")
    mine = wide.denoiser(recipe).state_dict()
    assert mine["conv_in.weight"].equal(theirs["conv_in.weight"]) == (start != "nothing")
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    means = mine[key][:, :48] + mine[key][:, 48:]
    assert any(torch.allclose(row, means[0]) for row in theirs[key]) == (start == "landed")
    text = wide.text_encoder(recipe, wide.tokenizer()).state_dict()
    name = next(n for n in text if n.endswith("layers.0.layer_norm1.weight"))
    ones = torch.ones_like(text[name])
    assert text[name].equal(ones) == (start != "landed")


def test_no_time_is_no_step_but_a_state(parts, tmp_path):
    trainer = wide.train(parts, tmp_path, RECIPE, minutes=0)
    assert trainer.step == 0
    assert (tmp_path / wide.STATE).exists()


def test_the_state_of_another_recipe_is_refused(parts, tmp_path):
    wide.train(parts, tmp_path, RECIPE, minutes=0)
    with pytest.raises(
        StateError, match=r"got batch_size 4 in .* and batch_size 8 now; take another"
    ):
        wide.train(parts, tmp_path, replace(RECIPE, batch_size=8))


def test_known_words_keep_their_rows_and_new_ones_are_small():
    tokens = wide.tokenizer()
    folder = weights.pipeline_folder(RECIPE.model)
    old = wide.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    key = "embeddings.token_embedding.weight"
    landed = next(t for n, t in wide.plain.state_of(folder / "text_encoder").items() if key in n)
    own, wider = (
        wide.text_encoder(replace(RECIPE, size=size), tokens).get_input_embeddings().weight
        for size in ("landed", "wide")
    )
    assert len(own) == len(wider) == len(tokens)
    for word in ("cat", "moon", "watercolor"):
        (mine,), (theirs,) = (t.convert_tokens_to_ids([f"{word}</w>"]) for t in (tokens, old))
        torch.testing.assert_close(own[mine], landed[theirs])
        torch.testing.assert_close((wider[mine, :48] + wider[mine, 48:]) / 2, landed[theirs])
    (new,) = tokens.convert_tokens_to_ids(["teacup</w>"])
    assert new != tokens.unk_token_id
    assert own[new].std() < 0.04
    assert wider[new].std() < 0.04


def test_batches_belong_to_their_step(parts):
    one, again = (wide.Planner(parts, RECIPE) for _ in range(2))
    first, second = one(5), again(5)
    assert first.plans == second.plans
    assert (first.ids == second.ids).all()
    assert first.ids.shape == (4, RECIPE.short_context)
    assert one(7).ids.shape == (4, wide.CONTEXT)
    assert one(6).plans != first.plans


def test_the_first_part_is_small():
    assert RECIPE.is_small(2)
    assert not RECIPE.is_small(3)
    factors = [WideRecipe().rate_factor(step) for step in (0, 1000, WideRecipe().num_steps - 1)]
    assert factors[0] < 0.01
    assert factors[1] == 1
    assert 0 < factors[2] < 0.01


@pytest.fixture(scope="module")
def exported(whole, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    wide.export(whole.path.parent, folder, RECIPE)
    return folder


def test_the_averaged_weights_are_read_by_the_usual_classes(exported, whole):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(exported)
    mean = whole.average["unet"].state_dict()
    assert all(mean[n].half().equal(t.half()) for n, t in pipeline.unet.state_dict().items())
    sized = models.denoiser(sizes.WIDE[RECIPE.model])
    assert sized.state_dict().keys() == mean.keys()
    assert sized.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size == 96
    ids = pipeline.tokenizer("a glossy sticker of a teapot", return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = whole.average["text"].eval()(ids).last_hidden_state
        found = pipeline.text_encoder.float()(ids).last_hidden_state
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    assert '"samples": 24' in (exported / "denoiser.json").read_text()


def test_an_exported_model_is_drawn_from(exported, tmp_path, capsys):
    picture = tmp_path / "fox"
    words = [
        "--prompts",
        "a sticker of a fox",
        "--model",
        str(exported),
        "--output-dir",
        str(picture),
    ]
    assert main(["generate", *words, "--num-inference-steps", "2"]) == 0
    assert list(picture.glob("*.png"))


def test_the_command_line(parts, shelf, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wide, "recipe_for", lambda _, seed: replace(RECIPE, seed=seed))
    monkeypatch.setattr(wide, "Gallery", lambda **_: shelf.gallery)
    state = ["--state", str(tmp_path), "--num-samples", "8"]
    assert wide.main(["--parts", str(parts), *state, "--minutes", "0"]) == 0
    assert "0 of 8 samples are seen." in capsys.readouterr().out
    assert wide.main(["--latents", str(shelf.folder), *state, "--num-pictures", "8"]) == 0
    assert "8 of 8 samples are seen." in capsys.readouterr().out
    assert wide.main([*state, "--export", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made/model_index.json").exists()
