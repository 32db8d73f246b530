from __future__ import annotations

import errno
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oneword import _files
from oneword._files import (
    LOCK,
    InputError,
    InUseError,
    OutputError,
    check_writable,
    hold,
    is_there,
    leftovers,
    read_bytes,
    read_json,
    read_lines,
    read_text,
    sweep,
    visible,
    within,
    write_atomic,
    write_json_atomic,
    write_together,
)
from oneword.errors import UserError


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


# --- names from outside


@pytest.mark.parametrize(
    "name", ["cat", "previews/step-000010.png", "ä/日本.png", ".hidden", "ab:c"]
)
def test_a_name_inside_a_folder_is_taken(name, tmp_path):
    assert within(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "nothing"),
        (None, "nothing"),
        (3, "nothing"),
        ("..", "leads elsewhere"),
        (".", "leads elsewhere"),
        ("a/../../b", "leads elsewhere"),
        ("../home/.bashrc", "leads elsewhere"),
        ("/etc/passwd", "leads elsewhere"),
        ("a//b", "leads elsewhere"),
        ("C:x", "a drive"),
        ("..\\x", "a backslash"),
        ("a\nb", "control characters"),
        ("a\0b", "control characters"),
        ("é" * 128, "too long"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name, why, tmp_path):
    with pytest.raises(InputError, match=f"must be that of a file inside .*{why}"):
        within(tmp_path, name)


def test_a_link_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="a link that leads elsewhere"):
        within(tmp_path / "run", "link/file")


def test_a_name_that_no_file_can_have_is_that_of_nothing(tmp_path):
    assert not is_there(tmp_path / ("x" * 5000))
    assert not is_there(tmp_path / "x\0")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    assert is_there(tmp_path / "broken")


# --- reading


def special(path, kind):
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "4 bytes, more than 3 bytes":
        path.write_bytes(b"1234")
    elif kind == "more than 3 bytes":
        path.symlink_to("/proc/self/status")  # says that it is empty


@pytest.mark.parametrize(
    "kind",
    [
        "a FIFO", "a socket", "a folder", "a device", "4 bytes, more than 3 bytes",
        "more than 3 bytes", "No such file or directory",
    ],
)  # fmt: skip
def test_only_regular_files_of_a_bounded_size_are_read(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    special(Path("x"), kind)
    with pytest.raises(UserError, match=rf"The thing must be readable, got x \({kind}\)"):
        read_bytes(Path("x"), most=3, must="The thing must be readable")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_the_encodings_that_say_themselves(encoding, tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("a café\r\nwith \u2028 in it\rend".encode(encoding))
    assert read_text(path) == "a café\nwith \u2028 in it\nend"
    assert read_lines(path) == ["a café", "with \u2028 in it", "end"]
    path.write_bytes(b"")
    assert read_lines(path) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("one\na café".encode("cp1252"), r"x.txt must be .*0xe9 in line 2\); save it as UTF-8"),
        ("a cat".encode("utf-16-le"), "NUL bytes"),
        (b"\xff\xfea", "another encoding"),
    ],
)
def test_other_encodings_are_named(data, message, tmp_path):
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_text(tmp_path / "x.txt")


FORM = {"a": str, "b?": [int], "c?": {str: (float, type(None))}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 200_000, "nested too deeply"),
        ("9" * 5000, "digits"),
        ("[]", r"it must be an object, got \[\]"),
        ("{}", "it has no 'a'"),
        ('{"a": 1}', r"it\['a'\] must be a string, got 1"),
        ('{"a": "", "b": [1, true]}', r"it\['b'\]\[1\] must be a whole number, got True"),
        ('{"a": "", "c": {"x": "1"}}', r"it\['c'\]\['x'\] must be a number or null, got '1'"),
    ],
)
def test_json_of_another_form_is_one_sentence(text, message, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "x.json", FORM)


