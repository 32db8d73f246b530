"""Many words at once: a run folder each, failures alone, resumed from where each stood."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch

import oneword
from oneword._files import InUseError, OutputError, hold
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError
from oneword.runs.events import Ended, Message, Stepped
from oneword.runs.many import train_many
from oneword.runs.train import train


def rows(folder):
    return formats.load_concept(folder).rows["clip"]


@pytest.fixture
def jobs(make, tmp_path):
    """Four jobs of different lengths; one folder of pictures does not exist."""

    def configs(output):
        made = [
            make(f"{output}/{name}", inversion={"max_train_steps": steps, "seed": seed})
            for seed, (name, steps) in enumerate({"a": 6, "b": 12, "c": 9}.items())
        ]
        bad = make(f"{output}/bad", train_data_dir=tmp_path / "nowhere")
        return [made[0], bad, *made[1:]]

    return configs


def test_each_word_is_what_it_would_be_alone_and_a_bad_folder_fails_alone(jobs, make, tmp_path):
    told = []
    outcomes = train_many(jobs("many"), slots=2, on_event=told.append)
    assert [one.name for one in outcomes] == ["a", "bad", "b", "c"]
    assert outcomes[1].outcome is None
    assert "nowhere" in outcomes[1].error
    assert not (tmp_path / "many" / "bad").exists()
    ended = [event.job for event in told if isinstance(event, Ended)]
    assert ended == ["bad", "a", "b", "c"]
    for one in (outcomes[0], *outcomes[2:]):
        assert one.outcome.result.status == "finished"
        assert one.outcome.concept_file.parent == tmp_path / "many" / one.name
    for config in jobs("alone")[2:]:
        train(config)
        alone, many = (rows(tmp_path / w / config.output_dir.name) for w in ("alone", "many"))
        assert (alone - many).norm() / alone.norm() < 1e-4


def test_a_word_is_kept_when_it_ends_and_not_when_all_have_ended(jobs, tmp_path):
    there = []

    def tell(event):
        if isinstance(event, Ended) and event.job == "a":
            there.append((tmp_path / "many" / "a" / "learned_embeds.safetensors").exists())
            there.append((tmp_path / "many" / "c" / "learned_embeds.safetensors").exists())

    train_many(jobs("many"), slots=2, on_event=tell)
    assert there == [True, False]


@pytest.mark.parametrize("slots", [1, 2])
def test_a_stopped_call_goes_on_where_each_word_stood(jobs, tmp_path, slots):
    train_many(jobs("whole"), slots=slots)

    def stop(event):
        if isinstance(event, Stepped) and (event.job, event.step) == ("b", 7):
            os.kill(os.getpid(), signal.SIGINT)

    stopped = {o.name: o for o in train_many(jobs("many"), slots=slots, on_event=stop)}
    assert stopped["b"].outcome.result.status == "interrupted"
    assert stopped["a"].outcome.result.status == "finished"
    told = []
    again = {o.name: o for o in train_many(jobs("many"), slots=3, on_event=told.append)}
    assert Message("b", "Resuming from step 7.") in told
    assert again["a"].outcome.was_finished
    assert {again[name].outcome.result.status for name in "abc"} == {"finished"}
    for name in "abc":
        whole, parts = rows(tmp_path / "whole" / name), rows(tmp_path / "many" / name)
        assert (whole - parts).norm() / whole.norm() < 1e-4
    lines = (tmp_path / "many" / "b" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 3, 6, 9, 12]


def test_one_slot_resumed_ends_with_the_same_bits(jobs, tmp_path):
    train_many(jobs("whole"), slots=1)

    def stop(event):
        if isinstance(event, Stepped) and (event.job, event.step) == ("b", 5):
            os.kill(os.getpid(), signal.SIGINT)

    train_many(jobs("many"), slots=1, on_event=stop)
    told = []
    train_many(jobs("many"), slots=1, on_event=told.append)
    assert Message("b", "Resuming from step 5.") in told  # and not anew, to the same bits
    for name in "abc":
        assert torch.equal(rows(tmp_path / "whole" / name), rows(tmp_path / "many" / name))


def test_a_word_of_many_can_go_on_alone(jobs, tmp_path):
    def stop(event):
        if isinstance(event, Stepped) and (event.job, event.step) == ("b", 5):
            os.kill(os.getpid(), signal.SIGINT)

    train_many(jobs("many"), slots=2, on_event=stop)
    config = next(c for c in jobs("many") if c.output_dir.name == "b")
    assert train(config).result.status == "finished"
    assert len(rows(tmp_path / "many" / "b")) == 1


def test_jobs_that_do_not_belong_together_are_refused(make):
    with pytest.raises(ConfigError, match="Cannot train without a job"):
        train_many([])
    with pytest.raises(ConfigError, match="must differ, got a twice"):
        train_many([make("x/a"), make("y/a")])
    with pytest.raises(ConfigError, match="must have the same model and model settings"):
        train_many([make("a"), make("b", model=ModelConfig(model="microworld"))])


@pytest.fixture
def command(photos, tiny_folder):
    return [
        "train", "--model", str(tiny_folder), "--device", "cpu", "--max-train-steps", "2",
        "--train-batch-size", "1", "--num-evaluation-samples", "2",
    ]  # fmt: skip


def test_a_folder_of_folders_from_the_command_line(command, photos, tmp_path, capsys):
    for name in ("my cat", "dog"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for picture in photos.iterdir():
            (tmp_path / "all" / name / picture.name).write_bytes(picture.read_bytes())
    (tmp_path / "all" / "empty").mkdir()
    words = [*command, "--jobs", str(tmp_path / "all"), "--output-dir", str(tmp_path / "out"),
             "--initializer-token", "cat"]  # fmt: skip
    assert main([*words, "--dry-run"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert plans["my-cat"]["config"]["inversion"]["placeholder_token"] == "<my-cat>"
    assert plans["empty"]["status"] == "failed"
    assert not (tmp_path / "out").exists()
    assert main([*words, "--slots", "2", "--json", str(tmp_path / "n.json")]) == 1
    out, err = capsys.readouterr()
    assert "2 of 3 words are learned" in out
    assert "empty: failed: The folder must contain at least one picture" in out
    assert "dog: Finished at step 2." in err
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert {name: one["status"] for name, one in numbers.items()} == {
        "dog": "finished", "my-cat": "finished", "empty": "failed",
    }  # fmt: skip
    assert formats.load_concept(tmp_path / "out" / "my-cat").placeholder_token == "<my-cat>"
    assert (tmp_path / "out" / "dog" / "report.html").exists()


def test_a_dry_run_says_that_no_job_can_be_trained(command, photos, tmp_path, capsys):
    name = "cafe\u0301"  # as macOS writes it
    shutil.copytree(photos, tmp_path / "all" / name)
    words = [*command, "--jobs", str(tmp_path / "all"), "--output-dir", str(tmp_path / "out"),
             "--initializer-token", "cat", "--dry-run"]  # fmt: skip
    assert main([*words, "--num-vectors", "75"]) == 1
    (plan,) = json.loads(capsys.readouterr().out).values()
    assert "<caf\u00e9>' must fit into 75 tokens" in plan["reason"]
    assert main(words) == 0


def test_each_word_has_its_own_mirror(command, photos, tmp_path):
    (tmp_path / "jobs").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "jobs" / name).symlink_to(photos)
    out, store = tmp_path / "out", tmp_path / "store"
    several = [*command, f"--jobs={tmp_path / 'jobs'}", f"--output-dir={out}"]
    assert main([*several, f"--mirror=file://{store}"]) == 0
    for name in ("cat", "dog"):
        assert torch.equal(rows(store / name), rows(out / name))


def test_a_jobs_file_gives_each_word_its_own_settings(command, photos, tmp_path, capsys):
    path = tmp_path / "jobs.toml"
    path.write_text(
        f'''
        [[jobs]]
        train_data_dir = "{photos}"
        name = "one"
        placeholder_token = "<x>"
        initializer_token = "cat"
        num_vectors = 2
        [[jobs]]
        train_data_dir = "{photos}"
        name = "two"
        initializer_token = "dog"
        num_vectors = 0
        '''
    )
    assert main([*command, f"--jobs={path}", "--output-dir", str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 words are learned" in out
    assert "two: failed: num_vectors must be in 1..75, got 0." in out
    concept = formats.load_concept(tmp_path / "out" / "one")
    assert (concept.placeholder_token, concept.num_vectors) == ("<x>", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "one per word, got x"),
        ("[[jobs]]\nnum_vectors = 1", "must have a train_data_dir"),
        ("[[jobs]]\ntrain_data_dir = 'a'\nfly = 1", "only known options, got fly"),
        ("[[jobs]]\ntrain_data_dir = 'a'\nmodel = 'b'", "Cannot set model for each job"),
        ("jobs = []", "at least one job, got none"),
        ("[[", "must be TOML"),
    ],
)
def test_a_wrong_jobs_file_is_one_sentence(command, tmp_path, capsys, text, message):
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    assert main([*command, "--jobs", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_wrong_slots_and_folders_are_one_sentence(command, tmp_path, capsys):
    assert main([*command, "--jobs", str(tmp_path / "none")]) == 2
    assert "which does not exist" in capsys.readouterr().err
    assert main([*command, "--jobs", str(tmp_path), "--slots", "many"]) == 2
    assert "--slots must be auto or a number" in capsys.readouterr().err


# --- alone


def test_a_job_whose_folder_cannot_be_written_fails_alone(jobs, tmp_path):
    def break_b(event):
        if isinstance(event, Stepped) and (event.job, event.step) == ("b", 2):
            (
                tmp_path / "many" / "b" / "state.safetensors"
            ).mkdir()  # so that no file takes its place

    outcomes = {o.name: o for o in train_many(jobs("many"), slots=2, on_event=break_b)}
    assert outcomes["b"].outcome is None
    assert "b/state.safetensors must be writable" in outcomes["b"].error
    assert isinstance(outcomes["b"].cause, OutputError)
    for name in "ac":
        assert outcomes[name].outcome.result.status == "finished"
    (tmp_path / "many" / "b" / "state.safetensors").rmdir()
    again = {o.name: o for o in train_many(jobs("many"), slots=2)}
    assert again["b"].outcome.result.status == "finished"


def test_a_job_that_another_process_trains_fails_alone(jobs, tmp_path):
    with hold(tmp_path / "many" / "b"):
        outcomes = {o.name: o for o in train_many(jobs("many"), slots=2)}
        assert isinstance(outcomes["b"].cause, InUseError)
        assert outcomes["a"].outcome.result.status == "finished"
    again = {o.name: o for o in train_many(jobs("many"), slots=2)}
    assert again["b"].outcome.result.status == "finished"


def test_whatever_is_raised_for_a_job_ends_that_job_alone(jobs, photos, tmp_path):
    def tell(event):
        if getattr(event, "job", "") == "c" and isinstance(event, Stepped):
            raise ZeroDivisionError("c is unlucky")

    outcomes = {o.name: o for o in train_many(jobs("many"), slots=3, on_event=tell)}
    assert outcomes["c"].error == "ZeroDivisionError: c is unlucky"
    assert outcomes["a"].outcome.result.status == outcomes["b"].outcome.result.status == "finished"


def test_killed_between_two_states_words_still_ride_side_by_side(jobs, tmp_path):
    """A word that took a free slot stands before those that were there; so it does when resumed."""
    train_many(jobs("whole"), slots=2)

    def stop(event):
        if isinstance(event, Stepped) and (event.job, event.step) == ("c", 3):  # in the slot of a
            os.kill(os.getpid(), signal.SIGINT)

    train_many(jobs("many"), slots=2, on_event=stop)
    train_many(jobs("many"), slots=2)
    for name in "abc":
        assert torch.equal(rows(tmp_path / "whole" / name), rows(tmp_path / "many" / name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_train_steps = 'many'", "--max-train-steps must be INT, got 'many'"),
        ("seed = 1.5", "--seed must be INT, got '1.5'"),
        ("seed = [1, 2]", "Unrecognized options: 2"),
        ("learnable_property = 'mood'", "must be one of object, style, got 'mood'"),
        ("learning_rate = []", "Missing value for argument"),
        ("fly = 1", "only known options, got fly"),
        ("model = 'b'", "Cannot set model for each job"),
        ("num_vectors = 0", "num_vectors must be in 1..75, got 0"),
        ("placeholder_token = 'a b'", "without spaces"),
        ("dtype = 'bf16'", "its model or model settings differ"),
    ],
)
def test_a_bad_value_fails_its_job_alone(command, photos, tmp_path, capsys, text, message):
    path = tmp_path / "jobs.toml"
    job = f'[[jobs]]\ntrain_data_dir = "{photos}"\n'
    good = "".join(f'{job}name = "good-{i}"\n' for i in range(2))
    path.write_text(f'{job}name = "bad"\n{text}\n{good}')
    words = [*command, f"--jobs={path}", "--output-dir", str(tmp_path / "out")]
    assert main([*words, "--initializer-token", "cat", "--dry-run"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert message in plans["bad"]["reason"]
    assert plans["good-0"]["run"] == plans["good-1"]["run"] == "new"


def test_jobs_of_one_name_or_no_folder_fail_alone_and_the_rest_is_learned(
    command, photos, tmp_path, capsys
):
    path = tmp_path / "jobs.toml"
    job = f'[[jobs]]\ntrain_data_dir = "{photos}"\n'
    path.write_text(f'{job}name = "x y"\n{job}name = "x-y"\n[[jobs]]\nseed = 1\n{job}name = "z"')
    words = [*command, f"--jobs={path}", "--output-dir", str(tmp_path / "out")]
    assert main([*words, "--initializer-token", "cat"]) == 1
    out = capsys.readouterr().out
    assert "1 of 3 words are learned" in out
    assert "x-y: failed: Job names must differ, got 'x-y' 2 times." in out
    assert "job-3: failed: Every job in" in out
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["z"]


def test_a_word_that_had_ended_gets_the_report_that_a_kill_kept_from_it(
    command, photos, tiny_folder, tmp_path
):
    (tmp_path / "jobs").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "jobs" / name).symlink_to(photos)
    words = [*command, f"--jobs={tmp_path / 'jobs'}", "--output-dir", str(tmp_path / "out"),
             "--initializer-token", "cat"]  # fmt: skip
    assert main(words) == 0
    report, other = (tmp_path / "out" / name / "report.html" for name in ("cat", "dog"))
    assert f"--model {tiny_folder}" in report.read_text()
    report.unlink()
    kept = other.stat().st_mtime_ns
    assert main(words) == 0
    assert f"--model {tiny_folder}" in report.read_text()
    assert other.stat().st_mtime_ns == kept


def test_two_commands_with_one_output_folder(command, photos, tmp_path, capsys):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "cat").symlink_to(photos)
    with hold(tmp_path / "out"):
        assert main([*command, f"--jobs={tmp_path / 'jobs'}",
                     "--output-dir", str(tmp_path / "out")]) == 2  # fmt: skip
    assert "another process is working there" in capsys.readouterr().err


class Guest:
    """Draws once after some rounds, and brings a job with it."""

    def __init__(self, backbone, joining, after=3):
        self.backbone, self.joining, self.left = backbone, list(joining), after
        self.drawing = None

    def waits(self):
        self.left -= 1
        return self.left <= 0 and self.drawing is None

    def served(self):
        width = self.backbone.vocabularies["clip"].dim
        word = oneword.Concept(placeholder_token="<drawn>", rows={"clip": torch.zeros(1, width)})
        self.drawing = oneword.generate(
            self.backbone, ["a photo of a <drawn>"], [0], concepts=[word]
        )
        return self.joining


def test_a_guest_draws_between_steps_and_its_words_join(jobs, tiny_sd, tmp_path):
    first, _, second, _ = jobs("guest")
    train_many([first], backbone=tiny_sd, slots=2)
    before = rows(tmp_path / "guest" / "a").clone()
    shutil.rmtree(tmp_path / "guest")
    guest = Guest(tiny_sd, [second])
    told = []
    outcomes = train_many([first], backbone=tiny_sd, slots=2, guest=guest, on_event=told.append)
    assert [one.name for one in outcomes] == ["a", "b"]
    assert guest.drawing.pixels.shape[0] == 1
    steps = [(e.job, e.step) for e in told if isinstance(e, Stepped)]
    assert steps.index(("b", 1)) < steps.index(("a", 6))  # side by side
    after = rows(tmp_path / "guest" / "a")
    assert (after - before).norm() / before.norm() < 1e-4
    assert outcomes[1].outcome.result.status == "finished"
    alone = jobs("alone")[2]
    train(alone, backbone=tiny_sd)
    ours, theirs = rows(tmp_path / "guest" / "b"), rows(tmp_path / "alone" / "b")
    assert (ours - theirs).norm() / theirs.norm() < 1e-4


def test_a_guest_that_brings_nothing_changes_no_bit(jobs, tiny_sd, tmp_path):
    train_many([jobs("plain")[0]], backbone=tiny_sd)
    train_many([jobs("visited")[0]], backbone=tiny_sd, guest=Guest(tiny_sd, []))
    plain, visited = rows(tmp_path / "plain" / "a"), rows(tmp_path / "visited" / "a")
    assert torch.equal(plain, visited)


def test_a_word_that_had_begun_joins_where_it_stood(jobs, tiny_sd, tmp_path):
    first, _, second, _ = jobs("guest")

    def stop(event):
        if isinstance(event, Stepped) and event.step == 4:
            raise KeyboardInterrupt

    train(second, backbone=tiny_sd, on_event=stop)
    told = []
    train_many(
        [first], backbone=tiny_sd, slots=2, guest=Guest(tiny_sd, [second]), on_event=told.append
    )
    steps = [e.step for e in told if isinstance(e, Stepped) and e.job == "b"]
    assert steps[0] == 5
    train(jobs("alone")[2], backbone=tiny_sd)
    ours, theirs = rows(tmp_path / "guest" / "b"), rows(tmp_path / "alone" / "b")
    assert (ours - theirs).norm() / theirs.norm() < 1e-4
