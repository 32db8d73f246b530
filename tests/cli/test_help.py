"""Every ``--help`` says what its page in ``docs/reference/cli`` says."""

from __future__ import annotations

import pytest

import help_pages


PAGES = dict(help_pages.commands())


@pytest.mark.parametrize("name", PAGES)
def test_help_is_what_its_page_says(name):
    told = help_pages.page(PAGES[name])
    kept = (help_pages.FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert told == kept, "`make help-pages` writes the pages anew"


def test_every_page_belongs_to_a_command():
    assert {path.stem for path in help_pages.FOLDER.iterdir()} == PAGES.keys()
