"""A busy machine: how OpenMP's threads wait, and how many there are."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from oneword.runs import threads
from oneword.runs.folder import RunFolder


NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
AT_TORCH = """
import json, os, sys

class AtTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            names = json.loads(sys.argv[1])
            print(json.dumps({n: os.environ[n] for n in names if n in os.environ}))
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, AtTorch())
from oneword.cli.main import main
main(sys.argv[2:])
"""
"""Prints the environment when torch is about to be loaded, and ends."""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The process's own number of threads, and an environment in which nobody chose one."""
    for name in (*NAMES, *COUNTS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_is_ours", False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def told(words, **given):
    command = [sys.executable, "-c", AT_TORCH, json.dumps(NAMES), *words]
    done = subprocess.run(
        command, env=os.environ | given, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "words",
    [
        ["demo"], ["train", "--train-data-dir", "p"], ["train", "--jobs", "p"],
        ["generate", "--prompts", "a"], ["concept", "inspect", "a"], ["microworld", "train"],
    ],
)  # fmt: skip
def test_the_command_line_bounds_the_spinning_before_torch_is_loaded(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told(words) == {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_is_left_alone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told(["demo"], **{name: "x"}) == {name: "x"}


ROOT = Path(__file__).parents[3]
APART = {"_briefly.py", "_common.py", "vs_diffusers.py"}
"""What does it, what is imported after it, and what starts others as they are."""


def test_the_tests_bound_it_too():
    path = ROOT / "tests" / "shared.py"
    code = f"sys.path.insert(0, {str(path.parent)!r})\nimport runpy; runpy.run_path({str(path)!r})"
    command = [sys.executable, "-c", AT_TORCH.rpartition("from oneword.cli")[0] + code]
    done = subprocess.run(
        [*command, json.dumps(NAMES)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(done.stdout)["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.name)
def test_every_benchmark_bounds_it_first(path):
    imports = [
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]
    first = next(name for name in imports if name != "__future__")
    assert first == "_briefly" or path.name in APART


# --- how many


@pytest.mark.parametrize(
    ("given", "cores", "busy", "fitting"),
    [
        (8, 8, 0.0, 8),
        (8, 8, 0.4, 8),
        (8, 8, 1.1, 7),
        (8, 8, 2.6, 5),
        (8, 8, 4.0, 8),  # half a machine is as fast as a whole one that is shared
        (8, 8, 8.0, 8),
        (2, 2, 1.0, 2),
        (2, 64, 20.0, 2),  # the others have cores of their own
        (1, 8, 8.0, 1),
        (4, 4, 1.0, 3),
    ],
)
def test_threads_leave_busy_cores_to_others(given, cores, busy, fitting):
    assert threads.num_fitting(given, cores, busy) == fitting


@pytest.mark.parametrize(
    ("text", "quota", "fitting"),
    [("200000 100000", 2.0, 2), ("50000 100000", 0.5, 1), ("max 100000", None, 8), ("", None, 8)],
)
def test_a_container_has_as_many_threads_as_it_may_use(text, quota, fitting, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    assert threads.quota() == quota
    assert threads.num_fitting(8, 8, 0.0, threads.quota()) == fitting
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "nothing")
    assert threads.quota() is None


def times(monkeypatch, *values):
    """Let the clock, the machine's busy time and our own be those values, one after the other."""
    found = iter(values)
    monkeypatch.setattr(threads, "_now", lambda: next(found))


def test_what_others_keep_busy_is_all_but_our_own(monkeypatch):
    times(monkeypatch, (10.0, 100.0, 5.0), (14.0, 112.0, 9.0))
    assert threads.OtherWork().cores() == 2.0


def test_niced_processes_and_idle_cores_are_free(monkeypatch):
    kinds = {"user": 1.0, "nice": 2.0, "system": 4.0, "idle": 8.0, "iowait": 16.0, "steal": 32.0,
             "guest": 1.0, "guest_nice": 2.0}  # fmt: skip
    found = namedtuple("found", kinds)(**kinds)
    monkeypatch.setattr(threads.psutil, "cpu_times", lambda: found)
    assert threads._now()[1] == 1.0 + 4.0 + 32.0


@pytest.mark.parametrize("chosen", [None, *COUNTS])
def test_torch_gets_the_free_ones_unless_the_user_chose(chosen, monkeypatch):
    if chosen is not None:
        monkeypatch.setenv(chosen, "4")
    monkeypatch.setattr(threads.psutil, "cpu_count", lambda: 4)
    torch.set_num_threads(4)
    times(monkeypatch, (0.0, 0.0, 0.0), (1.0, 2.0, 1.0))
    threads.OtherWork().leave_room()
    assert torch.get_num_threads() == (3 if chosen is None else 4)


@pytest.mark.parametrize("count", [1, 3, 10**9, 0])
def test_a_resumed_run_has_the_threads_it_began_with(count, tmp_path, monkeypatch):
    monkeypatch.setattr(threads.psutil, "cpu_count", lambda: 4)
    folder = RunFolder(tmp_path, steps=1)
    folder.write_record({"kind": "train"})
    record = json.loads(folder.record.read_text())
    assert record == {"kind": "train", "threads": torch.get_num_threads()}
    folder.record.write_text(json.dumps({"threads": count}))
    torch.set_num_threads(2)
    folder.as_begun()
    assert torch.get_num_threads() == 2  # the number is not ours to change
    monkeypatch.setattr(threads, "_is_ours", True)
    folder.as_begun()
    assert torch.get_num_threads() == (count if count in (1, 3) else 2)
    folder.record.write_text("{}")  # of an older version
    folder.as_begun()
