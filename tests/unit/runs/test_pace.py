"""What a run will take is told from what earlier ones took, and from nothing else."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig, plain_settings
from oneword.runs.pace import pace


def config(tmp_path, *, model="microworld-nano", resolution=None, **inversion):
    return TrainConfig(
        train_data_dir=tmp_path,
        model=ModelConfig(model=model, device="cpu"),
        resolution=resolution,
        inversion=InversionConfig(placeholder_token="*", **inversion),
    ).resolved("microworld", 64)


def run(folder, settings, *times, at=0):
    """A run folder whose scorings were at these steps and seconds."""
    folder.mkdir()
    record = {"config": plain_settings(settings), "pictures_sha256": ""}
    (folder / "config.json").write_text(json.dumps(record))
    lines = [json.dumps({"step": step, "time_s": seconds}) for step, seconds in times]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    os.utime(folder / "metrics.jsonl", (at, at))
    return folder


def took(folders, settings):
    found = pace(folders, settings)
    return found.step_s, found.num_runs


def test_a_step_takes_what_it_took_by_its_samples(tmp_path):
    four, eight = (config(tmp_path, train_batch_size=n) for n in (4, 8))
    folder = run(tmp_path / "a", four, (0, 3.0), (10, 5.0), (50, 13.0))
    assert took([folder], four) == (pytest.approx(0.2), 1)
    assert took([folder], eight) == (pytest.approx(0.4), 1)


def test_the_latest_five_runs_count_and_their_median_is_told(tmp_path):
    settings = config(tmp_path)
    folders = [
        run(tmp_path / f"{i}", settings, (0, 0.0), (10, seconds), at=i)
        for i, seconds in enumerate((900.0, 800.0, 1.0, 2.0, 3.0, 40.0, 50.0))
    ]
    assert took(folders[::-1], settings) == (pytest.approx(0.3), 5)


@pytest.mark.parametrize(
    "other", [{"model": "microworld"}, {"resolution": 32}, {"setup": "pivotal"}]
)
def test_runs_of_another_kind_tell_nothing(tmp_path, other):
    folder = run(tmp_path / "a", config(tmp_path, **other), (0, 0.0), (10, 5.0))
    assert pace([folder], config(tmp_path)) is None


def test_folders_that_tell_nothing_are_passed_over(tmp_path):
    settings = config(tmp_path)
    one = run(tmp_path / "one-scoring", settings, (0, 1.0))
    still = run(tmp_path / "still", settings, (5, 1.0), (5, 2.0))
    broken = run(tmp_path / "broken", settings, (0, 0.0), (10, 5.0))
    (broken / "config.json").write_text("{")
    older = run(tmp_path / "older", settings, (0, 0.0), (10, 5.0))
    record = json.loads((older / "config.json").read_text())
    del record["config"]["model"]
    (older / "config.json").write_text(json.dumps(record))
    assert pace([one, still, broken, older, tmp_path / "nowhere", tmp_path], settings) is None
    good = run(tmp_path / "good", dataclasses.replace(settings), (0, 0.0), (10, 5.0))
    assert took([broken, good], settings) == (pytest.approx(0.5), 1)
