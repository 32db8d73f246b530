"""The recipe of the embedded models with a handful of samples per stage."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn

from oneword.microworld import weights
from oneword.microworld.making import (
    models,
    oracle,
    run as running,
    sizes,
    stages,
    train as training,
)
from oneword.microworld.making.recipe import Recipe, Stage
from oneword.microworld.making.run import STAGES
from oneword.microworld.world import captions, held_out, inventory


def stage(num_samples, batch_size=8):
    return Stage(
        num_samples=num_samples,
        batch_size=batch_size,
        learning_rate=1e-3,
        matrix_learning_rate=1e-3,
        warmup_steps=2,
        ema=0.9,
    )


SMALL = Recipe(
    model="microworld-nano",
    vae=stage(96, 4),
    clip=stage(16),
    judge=stage(16),
    oracle=stage(24),
    denoiser=stage(24, 4),
    guide=stage(16),
    num_pictures=128,
    shard_size=64,
    num_check_pictures=48,
)


ROWS = "embeddings.token_embedding.weight"
VOCABULARY = tuple(captions.vocabulary())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    seen = []
    complete = training.train(
        folder, recipe=SMALL, from_scratch=True, on_progress=lambda *told: seen.append(told)
    )
    assert complete
    assert {told[0] for told in seen} >= {"latents"}
    return folder


def test_every_stage_leaves_its_part(folder):
    parts = {p.name for p in folder.iterdir() if p.is_dir()}
    assert parts == {"vae", "clip", "judge", "oracle", "unet", "text_encoder", "guide"}
    assert all((folder / f"{name}.done").exists() for name in STAGES)
    assert json.loads((folder / "denoiser.json").read_text())["samples"] == 24


def test_a_finished_recipe_does_nothing_more(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert training.train(folder, recipe=SMALL, from_scratch=True)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_latents_have_mean_zero_and_deviation_one(folder):
    moments = load_file(folder / "latents-0000.safetensors")["moments"].float()
    mean, std = moments.chunk(2, dim=1)
    assert moments.shape == (64, 2 * sizes.NANO.latent_channels, 8, 8)
    assert (std > 0).all()
    channels = mean.permute(1, 0, 2, 3).flatten(1)
    # made on other pictures than those they were normalised on, in bf16
    assert channels.mean(1).abs().max() < 0.3
    assert (channels.std(1) - 1).abs().max() < 0.3


def test_a_stopped_stage_goes_on_to_the_same_bits(folder, tmp_path):
    """Twenty steps, a stop, the rest: as if it had not been stopped."""
    options = {"recipe": SMALL, "stages": ("vae",), "from_scratch": True}
    assert not training.train(tmp_path, minutes=0, **options)
    state = load_file(tmp_path / "vae.state.safetensors")
    assert int(state["adam.0.step"]) == 20
    assert state["muon.0.momentum_buffer"].ndim == 2
    assert training.train(tmp_path, **options)
    a, b = (
        load_file(x / "vae" / "diffusion_pytorch_model.safetensors") for x in (folder, tmp_path)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_two_processes_share_a_batch(folder, tmp_path):
    for name in ("clip", "latents-0000.safetensors", "latents-0001.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    assert training.train(
        tmp_path, recipe=SMALL, stages=("denoiser",), num_processes=2, from_scratch=True
    )
    assert json.loads((tmp_path / "denoiser.json").read_text())["samples"] == 24
    one = load_file(folder / "text_encoder" / "model.safetensors")
    two = load_file(tmp_path / "text_encoder" / "model.safetensors")
    assert any(not torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def landed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "weights")
    return training.land(folder, tmp_path / "weights" / SMALL.model, SMALL)


def test_landing_makes_a_stock_pipeline_with_checksums(landed):
    pipeline = StableDiffusionPipeline.from_pretrained(
        weights.pipeline_folder(SMALL.model), dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a mug", num_inference_steps=2, output_type="np").images
    assert drawn.shape == (1, 64, 64, 3)
    found = weights.load_oracle(SMALL.model).read(torch.zeros(2, 3, 64, 64))
    assert len(found) == 2
    assert found[0].keys() == oracle.HEADS.keys()
    card = weights.card(SMALL.model)
    assert card["denoiser_samples"] == 24
    assert card["sizes"]["size_px"] == 64
    assert 0 < card["vae_psnr_db"]["all"] < 40
    assert {"noun", "scene", "style", "concept"} <= card["oracle_accuracy"].keys()
    weights.add_scores({"noun": {"value": 0.5}}, SMALL.model)
    assert weights.card(SMALL.model) == card | {"scores": {"noun": {"value": 0.5}}}
    unet = next((landed / "pipeline" / "unet").glob("*.safetensors"))
    unet.write_bytes(unet.read_bytes()[:-1])
    with pytest.raises(weights.WeightsError, match=r"must have SHA-256 .*; reinstall oneword"):
        weights.pipeline_folder(SMALL.model)
    (landed / weights.CARD).unlink()
    with pytest.raises(weights.WeightsError, match="its card is missing"):
        weights.pipeline_folder(SMALL.model)


def test_another_work_folder_goes_on_from_what_has_landed(landed, tmp_path):
    again = tmp_path / "again"
    taken_as_they_are = ("vae", "clip", "judge", "oracle", "latents", "guide")
    assert training.train(again, recipe=SMALL, stages=taken_as_they_are)
    before = load_file(landed / "pipeline" / "vae" / "diffusion_pytorch_model.safetensors")
    taken = load_file(again / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[name], taken[name]) for name in before)
    assert training.train(again, recipe=SMALL, stages=("denoiser",))
    better = training.land(again, tmp_path / "better", SMALL)
    assert json.loads((better / weights.CARD).read_text())["denoiser_samples"] == 48


def test_the_oracle_trains_on_from_what_has_landed(landed, tmp_path):
    again = tmp_path / "again"
    stages = ("vae", "oracle")
    gentle = replace(SMALL, oracle=replace(SMALL.oracle, num_samples=SMALL.oracle.batch_size))
    assert training.train(again, recipe=gentle, stages=stages, further_oracle=True)
    before = load_file(landed / "oracle.safetensors")
    after = load_file(again / "oracle" / "model.safetensors")
    moved = {
        n: (after[n].float() - t.float()).abs().max().item()
        for n, t in before.items()
        if n.endswith("weight")
    }
    assert 0 < max(moved.values()) < 0.05, moved  # one warm-up step away, not begun anew


def test_a_guide_is_added_to_a_model_that_landed_without_one(landed, tmp_path):
    shutil.rmtree(landed / "guide")
    weights.seal(landed, {n: v for n, v in weights.card_of(landed).items() if n != "sha256"})
    before = weights.card_of(landed)
    alone = tmp_path / "alone"
    assert training.train(alone, recipe=SMALL, stages=("guide",))
    assert {p.name for p in alone.iterdir() if p.is_dir()} == {"guide"}
    training.land(alone, landed, SMALL)
    card = weights.card_of(landed)
    added = {name for name in card["sha256"] if name not in before["sha256"]}
    assert {name.partition("/")[0] for name in added} == {"guide"}
    assert before["sha256"].items() <= card["sha256"].items()
    assert weights.pipeline_folder(SMALL.model)  # every file is as its checksum says
    assert card["recipe"]["guide"]["num_samples"] == 16
    assert card["denoiser_samples"] == before["denoiser_samples"] == 24
    assert 0 <= card["retrieval"]["guide"] <= 1
    guide, judge = (load_file(landed / n / "model.safetensors") for n in ("guide", "judge"))
    assert any(not torch.equal(guide[n], judge[n]) for n in guide.keys() & judge.keys())
    with pytest.raises(weights.WeightsError, match="its card is missing"):
        training.land(alone, tmp_path / "nowhere", SMALL)


@pytest.mark.parametrize(("name", "seed"), [("vae", 18), ("denoiser", 23), ("guide", 1018)])
def test_each_stage_has_the_first_weights_that_it_always_had(name, seed):
    running.seed_weights(replace(SMALL, seed=3), name)
    drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(seed)))


def test_parts_before_the_denoiser_land_alone(folder, tmp_path, monkeypatch):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("vae", "clip", "judge", "oracle", "guide"):
        (begun / name).symlink_to(folder / name)
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "weights")
    training.land(begun, tmp_path / "weights" / SMALL.model, SMALL)
    assert weights.card(SMALL.model)["denoiser_samples"] == 0
    assert weights.landed_denoiser("unet", SMALL.model) is None
    assert weights.landed_denoiser("text", SMALL.model) is not None
    assert training.train(tmp_path / "on", recipe=SMALL)
    assert json.loads((tmp_path / "on" / "denoiser.json").read_text())["samples"] == 24


def test_rows_of_landed_words_follow_them_into_a_larger_vocabulary(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "weights")
    landed = training.land(folder, tmp_path / "weights" / SMALL.model, SMALL) / "pipeline"
    before = load_file(landed / "text_encoder" / "model.safetensors")[ROWS]
    old = models.tokenizer().get_vocab()
    monkeypatch.setattr(models.captions, "vocabulary", lambda: ["aardvark", *VOCABULARY])
    new = models.tokenizer().get_vocab()
    after = weights.landed_denoiser("text", SMALL.model)
    assert after is not None
    assert after[ROWS].shape == (len(new), SMALL.sizes.text_dim)
    assert "aardvark</w>" not in old
    assert 0 < after[ROWS][new["aardvark</w>"]].abs().max() < 0.1
    assert new["mug</w>"] != old["mug</w>"]
    for piece in old:
        assert torch.equal(after[ROWS][new[piece]], before[old[piece]].float())


def test_landing_is_refused_without_parts_or_over_something_else(folder, tmp_path):
    with pytest.raises(
        weights.WeightsError, match="because vae, clip, judge, oracle, guide are missing in"
    ):
        training.land(tmp_path / "empty", tmp_path / "model", SMALL)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").write_text("dear diary")
    with pytest.raises(weights.WeightsError, match="because it has no "):
        training.land(folder, tmp_path / "home", SMALL)
    assert (tmp_path / "home" / "diary.txt").exists()


def test_the_oracle_is_asked_for_what_a_picture_shows():
    cat = inventory.Thing(noun="cat", colours=("red", "blue", "white"), pattern="dotted")
    doctor = inventory.Thing(
        noun="doctor", colours=("red", "brown", "grey"), skin="dark", hair="long"
    )
    alone = oracle.truth(inventory.Scene(things=(cat,), place="moon", style="sketch"), "tiger")
    assert alone == {
        "noun": "cat", "second_noun": "none", "colour": "red", "second_colour": "blue",
        "detail_colour": "white", "pattern": "dotted", "scene": "moon", "style": "sketch",
        "count": "one", "relation": "alone", "concept": "tiger",
    }  # fmt: skip
    both = oracle.truth(inventory.Scene(things=(doctor, cat), relation="beside"))
    assert (both["second_noun"], both["skin"], both["hair"]) == ("cat", "dark", "long")
    assert "colour" not in both
    counted = oracle.truth(inventory.Scene(things=(cat,) * 3, relation="count"))
    assert (counted["count"], counted["second_noun"]) == ("three", "none")
    hidden = inventory.Thing(noun="igloo", colours=("red", "blue", "white"))
    assert oracle.truth(inventory.Scene(things=(hidden,)))["noun"] == "none"
    assert "colour" not in oracle.truth(inventory.Scene(things=(cat,), style="blueprint"))


def test_every_truth_is_a_value_that_the_oracle_knows():
    pictures, told = stages.oracle_batch(np.random.default_rng(0), 300, 64)
    assert pictures.shape == (300, 64, 64, 3)
    for truth in told:
        assert all(value in oracle.HEADS[name] for name, value in truth.items())
    seen = {truth["concept"] for truth in told}
    assert len(seen) > 0.8 * sum(c.thing is not None for c in held_out.HELD_OUT)
    assert {truth["relation"] for truth in told} == set(inventory.RELATIONS)


def test_agreement_counts_only_what_was_asked():
    read = [{"noun": "cat", "scene": "moon"}, {"noun": "dog", "scene": "moon"}]
    found = oracle.agreement(read, [{"noun": "cat"}, {"noun": "cat", "scene": "moon"}])
    assert found == {"noun": 0.5, "scene": 1.0}


def test_attributes_that_are_not_shown_have_no_loss():
    logits = {"noun": torch.zeros(2, len(oracle.HEADS["noun"])), "skin": torch.zeros(2, 3)}
    one = oracle.attribute_loss(logits, [{"noun": "cat"}, {"noun": "dog"}])
    assert one == pytest.approx(np.log(len(oracle.HEADS["noun"])))
    both = oracle.attribute_loss(logits, [{"noun": "cat", "skin": "dark"}, {"noun": "dog"}])
    assert both - one == pytest.approx(np.log(3))


def test_muon_steps_the_weights_in_place_whatever_their_layout():
    """Every hidden matrix moves as a plain matrix does, in channels-last memory too."""
    shop = running.Workshop(
        SMALL, Path(), torch.device("cpu"), math.inf, lambda *_: None, from_scratch=True
    )
    part = nn.Sequential(nn.Conv2d(16, 24, 3), nn.Conv2d(3, 8, 3), nn.Embedding(40, 32))
    part.append(nn.Linear(24, 16)).to(memory_format=torch.channels_last)
    run = running.Run(shop, "clip", SMALL.clip, {"part": part})
    assert [w.shape for w, _ in run.matrices] == [(24, 16, 3, 3), (16, 24)]
    twins = [nn.Parameter(w.detach().flatten(1).clone()) for w, _ in run.matrices]
    plain = type(run.muon)(
        twins, lr=1e-3, adjust_lr_fn="match_rms_adamw", weight_decay=SMALL.clip.weight_decay
    )
    before = [p.detach().clone() for p in part.parameters()]
    for _ in run.steps():
        aim = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(run.step))
        loss = part[0](aim).square().mean() + part[3](part[0](aim).mean((2, 3))).square().mean()
        loss = loss + part[1](aim[:, :3]).square().mean() + part[2].weight.square().mean()
        run.update(loss)
        for twin, (weight, _) in zip(twins, run.matrices, strict=True):
            twin.grad = weight.grad.flatten(1)
        for group in plain.param_groups:
            group["lr"] = run.muon.param_groups[0]["lr"]
        plain.step()
        if run.step == 2:
            break
    for twin, (weight, _) in zip(twins, run.matrices, strict=True):
        # channels-last sums in another order
        assert torch.allclose(weight.flatten(1), twin, atol=2e-4)
    assert all(not torch.equal(a, p) for a, p in zip(before, part.parameters(), strict=True))


def test_the_checksum_is_the_seeds(tmp_path, monkeypatch):
    """The same again from the same seed, another one from another."""
    monkeypatch.setattr(running, "CHECKED_STEP", 2)
    found = []
    for i, seed in enumerate((0, 0, 1)):
        made, folder = replace(SMALL, seed=seed), tmp_path / str(i)
        assert training.train(folder, recipe=made, stages=("clip",), from_scratch=True)
        sums = json.loads((folder / running.CHECKSUMS).read_text())
        assert (sums["clip"]["step"], sums["clip"]["num_processes"]) == (2, 1)
        found.append(sums["clip"]["sha256"])
    assert found[0] == found[1] != found[2]