def test_json_of_the_form_is_returned(tmp_path):
    value = {"a": "x", "b": [1], "c": {"d": 1, "e": 0.5, "f": None}, "more": []}
    (tmp_path / "x.json").write_text(json.dumps(value), encoding="utf-8-sig")
    assert read_json(tmp_path / "x.json", FORM) == value


# --- what killed writers leave


def test_left_behind_files_are_swept_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: os._exit)  # as if killed before it
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    write_atomic(tmp_path / "previews" / ("é" * 120), b"half")
    check_writable(tmp_path)
    monkeypatch.undo()
    for name in (".DS_Store", ".config.json.bak", "cat.oneword"):
        (tmp_path / name).write_text("mine")
    assert len(list(leftovers(tmp_path))) == 2
    assert [p.name for p in visible(tmp_path / "previews")] == []
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        ".DS_Store", ".config.json.bak", "cat.oneword", "previews",
    ]  # fmt: skip


def test_a_full_disk_leaves_no_probe(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OutputError, match="must be writable, got: No space left"):
        check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_of_writers_at_work_are_not_swept(tmp_path):
    handle, name = _files._temporary(tmp_path, ".state.", ".oneword")
    check_writable(tmp_path)
    assert name.exists()
    os.close(handle)  # as the system does when the process dies
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_all_files_of_a_call_are_written_or_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/below must be writable, got"):
        write_together({tmp_path / "first": b"1", tmp_path / "file" / "below": b"2"})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    write_together({tmp_path / "first": b"1", tmp_path / "sub" / "second": b"2"})
    assert (tmp_path / "first").read_bytes() + (tmp_path / "sub" / "second").read_bytes() == b"12"


def test_a_limit_in_the_middle_of_a_file_leaves_the_old_one(tmp_path):
    resource = pytest.importorskip("resource")
    write_atomic(tmp_path / "state", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OutputError, match="must be writable, got: File too large; make room"):
            write_together({tmp_path / "small": b"1", tmp_path / "state": bytes(8192)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "state").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


# --- one writer at a time


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    with hold(tmp_path / "run"):
        with pytest.raises(
            InUseError, match=rf"another process is working there \(process {os.getpid()}"
        ):
            hold(tmp_path / "run", wait_s=0)
        with hold(tmp_path):  # a folder above is another folder
            pass
    assert list((tmp_path / "run").iterdir()) == []
    hold(tmp_path / "run", wait_s=0).release()


def test_a_lock_ends_with_its_process_and_holds_nobody_up(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from oneword._files import hold\n"
        "kept = hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InUseError, match=f"process {process.pid} on"):
            hold(tmp_path, wait_s=0)
        assert [p.name for p in leftovers(tmp_path)] == [LOCK]
        check_writable(tmp_path)  # sweeps, and leaves the lock of a process at work
        assert [p.name for p in leftovers(tmp_path)] == [LOCK]
        process.kill()
        process.communicate()
    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", [True, False])
def test_locks_that_killed_writers_left_are_swept(below, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / LOCK).touch()
    with hold(tmp_path, below=below):
        assert (tmp_path / "runs" / LOCK).exists() is not below


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="has no locks"):
        held = hold(tmp_path)
    write_atomic(tmp_path / "x", b"1")
    held.release()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_cannot_be_made_cannot_be_held(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file; pass another"):
        hold(tmp_path / "file")
    with pytest.raises(OutputError, match="must be writable, got: Not a directory"):
        hold(tmp_path / "file" / "below")


def test_a_file_that_could_not_be_written_is_refused_and_nothing_is_made(tmp_path):
    _files.check_target(tmp_path / "new" / "folder" / "file.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    for path, reason in (
        (tmp_path, "a folder"),
        (tmp_path / "file" / "below.json", "where a folder is needed"),
        (tmp_path / ("long" * 100), "File name too long"),
    ):
        with pytest.raises(_files.OutputError, match=f"must be a file .* got .*{reason}"):
            _files.check_target(path)
