"""The run folder: what it holds, how it is resumed, and what it refuses."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from oneword import _files
from oneword._files import InUseError, OutputError
from oneword.concepts import formats
from oneword.config.inversion import InversionConfig
from oneword.config.runs import ComposeConfig
from oneword.errors import ConfigError, UserError
from oneword.models.loading import load_backbone
from oneword.runs.compose import compose
from oneword.runs.events import Message, Plan, Preview, Stepped
from oneword.runs.folder import RunError
from oneword.runs.train import dry_run, rank_initializers, train
from oneword.training.initializer import best_first
from oneword.training.job import JobError
from oneword.vocabulary.vocabulary import distance_to_words


def rows(folder):
    return formats.load_concept(folder).rows["clip"]


class Stop:
    """Interrupts a run at a step, as Ctrl-C or another signal would."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number, self.events = step, number, []

    def __call__(self, event):
        self.events.append(event)
        if isinstance(event, Stepped) and event.step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.usefixtures("few_steps")
def test_a_run_folder_holds_everything(make, tmp_path):
    events = []
    config = make(validation_steps=6, num_validation_images=2)
    outcome = train(config, on_event=events.append)
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "learned_embeds.preview.png", "learned_embeds.safetensors",
        "metrics.jsonl", "previews", "state.safetensors",
    }  # fmt: skip
    assert outcome.concept_file == folder / "learned_embeds.safetensors"
    record = json.loads((folder / "config.json").read_text())
    assert record["config"]["inversion"]["learning_rate"] == 2e-3  # resolved, not null
    assert record["versions"]["torch"] == torch.__version__
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6, 9, 12]
    assert lines[-1]["distance"] > 0
    assert lines[0]["word_distance"] == 0.0  # the initialiser is one of the words
    vocabularies = load_backbone(config.model).vocabularies
    last = distance_to_words(vocabularies, outcome.result.concept.rows)
    by_step = {line["step"]: line["word_distance"] for line in lines}
    assert by_step[outcome.result.best_step] == pytest.approx(last, rel=1e-5)
    assert by_step[12] > by_step[3] > 0
    previews = sorted(p.name for p in (folder / "previews").iterdir())
    assert previews == ["step-000000.png", "step-000006.png", "step-000012.png"]
    assert Image.open(folder / "previews" / previews[0]).width > 200
    assert {type(event) for event in events} == {Plan, Message, Stepped, Preview}
    assert {event.job for event in events} == {"run"}
    plan = events[0].plan
    assert plan["learning_rate"]["clip"]["absolute"] == pytest.approx(2e-3)
    assert not plan["preset_validated"]
    provenance = formats.load_concept(folder).provenance
    assert provenance["base_model"] == config.model.model
    assert provenance["train_time_s"] > 0


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_bits(make, tmp_path):
    whole = train(make("whole"))
    stopped = train(make("run"), on_event=Stop(7))
    assert stopped.result.status == "interrupted"
    assert stopped.concept_file is None
    assert not (tmp_path / "run" / "learned_embeds.safetensors").exists()
    events = []
    resumed = train(make("run"), on_event=events.append)
    assert Message("run", "Resuming from step 7.") in events
    assert resumed.result.status == "finished"
    assert torch.equal(rows(tmp_path / "run"), rows(tmp_path / "whole"))
    assert resumed.result.losses == whole.result.losses
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 3, 6, 9, 12]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_save_as_ctrl_c_does(make, tmp_path, name):
    number = getattr(signal, name, None) or pytest.skip(f"there is no {name} here")
    stopped = train(make(), on_event=Stop(5, number))
    assert (stopped.result.status, stopped.result.steps) == ("interrupted", 5)
    assert (tmp_path / "run" / "state.safetensors").exists()


def test_nohup_outlives_its_terminal(make):
    number = getattr(signal, "SIGHUP", None) or pytest.skip("there is no SIGHUP here")
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert train(make(), on_event=Stop(5, number)).result.status == "finished"
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_writer_is_refused_and_the_first_goes_on(make, tmp_path):
    told = []

    def again(event):
        if isinstance(event, Stepped) and event.step == 5:
            with pytest.raises(InUseError, match="another process is working there"):
                train(make())
            told.append(event.step)

    assert train(make(), on_event=again).result.status == "finished"
    assert told == [5]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 3, 6, 9, 12]
    assert train(make()).was_finished  # nothing is held after the end


