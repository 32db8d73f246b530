"""Files that once were found to be hard to read: each gives an error of ours, in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import fuzz_formats
from oneword.errors import UserError


FILES = sorted((Path(__file__).parents[1] / "hostile").iterdir())


def test_every_reader_has_files():
    assert {path.name.partition("-")[2] for path in FILES} == {*fuzz_formats.READERS}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_hostile_file_is_refused_in_a_sentence(path, tmp_path):
    read = fuzz_formats.READERS[path.name.partition("-")[2]]
    started = time.monotonic()
    with pytest.raises(UserError) as refused:
        read(tmp_path, path.read_bytes())
    assert str(refused.value).strip()
    assert time.monotonic() - started < fuzz_formats.LIMIT_S
