"""The example scripts run, on the small sibling of the embedded model and with few steps."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from oneword.concepts import formats


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path):
    def script(name, **options):
        main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
        main(model="microworld-nano", max_train_steps=2, folder=tmp_path, **options)
        return tmp_path

    return script


def test_generate(run):
    folder = run("generate", num_images=4)
    page = (folder / "gallery.html").read_text()
    assert page.count("<img src=") == 4 * (9 + 5 + 1)
    assert "&lt;mug&gt; and &lt;neon&gt;" in page
    assert len(list((folder / "kept").glob("0*.png"))) == 15


def test_compose(run):
    assert len(list(run("compose", num_images=2).glob("0*.png"))) == 4


def test_debias(run, capsys):
    folder = run("debias", num_images=4)
    out = capsys.readouterr().out
    assert "skin: evenness" in out
    assert "doctor | <fair> | gain" in out
    assert formats.load_concept(folder / "run").placeholder_token == "<fair>"


def test_share(run):
    folder = run("share")
    assert "license: cc0-1.0" in (folder / "README.md").read_text()
    assert (folder / "preview.png").is_file()


def test_editing(run):
    folder = run("editing", num_images=2)
    found = [len(list((folder / n).glob("0*.png"))) for n in ("mask", "strength", "inverted")]
    assert found == [2, 2, 1]
    assert (folder / "editing.png").is_file()
