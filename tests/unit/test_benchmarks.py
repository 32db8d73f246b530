"""What the benchmarks say of a process is that process's own."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pytest


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _common

    return _common


def test_a_process_does_not_count_the_peak_of_the_one_that_starts_it(common):
    ours = np.ones(50_000_000)  # 400 MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > ours.nbytes / 1024
    small = common.watched([sys.executable, "-c", "pass"])
    large = common.watched([sys.executable, "-c", "x = bytearray(b'x' * 200_000_000)"])
    assert small.peak_mb < 100
    assert 190 < large.peak_mb < 500


def test_exit_codes_and_times_are_the_commands(common, tmp_path):
    code = "import sys, time; time.sleep(0.3); print('said'); sys.exit(3)"
    with (tmp_path / "log").open("w") as log:
        found = common.watched([sys.executable, "-c", code], stdout=log)
    assert found.status == 3
    assert found.wall_s >= 0.3
    assert 0 < found.cpu_s < found.wall_s
    assert (tmp_path / "log").read_text() == "said\n"
    killed = common.watched([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert killed.status == -9