def test_a_run_and_a_mirror_have_one_writer(make, tmp_path):
    url = f"file://{tmp_path}/store"

    def elsewhere(event):
        if isinstance(event, Stepped) and event.step == 5:
            with pytest.raises(InUseError, match="another process is working there"):
                train(make("there", mirror=url))
            assert not (tmp_path / "there").exists()

    assert train(make("here", mirror=url), on_event=elsewhere).result.status == "finished"
    assert not list(_files.leftovers(tmp_path))


def test_a_kill_before_the_concept_file_still_leaves_it(make, tmp_path):
    url = f"file://{tmp_path}/store"
    whole = train(make(mirror=url))
    expected = rows(tmp_path / "run")
    for place in ("run", "store"):
        (tmp_path / place / "learned_embeds.safetensors").unlink()
    again = train(make(mirror=url))
    assert again.was_finished
    assert again.concept_file == whole.concept_file
    assert torch.equal(rows(tmp_path / "run"), expected)
    assert torch.equal(rows(tmp_path / "store"), expected)


def test_hidden_files_and_what_a_kill_left_make_no_folder_foreign(make, tmp_path):
    (tmp_path / "run").mkdir()
    left = (".config.json.x1y2.oneword", ".oneword-probe", _files.LOCK)
    for name in (*left, ".DS_Store"):
        (tmp_path / "run" / name).write_text("")
    assert train(make()).result.status == "finished"
    hidden = [p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
    assert hidden == [".DS_Store"]


def test_a_finished_run_is_left_alone(make, tmp_path):
    train(make())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    again = train(make())
    assert again.was_finished
    assert again.concept_file is not None
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}


def test_other_settings_or_pictures_are_refused_with_the_difference(make, photos):
    train(make())
    with pytest.raises(ConfigError, match="seed was 0 and is 5"):
        train(make(inversion={"seed": 5}))
    shutil.copy(photos / "0.png", photos / "9.png")
    with pytest.raises(ConfigError, match="the pictures or their captions have changed"):
        train(make())


LATER = (
    "optimizer", "lr_num_cycles", "lr_power", "lr_step_rules", "loss_type", "huber_c",
    "huber_schedule", "snr_gamma", "noise_offset", "caption_dropout_rate",
    "caption_tag_dropout_rate", "shuffle_caption", "keep_tokens", "random_crops", "crop_scale",
)  # fmt: skip
"""Settings that older records do not have, which did what their defaults do."""


def test_a_run_of_an_older_version_goes_on_with_what_it_did(make, tmp_path):
    """Cropping stood outside of the training's settings, and pictures were resized with Lanczos."""
    kept = tmp_path / "run" / "config.json"
    train(make(), on_event=Stop(5))
    record = json.loads(kept.read_text())
    assert record["config"]["inversion"].pop("fit") == "crop"
    assert record["config"]["inversion"].pop("interpolation") == "lanczos"
    assert record["config"]["inversion"].pop("backgrounds") == "none"  # they are not transparent
    for name in LATER:
        record["config"]["inversion"].pop(name)
    kept.write_text(json.dumps(record | {"config": record["config"] | {"center_crop": False}}))
    with pytest.raises(ConfigError, match="fit was 'squash' and is 'crop'"):
        train(make())
    inside = record["config"]["inversion"] | {"center_crop": True}  # as the next version had it
    kept.write_text(json.dumps(record | {"config": record["config"] | {"inversion": inside}}))
    assert dry_run(make())["run"] == "resume"
    kept.write_text(json.dumps(record | {"config": record["config"] | {"center_crop": True}}))
    assert dry_run(make())["run"] == "resume"
    assert train(make()).result.status == "finished"


