"""The catalog: one record a family, and everything else made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

import oneword
import pages
from oneword.catalog import FAMILIES, of_pipeline, of_single_file, text_encoders


def test_every_record_has_its_file_and_every_file_its_record():
    folder = Path(oneword.__file__).parent / "models" / "families"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == {name for name, family in FAMILIES.items() if not family.module}


def test_a_pipeline_class_belongs_to_one_family():
    names = [name for family in FAMILIES.values() for name in family.pipelines]
    assert len(names) == len(set(names))
    assert all(name in of_pipeline(name).pipelines for name in names)
    assert of_pipeline("NoPipeline") is None


def test_a_layout_of_single_files_belongs_to_one_family():
    starts = [start for family in FAMILIES.values() for start in family.single_files]
    for start in starts:
        holders = [f.name for f in FAMILIES.values() if start.startswith(f.single_files)]
        assert holders == [of_single_file(start).name]
    assert of_single_file("no-layout") is None


def test_a_key_and_a_width_mean_one_text_encoder():
    encoders = text_encoders()
    assert len({(e.key, e.width) for e in encoders}) == len(encoders)
    by_width = [e.width for e in encoders if e.by_width]
    assert len(by_width) == len(set(by_width))


@pytest.mark.parametrize("family", list(FAMILIES.values()), ids=FAMILIES)
def test_what_a_record_says_in_words_agrees_with_its_keys(family):
    keys = {encoder.key for encoder in family.text_encoders}
    assert keys >= {*family.told_by}
    assert next(iter(keys)).partition("_")[0] in family.reads_in_words
    assert family.draws[0] == "from noise"
    assert family.examples


@pytest.mark.parametrize("page", [*pages.pages()], ids=lambda page: page.name)
def test_what_the_pages_say_of_the_families_is_the_catalogs(page):
    """``python tests/pages.py`` writes it."""
    text = page.read_text()
    assert text == pages.written(text)


def test_every_block_has_a_page():
    assert {name for page in pages.pages() for name in pages.names(page.read_text())} == {
        *pages.BLOCKS
    }
