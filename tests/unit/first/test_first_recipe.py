"""The recipe of the embedded model with a handful of samples per stage."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from oneword.backbones.base import load
from oneword.config import ModelConfig
from oneword.microworld.first import recipe, weights
from oneword.microworld.first.recipe import Recipe, Stage


def stage(num_samples, batch_size=8):
    return Stage(
        num_samples=num_samples, batch_size=batch_size, learning_rate=1e-3, warmup_steps=2, ema=0.9
    )


SMALL = Recipe(
    vae=stage(96, 4),
    clip=stage(16),
    judge=stage(16),
    reader=stage(24),
    denoiser=stage(24, 4),
    num_pictures=128,
    shard_size=64,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    seen = []
    complete = recipe.train(
        folder, recipe=SMALL, from_scratch=True, on_progress=lambda *told: seen.append(told)
    )
    assert complete
    assert {told[0] for told in seen} >= {"latents"}
    return folder


def test_every_stage_leaves_its_part(folder):
    parts = {p.name for p in folder.iterdir() if p.is_dir()}
    assert parts == {"vae", "clip", "judge", "reader", "unet", "text_encoder"}
    assert all((folder / f"{name}.done").exists() for name in recipe.STAGES)
    assert json.loads((folder / "denoiser.json").read_text())["samples"] == 24


def test_a_finished_recipe_does_nothing_more(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert recipe.train(folder, recipe=SMALL, from_scratch=True)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_latents_have_mean_zero_and_deviation_one(folder):
    moments = load_file(folder / "latents-0000.safetensors")["moments"].float()
    mean, std = moments.chunk(2, dim=1)
    assert moments.shape == (64, 8, 16, 16)
    assert (std > 0).all()
    channels = mean.permute(1, 0, 2, 3).flatten(1)
    # made on other pictures than those they were normalised on, in bf16
    assert channels.mean(1).abs().max() < 0.3
    assert (channels.std(1) - 1).abs().max() < 0.3


def test_a_stopped_stage_goes_on_to_the_same_bits(folder, tmp_path):
    """Twenty steps, a stop, the rest: as if it had not been stopped."""
    options = {"recipe": SMALL, "stages": ("vae",), "from_scratch": True}
    assert not recipe.train(tmp_path, minutes=0, **options)
    state = load_file(tmp_path / "vae.state.safetensors")
    assert int(state["adam.0.step"]) == 20
    assert recipe.train(tmp_path, **options)
    a, b = (
        load_file(x / "vae" / "diffusion_pytorch_model.safetensors") for x in (folder, tmp_path)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_share_a_batch(folder, tmp_path):
    for name in ("clip", "latents-0000.safetensors", "latents-0001.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    assert recipe.train(
        tmp_path, recipe=SMALL, stages=("denoiser",), num_processes=2, from_scratch=True
    )
    assert json.loads((tmp_path / "denoiser.json").read_text())["samples"] == 24
    one = load_file(folder / "text_encoder" / "model.safetensors")
    two = load_file(tmp_path / "text_encoder" / "model.safetensors")
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_two_processes_take_landed_parts_without_waiting_for_each_other(tmp_path):
    command = [sys.executable, "-m", "oneword.cli.main", "microworld", "train", "--output-dir",
               str(tmp_path), "--num-processes", "2", "--stages", "vae", "clip", "judge",
               "reader"]  # fmt: skip
    assert subprocess.run(command, check=False, timeout=200).returncode == 0
    taken = {p.name for p in tmp_path.iterdir() if p.is_dir()}
    assert taken == {"vae", "judge", "reader"}


def test_landing_makes_a_pipeline_with_checksums(folder, tmp_path, monkeypatch):
    target = recipe.land(folder, tmp_path / "weights", SMALL)
    monkeypatch.setattr(weights, "WEIGHTS", target)
    backbone = load(ModelConfig(device="cpu"))
    assert backbone.family == "microworld"
    assert backbone.draw(["a mug"], [0]).shape == (1, 3, 64, 64)
    assert weights.load_reader()(torch.zeros(2, 3, 64, 64))["noun"].shape == (2, 14)
    card = weights.card()
    assert card["denoiser_samples"] == 24
    weights.add_scores({"noun": {"value": 0.5}})
    assert weights.card() == card | {"scores": {"noun": {"value": 0.5}}}
    assert len(card["commit"]) in (7, 40)

    # another work folder goes on from what has landed
    again = tmp_path / "again"
    assert recipe.train(again, recipe=SMALL, stages=("vae", "clip", "judge", "reader", "latents"))
    landed = load_file(target / "pipeline" / "vae" / "diffusion_pytorch_model.safetensors")
    taken = load_file(again / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(landed[name], taken[name]) for name in landed)
    assert recipe.train(again, recipe=SMALL, stages=("denoiser",))
    better = json.loads((recipe.land(again, tmp_path / "better", SMALL) / weights.CARD).read_text())
    assert better["denoiser_samples"] == 2 * card["denoiser_samples"]

    unet = next((target / "pipeline" / "unet").glob("*.safetensors"))
    unet.write_bytes(unet.read_bytes()[:-1])
    with pytest.raises(weights.WeightsError, match=r"must have SHA-256 .*; reinstall oneword"):
        weights.pipeline_folder()
    (target / weights.CARD).unlink()
    with pytest.raises(weights.WeightsError, match="its card is missing"):
        weights.pipeline_folder()
