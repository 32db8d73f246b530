"""How a command begins: what it does before and while the libraries load."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import pytest

from oneword.cli import ahead
from oneword.cli.main import main


AT_TORCH = """
import gc, json, sys

class AtTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(json.dumps(gc.isenabled()))
            sys.meta_path.remove(self)

sys.meta_path.insert(0, AtTorch())
from oneword.cli.main import main
main(["concept", "inspect", "/no/file"])
print(json.dumps(gc.isenabled()))
print(json.dumps("diffusers.pipelines.auto_pipeline" in sys.modules))
"""


@pytest.mark.slow
def test_garbage_is_not_looked_for_while_the_libraries_load():
    done = subprocess.run(
        [sys.executable, "-c", AT_TORCH], stdout=subprocess.PIPE, text=True, check=True
    )
    assert [json.loads(line) for line in done.stdout.split()] == [False, True, False]
    assert gc.isenabled()


def test_a_family_loads_without_the_pipelines_of_all_others():
    code = """
import sys
from oneword.catalog import FAMILIES
FAMILIES["stable_diffusion"].imported()
print([name for name in sys.modules if name.startswith("diffusers.pipelines.")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert "stable_diffusion" in done.stdout
    for other in ("auto_pipeline", "audioldm2", "kandinsky", "stable_diffusion_3"):
        assert f"diffusers.pipelines.{other}" not in done.stdout


def test_the_models_files_are_read_meanwhile(tiny_folder, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(ahead, "_ask", found.extend)
    (tmp_path / "photos").mkdir()
    command = ["train", "--train-data-dir", str(tmp_path / "photos"), "--model", str(tiny_folder)]
    assert main([*command, "--output-dir", str(tmp_path / "run")]) == 2  # there are no pictures
    expected = {*tiny_folder.glob("*/*.safetensors")}
    assert expected
    if hasattr(ahead.os, "posix_fadvise"):
        assert {*found} == expected
