"""Reading a model's files ahead: which ones, and that the system then has them."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
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


# --- the Hub


@pytest.fixture
def asked_of_the_system(monkeypatch):
    """What names are looked up, none of which is known; and the client's switch put back."""
    names = []

    def unknown(name, port):
        names.append(name)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    # set first, so that what the function sets is undone
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield names
    ahead.AWAY.clear()


def looked(**chosen):
    thread = ahead.look_for_hub(SimpleNamespace(**(chosen or {"model": ModelConfig(model="a/b")})))
    if thread is not None:
        thread.join()
    return thread


def test_a_hub_that_cannot_be_reached_is_not_waited_for(asked_of_the_system, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8080/hub")
    assert looked()
    assert asked_of_the_system == ["mirror.example"]
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert huggingface_hub.is_offline_mode()
    assert ahead.AWAY.is_set()


def test_a_hub_that_is_known_or_that_a_proxy_knows_is_asked(asked_of_the_system, monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert looked() is None
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda _name, _port: [])
    assert looked()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert looked() is None
    assert not asked_of_the_system
    assert not huggingface_hub.is_offline_mode()
    assert not ahead.AWAY.is_set()


def test_no_name_is_looked_up_for_what_needs_nothing_from_the_hub(asked_of_the_system):
    for model in ("microworld", "microworld-nano", "auto"):
        assert looked(model=ModelConfig(model=model), judge=None) is None
    assert looked(files=()) is None
    assert not asked_of_the_system
    assert looked(model=ModelConfig(), judge="owner/clip")
    assert asked_of_the_system == ["huggingface.co"]
