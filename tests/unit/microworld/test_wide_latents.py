"""Latents of the second world's pictures: made once, shard by shard, and refused where wrong."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file


pytest.importorskip("skia")

from oneword.microworld.making import plain, shards, wide_latents
from oneword.microworld.making.processes import Ending
from oneword.microworld.making.wide_latents import Gallery, Latents, LatentsError
from oneword.microworld.world import wide_drawing
from oneword.microworld.world.inventory import Scene


GALLERY = Gallery(model="microworld-nano", num_pictures=12, shard_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("latents") / "new"
    told = []
    assert wide_latents.make(folder, GALLERY, on_progress=lambda *some: told.append(some))
    assert [some[:2] for some in told] == [(1, 3), (2, 3), (3, 3)]
    return folder


def same(one: Path, other: Path) -> bool:
    tensors, others = load_file(one), load_file(other)
    return all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_the_moments_are_the_pictures(folder):
    latents = Latents(folder, GALLERY)
    numbers = [9, 0, 6]
    drawn = np.stack([wide_drawing.render(GALLERY.scene(i), 64) for i in numbers])
    encoder = plain.load_encoder(plain.landed(GALLERY.model) / "vae")
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
    for small, side in ((False, 64), (True, 32)):
        mean, std = latents.moments(numbers, small=small)
        shown = torch.nn.functional.interpolate(pixels, size=side, mode="area")
        expected = encoder(shown)
        assert mean.dtype == std.dtype == torch.float32
        assert mean.shape == (3, 8, side // 8, side // 8)
        torch.testing.assert_close(mean, expected[0], atol=0.15, rtol=0.05)  # bf16
        torch.testing.assert_close(std, expected[1], atol=0.02, rtol=0.1)


def test_both_worlds_are_shown():
    found = [isinstance(Gallery().scene(i), Scene) for i in range(100)]
    assert 15 < sum(found) < 45
    assert Gallery(seed=1).scene(3) != Gallery().scene(3)


def test_what_is_there_is_kept_and_what_is_missing_is_made_to_the_same_bits(copied):
    first, second = (shards.path_of(copied, i) for i in range(2))
    kept = first.stat().st_mtime_ns
    before = second.rename(copied / "before.safetensors")
    assert shards.missing(copied, 3) == [1]
    assert not wide_latents.make(copied, GALLERY, minutes=0)
    assert not second.exists()
    assert wide_latents.make(copied, GALLERY)
    assert same(second, before)
    assert first.stat().st_mtime_ns == kept
    assert not list(copied.glob("*.part"))
    more = replace(GALLERY, num_pictures=16)
    with pytest.raises(LatentsError, match=r"latents of 16 pictures, got no latents-0003"):
        Latents(copied, more)
    assert wide_latents.make(copied, more)
    assert len(Latents(copied, more).moments([15], small=True)[0]) == 1


def test_a_signal_ends_before_the_next_pictures(tmp_path, monkeypatch):
    drawn = []

    def draw(scene, size):
        drawn.append(scene)
        os.kill(os.getpid(), signal.SIGTERM)
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(wide_drawing, "render", draw)
    monkeypatch.setattr(wide_latents, "_AT_ONCE", 1)
    assert not wide_latents.make(tmp_path, GALLERY)
    assert len(drawn) == 1
    assert not list(tmp_path.iterdir())


def test_a_second_signal_is_not_caught():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *some: calls.append(some))
    try:
        with Ending() as ending:
            assert not ending.asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert ending.asked
            assert not calls
            os.kill(os.getpid(), signal.SIGTERM)
            assert len(calls) == 1
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(GALLERY, seed=3), r"must have seed 3, got 0 in .*latents-0000"),
        (replace(GALLERY, shard_size=2), "must have shard_size 2, got 4 in"),
        (replace(GALLERY, model="microworld"), r"must have vae [0-9a-f]{12}, got [0-9a-f]{12} in"),
    ],
)  # fmt: skip
def test_latents_of_another_recipe_are_refused(folder, other, message):
    with pytest.raises(LatentsError, match=message):
        wide_latents.make(folder, other)


def test_latents_of_another_world_are_refused(folder, monkeypatch):
    monkeypatch.setattr(wide_latents.wide_scenes, "VERSION", 3)
    with pytest.raises(LatentsError, match="must have world 3, got 2 in"):
        Latents(folder, GALLERY)


def test_a_damaged_file_is_refused(copied):
    path = shards.path_of(copied, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(LatentsError, match=r"latents-0001.* cannot be read .*delete the file"):
        Latents(copied, GALLERY)
    tensors = load_file(shards.path_of(copied, 0))
    save_file({"32": tensors["32"], "64": tensors["64"][:2]}, path, metadata=GALLERY.metadata())
    with pytest.raises(LatentsError, match=r"64 px must have shape \[4, 16, 8, 8\], got \[2, "):
        Latents(copied, GALLERY)


@pytest.mark.parametrize(("num_pictures", "shard_size"), [(10, 4), (0, 4), (4, 0)])
def test_shards_are_whole(num_pictures, shard_size):
    with pytest.raises(LatentsError, match="must be a multiple of shard_size, both 1 or more"):
        Gallery(num_pictures=num_pictures, shard_size=shard_size)


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wide_latents, "Gallery", lambda seed: replace(GALLERY, seed=seed))
    assert wide_latents.main([str(tmp_path), "--num-pictures", "4", "--seed", "2"]) == 0
    told = capsys.readouterr().out
    assert "latents 1 of 1" in told
    assert "All 4 pictures' latents" in told


@pytest.mark.slow
def test_processes_make_the_same_latents(tmp_path, folder):
    assert wide_latents.make(tmp_path, GALLERY, num_processes=2)
    for path in folder.iterdir():
        assert same(path, tmp_path / path.name)
