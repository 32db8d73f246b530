"""A pipe that nobody reads any more, as of ``oneword VERB | head -1``, ends every verb quietly."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import layouts
from oneword.cli.main import VERBS, main
from oneword.cli.options import READER_GONE


@pytest.fixture
def unread():
    """The end of a pipe that is written to, when the end that is read from is closed."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream:
        yield stream


@pytest.fixture
def training(tiny_folder, tmp_path):
    (tmp_path / "words" / "cat").mkdir(parents=True)
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "words" / "cat" / f"{i}.png")
    return [
        "--model", str(tiny_folder), "--output-dir", str(tmp_path / "run"),
        "--initializer-token", "cat", "--max-train-steps", "2", "--train-batch-size", "2",
        "--num-evaluation-samples", "2", "--validation-steps", "0",
    ]  # fmt: skip


@pytest.mark.parametrize("words", ["--help", "models", *(f"{verb} --help" for verb in VERBS)])
def test_a_process_ends_quietly(words, unread):
    command = [sys.executable, "-m", "oneword.cli.main", *words.split()]
    done = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (READER_GONE, b"")


@pytest.mark.parametrize("verb", ["inspect", "card", "train", "jobs"])
def test_verbs_that_load_something_end_quietly(
    verb, training, unread, tmp_path, monkeypatch, capsys
):
    words = tmp_path / "words"
    command = {
        "inspect": ["concept", "inspect", str(layouts.write("sdxl", tmp_path))],
        "card": ["microworld", "card", "--model", "microworld-nano"],
        "train": ["train", "--dry-run", "--train-data-dir", str(words / "cat"), *training],
        "jobs": ["train", "--dry-run", "--jobs", str(words), *training],
    }[verb]
    monkeypatch.setattr(sys, "stdout", unread)
    assert main(command) == READER_GONE
    assert capsys.readouterr().err == ""


def test_progress_that_nobody_reads_ends_quietly(training, unread, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", unread)
    command = ["train", "--train-data-dir", str(tmp_path / "words" / "cat"), *training]
    assert main(command) == READER_GONE


def test_a_mistake_that_nobody_reads_ends_quietly(unread, monkeypatch):
    monkeypatch.setattr(sys, "stderr", unread)
    assert main(["concept", "inspect", "nowhere.safetensors"]) == READER_GONE


def test_another_broken_pipe_is_an_error(monkeypatch):
    def broken(*_):
        raise BrokenPipeError

    monkeypatch.setattr("oneword.cli.main._follow", broken)
    with pytest.raises(BrokenPipeError):
        main(["models"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", ["--version", "models"])
def test_results_that_a_full_disk_does_not_take_end_in_a_sentence(words):
    command = [sys.executable, "-m", "oneword.cli.main", words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("oneword")
    assert done.stderr.endswith("No space left on device\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_log_that_a_full_disk_does_not_take_ends_no_work(training, tmp_path, monkeypatch):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["train", *training, "--train-data-dir", str(tmp_path / "words" / "cat"),
                     "--placeholder-token", "<x>"]) == 0  # fmt: skip
    assert (tmp_path / "run" / "learned_embeds.safetensors").exists()
