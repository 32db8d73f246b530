"""Every ``--help`` says what its page in ``docs/reference/cli`` says, and comes without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import help_pages


PAGES = dict(help_pages.commands())
ALL_AT_ONCE = """
import json, sys, help_pages
pages = {name: help_pages.page(words) for name, words in help_pages.commands()}
print(json.dumps([pages, [*sys.modules]]))
"""


@pytest.fixture(scope="module")
def told():
    """All pages, and the modules that are loaded then, of a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE], cwd=Path(help_pages.__file__).parent,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", PAGES)
def test_help_is_what_its_page_says(name, told):
    kept = (help_pages.FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert told[0][name] == kept, "`make help-pages` writes the pages anew"


def test_help_loads_no_library_that_takes_long(told):
    assert not {"torch", "diffusers", "transformers", "rich", "numpy", "PIL"} & {*told[1]}


def test_every_page_belongs_to_a_command():
    assert {path.stem for path in help_pages.FOLDER.iterdir()} == PAGES.keys()
