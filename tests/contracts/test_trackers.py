"""Curves of a run: what trackers hold, read back from their files."""

from __future__ import annotations

import csv
import io
import json
import os
import signal

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from oneword._files import OutputError
from oneword.concepts import formats
from oneword.errors import ConfigError
from oneword.runs.events import Message, Stepped
from oneword.runs.many import train_many
from oneword.runs.train import dry_run, train


NAMES = ("loss", "distance", "lr", "time_s", "word_distance")


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(folder):
    with (folder / "tracking" / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def events(folder):
    found = EventAccumulator(str(folder / "tracking" / "oneword"), size_guidance={"images": 0})
    return found.Reload()


def curves(folder):
    found = events(folder)
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in NAMES}


def stop_at(step):
    def on_event(event):
        if isinstance(event, Stepped) and event.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return on_event


@pytest.mark.usefixtures("few_steps")
def test_the_trackers_hold_what_the_metrics_hold(make, tmp_path):
    plain = train(make("plain", validation_steps=6))
    outcome = train(make(report_to=("tensorboard", "csv"), validation_steps=6))
    for name, rows in plain.result.concept.rows.items():
        assert torch.equal(rows, outcome.result.concept.rows[name])  # looking changes nothing
    expected = metrics(tmp_path / "run")
    assert table(tmp_path / "run") == expected
    for name, found in curves(tmp_path / "run").items():
        assert found == [(m["step"], pytest.approx(m[name], rel=1e-6)) for m in expected]
    pictures = events(tmp_path / "run").Images("previews")
    assert [one.step for one in pictures] == [0, 6, 12]
    for one in pictures:  # the four of a step side by side
        with Image.open(io.BytesIO(one.encoded_image_string)) as picture:
            assert picture.width == 4 * picture.height
    (settings,) = (tmp_path / "run" / "tracking" / "oneword").glob("*/hparams.yml")
    assert "inversion.max_train_steps: 12" in settings.read_text()


def test_a_run_that_goes_on_repeats_no_step(make, tmp_path):
    config = make(report_to=("tensorboard", "csv"))
    train(config, on_event=stop_at(7))
    train(config)
    expected = metrics(tmp_path / "run")
    assert [m["step"] for m in expected] == [0, 3, 6, 9, 12]
    assert [row["step"] for row in table(tmp_path / "run")] == [0, 3, 6, 9, 12]
    for found in curves(tmp_path / "run").values():
        assert [step for step, _ in found] == [0, 3, 6, 9, 12]


def test_words_of_a_batch_have_curves_of_their_own(make, tmp_path):
    configs = [make(name, {"seed": seed}, report_to=("csv",)) for seed, name in enumerate("ab")]
    assert all(one.outcome for one in train_many(configs))
    for name in "ab":
        assert table(tmp_path / name) == metrics(tmp_path / name)
    assert table(tmp_path / "a") != table(tmp_path / "b")


def test_a_tracker_that_cannot_write_is_said_before_the_first_step(make, tmp_path):
    (tmp_path / "run").mkdir()
    config = make(report_to=("csv",))
    train(make(), on_event=stop_at(5))
    (tmp_path / "run" / "tracking").write_text("in the way")
    with pytest.raises(OutputError, match=r"Cannot start the tracker 'csv': .* a file"):
        train(config)
    assert train(make()).result.status == "finished"  # trackers may come and go


def test_a_tracker_that_fails_in_mid_run_is_given_up_and_the_run_goes_on(make, tmp_path):
    said = []

    def on_event(event):
        if isinstance(event, Message):
            said.append(event.text)
        if isinstance(event, Stepped) and event.step == 4:
            (tmp_path / "run" / "tracking" / "metrics.csv").unlink()
            (tmp_path / "run" / "tracking").rmdir()
            (tmp_path / "run" / "tracking").write_text("in the way")

    outcome = train(make(report_to=("csv",)), on_event=on_event)
    assert outcome.result.status == "finished"
    assert (
        len([text for text in said if text.startswith("The tracker 'csv' is off from now on: ")])
        == 1
    )
    assert formats.load_concept(tmp_path / "run").rows


def test_a_package_that_is_missing_is_named(make, tmp_path):
    with pytest.raises(ConfigError, match=r"'wandb' because .*; pip install wandb"):
        dry_run(make(report_to=("wandb",)))
    assert not (tmp_path / "run").exists()
