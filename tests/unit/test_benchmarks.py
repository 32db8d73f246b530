"""What the benchmarks say of a process is that process's own."""

from __future__ import annotations

import math
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from oneword.microworld import weights


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


@pytest.fixture
def curves(common):
    import samples_to_quality

    return samples_to_quality


@pytest.mark.parametrize("cut_out", [0, 2])
def test_settings_are_compared_on_a_model_of_the_second_world(
    curves, wide_model, cut_out, tmp_path
):
    pytest.importorskip("skia")
    variants = ("default", "backgrounds-none") if cut_out else ("three-vectors", "tags")
    arguments = curves.Arguments(
        model=wide_model, names=("penguin",), seeds=(3,), variants=variants, marks=(8, 16),
        num_images=1, num_edit_images=0, cut_out=cut_out, json=tmp_path / "rows.json",
    )  # fmt: skip
    part = [(3, "penguin", variant) for variant in variants]
    runs = curves._learn_and_score(arguments, math.inf, part)
    assert [run["variant"] for run in runs] == list(variants)
    for run in runs:
        assert set(run["reached"]) == {"8", "16"}
        assert run["seen"]["16"] in (0, 1)
    table = curves._table(arguments, runs, "reached")
    assert all(f"| {variant} |" in table for variant in variants)
    assert ("2 cut out" if cut_out else "5 pictures") in curves._notes(arguments, runs)
    told = {"model": wide_model, "world": 2} | ({"cut_out": 2} if cut_out else {})
    assert told.items() <= curves._settings(arguments).items()


def test_backgrounds_need_transparency(curves, wide_model, monkeypatch):
    words = ["x", "--model", wide_model, "--variants", "default", "backgrounds-none"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="pass --cut-out 1 or more"):
        curves.main()
    monkeypatch.setattr(sys, "argv", [*words[:3], "--names", "gold-mugg"])
    with pytest.raises(SystemExit, match=r"--names takes .*; given was gold-mugg"):
        curves.main()


def test_rows_say_whose_weights_they_are_of(common, wide_model):
    ((name, version),) = common.weights_of(wide_model, None, "no-model").items()
    assert name == Path(wide_model).name
    assert version == weights.version(wide_model)
