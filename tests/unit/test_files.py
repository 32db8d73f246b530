from __future__ import annotations

import errno
import json
import math
import os

import pytest

from oneword import _files
from oneword._files import OutputError, check_writable, write_atomic, write_json_atomic


def test_a_file_is_replaced_as_a_whole_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "file.bin"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="must be writable, got: No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "numbers.json"
    write_json_atomic(path, {"a": [1.5, math.nan, math.inf], 2: {"b": -math.inf}})
    assert json.loads(path.read_text()) == {"a": [1.5, None, None], "2": {"b": None}}


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(OutputError, match="is a file; pass another --output-dir"):
        check_writable(path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(_files.tempfile, "mkstemp", denied)
    with pytest.raises(OutputError, match="must be writable, got: Permission denied"):
        check_writable(tmp_path)


def test_a_writable_folder_stays_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
