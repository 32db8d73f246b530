"""``oneword train --num-processes``: one command, several processes, as one to whoever looks."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from oneword.cli.main import main
from oneword.concepts import formats


@pytest.fixture
def training(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{i}.png")
    return [
        "train", "--model", "microworld-nano", "--train-data-dir", str(photos), "--device", "cpu",
        "--initializer-token", "mug", "--train-batch-size", "4", "--max-train-steps", "6",
        "--evaluation-steps", "2", "--num-evaluation-samples", "4", "--validation-steps", "6",
        "--num-validation-images", "1", "--checkpointing-steps", "2",
    ]  # fmt: skip


def outcome(file):
    return json.loads(file.read_text())


def test_two_processes_are_one_command_and_give_the_same_word(training, tmp_path, capfd):
    files = {name: tmp_path / f"{name}.json" for name in ("alone", "both")}
    for name, more in (("alone", []), ("both", ["--num-processes", "2"])):
        folder = ["--output-dir", str(tmp_path / name), "--json", str(files[name])]
        assert main([*training, *folder, *more]) == 0
        out, err = (" ".join(text.split()) for text in capfd.readouterr())
        assert out.count("To draw with it:") == 1
        assert err.count("up to 6 steps of 4 samples") == 1
        assert err.count("preview: ") == 2  # before the first step and after the last
    assert err.count("2 processes share each step's 4 samples, 2 per process") == 1
    alone, both = (outcome(file) for file in files.values())
    assert (both["steps"], both["best_step"]) == (alone["steps"], alone["best_step"])
    assert both["losses"] == [
        [step, pytest.approx(loss, rel=1e-5)] for step, loss in alone["losses"]
    ]
    expected, found = (formats.load_concept(tmp_path / name).rows["clip"] for name in files)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    record = outcome(tmp_path / "both" / "config.json")
    assert record["config"]["num_processes"] == 2
    assert {p.name for p in (tmp_path / "both").iterdir()} == {
        p.name for p in (tmp_path / "alone").iterdir()
    }


def test_other_commands_are_started_once(monkeypatch, capsys):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "x")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    assert main(["generate", "--prompts", "a mug"]) == 2
    assert "Cannot start oneword generate in 2 processes" in capsys.readouterr().err
    assert main(["train", "--jobs", "photos"]) == 2
    assert "to share words among processes, use --cluster local" in capsys.readouterr().err


def test_dry_runs_and_jobs_start_no_processes(training, tmp_path, capsys):
    several = ["--num-processes", "2", "--output-dir", str(tmp_path / "run")]
    assert main([*training, *several, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "2 processes share each step's 4 samples, 2 per process" in plan["notes"]
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (tmp_path / "photos").rename(jobs / "cat")
    assert main(["train", "--jobs", str(jobs), "--model", "microworld-nano", *several]) == 2
    assert "Cannot use num_processes 2 for words that share a batch" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def command(training, folder):
    """A run of many steps in two processes, and the processes' ids once it is under way."""
    words = [*training, "--output-dir", str(folder), "--num-processes", "2", "--max-train-steps"]
    started = subprocess.Popen(
        [sys.executable, "-m", "oneword", *words, "4000", "--early-stopping", "False"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 300
    while not (folder / "state.safetensors").exists():
        assert started.poll() is None, started.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.2)
    children = psutil.Process(started.pid).children()
    return started, {int(child.environ()["RANK"]): child for child in children}


@pytest.mark.slow
def test_ctrl_c_stops_all_and_saves(training, tmp_path, capfd):
    started, _ = command(training, tmp_path / "run")
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130
    assert len(re.findall("Stopped after step", err)) == 1
    assert "Traceback" not in err
    assert not list((tmp_path / "run").glob(".oneword*"))
    words = [*training, "--output-dir", str(tmp_path / "run"), "--early-stopping", "False"]
    assert main([*words, "--max-train-steps", "4000", "--dry-run"]) == 0
    assert json.loads(capfd.readouterr().out)["run"] == "resume"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_with_a_sentence(training, tmp_path, rank):
    started, children = command(training, tmp_path / "run")
    children[rank].kill()
    _, err = started.communicate(timeout=120)
    assert started.returncode == 2
    assert len(re.findall("ended too early", err)) == 1
    assert "Traceback" not in err
    assert not any(child.is_running() for child in children.values())
    assert (tmp_path / "run" / "state.safetensors").exists()


@pytest.mark.slow
def test_a_mistake_is_said_once(training, tmp_path, capfd):
    words = [*training, "--output-dir", str(tmp_path / "run"), "--num-processes", "2"]
    assert main([*words, "--setup", "lora-dreambooth"]) == 2
    err = capfd.readouterr().err
    assert len(re.findall("Cannot use 2 processes with setup", err)) == 1
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
