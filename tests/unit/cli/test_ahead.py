"""Reading a model's files ahead: which ones, and that the system then has them."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest

from oneword.cli import ahead
from oneword.cli.ahead import read_ahead
from oneword.config.model import ModelConfig


asks_the_system = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="asks the system")


@pytest.fixture
def folder(tmp_path):
    names = ("unet/a.safetensors", "unet/a.fp16.safetensors", "vae/b-00001-of-00002.safetensors",
             "vae/b.json", "text_encoder/c.bin")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 100)
    return tmp_path


def asked(monkeypatch, **model):
    found = []
    monkeypatch.setattr(ahead, "_ask", found.extend)
    if thread := read_ahead(ModelConfig(**model)):
        thread.join()
    return found


@asks_the_system
@pytest.mark.parametrize(
    ("variant", "names"),
    [
        (None, ["unet/a.safetensors", "vae/b-00001-of-00002.safetensors"]),
        ("fp16", ["unet/a.fp16.safetensors"]),
    ],
)
def test_the_files_of_the_variant_are_read(variant, names, folder, monkeypatch):
    found = asked(monkeypatch, model=str(folder), variant=variant)
    assert [path.relative_to(folder).as_posix() for path in found] == names


@asks_the_system
def test_a_single_file_is_read_and_one_that_is_not_there_is_not(folder, monkeypatch):
    file = folder / "unet" / "a.safetensors"
    assert asked(monkeypatch, model=str(file)) == [file]
    assert asked(monkeypatch, model="microworld") == []
    assert asked(monkeypatch, model=str(folder / "nowhere")) == []
    assert asked(monkeypatch, model="owner/not-here") == []
    assert asked(monkeypatch, model="a\0b") == []


@asks_the_system
@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME"])
@pytest.mark.parametrize("revision", [None, "abc"])
def test_a_model_of_the_hub_is_read_where_its_client_keeps_it(
    variable, revision, tmp_path, monkeypatch
):
    for name in ("HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    cache = tmp_path if variable == "HF_HUB_CACHE" else tmp_path / "hub"
    own = cache / "models--owner--name"
    file = own / "snapshots" / "abc" / "unet" / "a.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    (own / "refs").mkdir()
    (own / "refs" / "main").write_text("abc\n")
    assert asked(monkeypatch, model="owner/name", revision=revision) == [file]


@asks_the_system
def test_no_more_is_read_than_half_of_the_free_memory_holds(folder, monkeypatch):
    class Memory:
        available = 350

    monkeypatch.setattr(ahead.psutil, "virtual_memory", Memory)
    assert len(asked(monkeypatch, model=str(folder))) == 1


def held(path: Path) -> float:
    """The share of a file that is in the system's cache."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as pages:
        place = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        marks = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        libc = ctypes.CDLL(None, use_errno=True)
        code = libc.mincore(ctypes.c_void_p(place), ctypes.c_size_t(size), marks)
        assert code == 0
        return sum(mark & 1 for mark in marks) / len(marks)


@asks_the_system
def test_what_was_asked_for_is_in_the_systems_cache(tmp_path):
    file = tmp_path / "unet" / "a.safetensors"
    file.parent.mkdir()
    with file.open("wb") as stream:
        stream.write(os.urandom(2**23))
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if held(file) > 0.5:
        pytest.skip("this file system lets go of nothing")
    thread = read_ahead(ModelConfig(model=str(tmp_path)))
    assert thread is not None
    thread.join()
    until = time.monotonic() + 20
    while held(file) < 0.9 and time.monotonic() < until:  # the system reads on by itself
        time.sleep(0.05)
    assert held(file) >= 0.9
