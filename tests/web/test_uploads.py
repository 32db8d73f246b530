"""What the server keeps for open tabs, and when it is deleted."""

from __future__ import annotations

import json
import time

import pytest
from PIL import Image


pytest.importorskip("gradio")
from oneword.web.uploads import DAY_S, Uploads
from oneword.web.workspace import Workspace


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "web")


@pytest.fixture
def uploads(workspace, clock):
    return Uploads(workspace.uploads, workspace.words, clock=clock)


@pytest.fixture
def upload(workspace):
    """A file as gradio puts it there, in a folder named by its content."""
    path = workspace.uploads / "ab" / "mug.png"
    path.parent.mkdir()
    Image.effect_noise((400, 200), 90).save(path)
    return path


def test_a_file_goes_when_the_tabs_of_its_time_have_gone(uploads, upload, clock):
    uploads.heard("mine")
    clock.now += 0.9 * DAY_S
    uploads.heard("mine")
    clock.now += 0.9 * DAY_S  # the file is older than a day
    uploads.heard("another")
    uploads.sweep()
    assert upload.is_file()  # the tab was heard of less than a day ago
    clock.now += 0.2 * DAY_S
    uploads.heard("another")  # which sweeps once an hour
    assert not upload.parent.exists()


def test_a_young_file_stays_without_a_tab(uploads, upload, clock):
    clock.now += 0.9 * DAY_S
    uploads.sweep()
    assert upload.is_file()
    clock.now += 0.2 * DAY_S
    uploads.sweep()
    assert not upload.parent.exists()


def test_what_a_run_names_stays(uploads, upload, clock, workspace):
    run = workspace.words / "mug"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"config": {"picture": str(upload)}}))
    clock.now += 2 * DAY_S
    uploads.sweep()
    assert upload.is_file()
    (run / "config.json").write_bytes(b"\xff\xfe\xfa")  # it may name anything
    uploads.sweep()
    assert upload.is_file()
    (run / "config.json").write_text("{}")
    uploads.sweep()
    assert not upload.exists()


def test_what_was_taken_from_an_upload_stays(uploads, upload, clock, workspace, tmp_path):
    number = workspace.new_draft()
    workspace.take(number, [upload], most=5)
    kept = workspace.keep(number, "mug")
    (workspace.uploads / "link").symlink_to(kept)
    (workspace.drawings / "one.png").write_bytes(b"x")
    clock.now += 2 * DAY_S
    uploads.sweep()
    assert list(workspace.uploads.iterdir()) == []
    assert [path.name for path in workspace.listed(number)] == ["mug.png"]
    assert (kept / "mug.png").is_file()
    assert (workspace.drawings / "one.png").is_file()


def test_a_small_picture_is_made_once(uploads, upload, clock):
    first = uploads.small(upload)
    with Image.open(first) as picture:
        assert picture.size == (320, 160)
    data = first.read_bytes()
    first.write_bytes(b"as it was")
    assert uploads.small(upload) == first
    assert first.read_bytes() == b"as it was"
    Image.effect_noise((500, 100), 90).save(upload)
    assert uploads.small(upload) != first
    blank = uploads.small(None)
    upload.write_text("no picture")
    assert uploads.small(upload).read_bytes() == blank.read_bytes() != data
    clock.now += 2 * DAY_S
    uploads.sweep()
    assert not blank.exists()
    assert uploads.small(None) == blank
    assert blank.is_file()