def test_a_transparent_picture_is_learned_on_varied_grounds(make, photos, tmp_path):
    """Of a run: what it records, that it goes on to the same bits, and what changes without."""
    for path in sorted(photos.iterdir())[1:]:  # one transparent picture is enough
        path.unlink()
    with Image.open(photos / "0.png") as picture:
        cut = picture.convert("RGBA")
    cut.paste((0, 0, 0, 0), (0, 0, cut.width, cut.height // 2))
    cut.save(photos / "0.png")
    whole = train(make("whole"))
    record = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert record["config"]["inversion"]["backgrounds"] == "auto"
    train(make(), on_event=Stop(5))
    outcome = train(make())
    rows, again = (o.result.concept.rows["clip"] for o in (whole, outcome))
    assert torch.equal(rows, again)
    white = train(make("white", {"backgrounds": "none"}))
    assert not torch.equal(rows, white.result.concept.rows["clip"])
    with pytest.raises(ConfigError, match="backgrounds was 'auto' and is 'none'"):
        train(make(inversion={"backgrounds": "none"}))


def test_grounds_without_a_use_are_refused_before_the_run(make, tmp_path):
    with pytest.raises(JobError, match="3 of 3 pictures have no transparency"):
        train(make(inversion={"backgrounds": "plain"}))
    assert not (tmp_path / "run").exists()


def test_words_of_an_older_composition_go_on(make, photos, tmp_path):
    """What is unset now was unset then, whatever older versions did."""
    config = ComposeConfig(
        images=(photos, photos),
        placeholder_tokens=("<a>", "<b>"),
        initializer_tokens=("cat", "dog"),
        model=make().model,
        inversion=InversionConfig(max_train_steps=2, train_batch_size=2, num_evaluation_samples=2),
        output_dir=tmp_path / "two",
    )
    compose(config)
    kept = tmp_path / "two" / "config.json"
    record = json.loads(kept.read_text())
    for name in ("fit", "interpolation", "backgrounds"):
        assert record["config"]["inversion"].pop(name) is None
    kept.write_text(json.dumps(record))
    results, file = compose(config)
    assert [result.status for result in results] == ["finished", "finished"]
    assert file is not None


def test_a_moved_picture_folder_and_other_previews_are_no_difference(make, photos, tmp_path):
    train(make(), on_event=Stop(5))
    moved = photos.rename(tmp_path / "moved")
    outcome = train(make(train_data_dir=moved, checkpointing_steps=9))
    assert outcome.result.status == "finished"


def test_a_dry_run_writes_nothing(make, tmp_path):
    plan = dry_run(make())
    assert plan["run"] == "new"
    assert plan["num_samples"] == 24
    assert plan["pictures"] == ["0.png", "1.png", "2.png"]
    assert not (tmp_path / "run").exists()
    train(make(), on_event=Stop(5))
    assert dry_run(make())["run"] == "resume"


def test_words_to_start_from_are_ranked_as_training_chooses_them(make, tmp_path):
    ranking = rank_initializers(make(inversion={"initializer_token": None}))
    assert not (tmp_path / "run").exists()
    assert [*ranking.values()] == sorted(ranking.values())
    assert len(ranking) == 12
    provenance = train(make(inversion={"initializer_token": None})).result.concept.provenance
    assert provenance["initializer_losses"] == ranking
    assert provenance["initializer_token"] == next(iter(ranking))
    # one's own word is ranked among the nouns, the best first
    own = rank_initializers(make(inversion={"initializer_token": "red snow"}))
    assert own.keys() - ranking.keys() == {"red snow"}
    assert [*own.values()] == sorted(own.values())
    for setting in ({"setup": "captions-short"}, {"initializer": "encoder"}):
        with pytest.raises(UserError, match=r"Cannot|must"):
            rank_initializers(make(inversion={"initializer_token": None} | setting))


def test_words_with_a_loss_that_is_not_finite_are_ranked_last():
    losses = {"cat": math.nan, "dog": 0.3, "mug": math.inf, "hat": 0.1}
    assert [*best_first(losses)] == ["hat", "dog", "cat", "mug"]


def test_captions_are_used_only_where_every_picture_has_one(make, photos):
    (photos / "0.txt").write_text("a red S*")
    plan = dry_run(make())
    assert not plan["captions"]
    assert plan["notes"][0].startswith("1 of 3 pictures have a caption")
    for i in (1, 2):
        (photos / f"{i}.txt").write_text("a blue S*")
    assert dry_run(make())["captions"]
    (photos / "2.txt").write_text("a blue thing")
    with pytest.raises(UserError, match=r"must contain the placeholder 'S\*', got 'a blue thing'"):
        dry_run(make())


def test_a_failed_start_leaves_nothing_behind(make, tmp_path):
    with pytest.raises(UserError, match="must be new to the model, got 'cat'"):
        train(make(inversion={"placeholder_token": "cat"}))
    assert not (tmp_path / "run").exists()
    replaced = train(make(inversion={"placeholder_token": "cat"}, replace=True))
    assert replaced.result.status == "finished"


def test_a_folder_with_other_files_is_refused(make, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diary.txt").write_text("dear diary")
    with pytest.raises(RunError, match="must be empty or contain a run"):
        train(make())
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["diary.txt"]


def test_a_file_in_the_folders_place_is_refused(make, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        train(make())


def test_too_little_room_is_said_before_training(make, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"must have 16 MB of free disk space, got 1\.0 MB"):
        train(make())


def test_a_disk_that_fills_up_keeps_the_last_state(make, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > 4:  # record, metrics and the first states still fit
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", fsync)
        with pytest.raises(UserError, match="No space left on device; make room"):
            train(make())
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
    assert train(make()).result.status == "finished"
    train(make("whole"))
    assert torch.equal(rows(tmp_path / "run"), rows(tmp_path / "whole"))


def test_a_folder_that_vanishes_is_made_anew_and_the_run_goes_on(make, tmp_path):
    whole, events = train(make("whole")), []
    config = make("run")

    def vanish(event):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 7:
            config.output_dir.rename(tmp_path / "away")

    found = train(config, on_event=vanish)
    assert torch.equal(rows(found.folder), rows(whole.folder))
    (said,) = [e.text for e in events if isinstance(e, Message) and "created again" in e.text]
    assert said.startswith(f"The folder {config.output_dir} was deleted and is created again")
    names = {path.name for path in config.output_dir.iterdir()}
    assert {"config.json", "state.safetensors", "learned_embeds.safetensors"} <= names
    assert train(config).was_finished  # and it is a run like any other


def test_a_damaged_state_is_said(make, tmp_path):
    train(make(), on_event=Stop(5))
    (tmp_path / "run" / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match="delete it to start this run again"):
        train(make())
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(RunError, match="must be the record of a run"):
        train(make())


def killed_and_resumed(make, tmp_path, delays):
    """Kill the process with -9 after each delay counted from its first progress, then go on.

    The unbroken run has a process of its own, too: one that has done much else may end with other
    last bits.
    """
    code = (
        "import sys, pickle; from oneword.runs.events import Stepped\n"
        "from oneword.runs.train import train\n"
        "config = pickle.load(open(sys.argv[1], 'rb'))\n"
        "train(config, on_event=lambda e: isinstance(e, Stepped) and print(e.step, flush=True))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}

    def begun(name):
        config = make(name, inversion={"max_train_steps": 60}, checkpointing_steps=2)
        file = tmp_path / f"{name}.pickle"
        file.write_bytes(pickle.dumps(config))
        command = [sys.executable, "-c", code, str(file)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    kills = 0
    for delay in delays:
        with begun("killed") as process:
            process.stdout.readline()
            time.sleep(delay)
            kills += process.poll() is None
            process.kill()
            process.communicate()
    for name in ("killed", "whole"):
        with begun(name) as process:
            process.communicate(timeout=240)
            assert process.returncode == 0
    assert torch.equal(rows(tmp_path / "killed"), rows(tmp_path / "whole"))
    return kills


@pytest.mark.slow
def test_killed_with_minus_nine_and_resumed_gives_the_same_bits(make, tmp_path):
    assert killed_and_resumed(make, tmp_path, [0.3]) == 1


@pytest.mark.slow
def test_killed_at_ten_random_moments_gives_the_same_bits(make, tmp_path):
    delays = np.random.default_rng(0).uniform(0.02, 0.25, 10).tolist()
    assert killed_and_resumed(make, tmp_path, delays) >= 8


def test_another_machine_goes_on_from_a_mirror_with_the_same_rows(make, tmp_path):
    url = f"file://{tmp_path}/store/run"
    train(make("alone"))
    stopped = train(make("here", mirror=url), on_event=Stop(7))
    assert stopped.result.status == "interrupted"
    shutil.rmtree(tmp_path / "here")  # that machine is gone
    events = []
    train(make("there", mirror=url), on_event=events.append)
    assert Message("there", "Resuming from step 7.") in events
    assert torch.equal(rows(tmp_path / "there"), rows(tmp_path / "alone"))
    assert torch.equal(rows(tmp_path / "store" / "run"), rows(tmp_path / "alone"))
    again = train(make("third", mirror=url))
    assert again.was_finished
    assert again.concept_file == tmp_path / "third" / "learned_embeds.safetensors"
