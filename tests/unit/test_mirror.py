"""A run folder's copy elsewhere: never half of one, never an old one over a new one."""

from __future__ import annotations

import uuid

import fsspec
import pytest

from oneword.runs.mirror import Mirror, MirrorError


@pytest.fixture
def url() -> str:
    return f"memory://runs/{uuid.uuid4()}"


def fill(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def content(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_text()
        for p in folder.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }


def test_another_machine_takes_the_folder_up_and_gives_it_back(url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    fill(here, config="a", state="1", previews__one="p")
    Mirror(url).push(here)
    assert Mirror(url).pull(there)
    assert content(there) == {"config": "a", "state": "1", "previews/one": "p"}
    fill(there, state="2")
    Mirror(url).push(there)
    (here / "stale").write_text("x")
    assert Mirror(url).pull(here)
    assert content(here) == content(there)
    assert not Mirror(url).pull(here)


def test_a_folder_that_is_further_is_left_alone(url, tmp_path):
    fill(tmp_path / "run", state="1")
    mirror = Mirror(url)
    mirror.push(tmp_path / "run")
    fill(tmp_path / "run", state="2")  # the machine died before it could copy this
    assert not Mirror(url).pull(tmp_path / "run")
    assert content(tmp_path / "run") == {"state": "2"}


def test_a_copy_that_broke_off_leaves_the_one_before(url, tmp_path):
    fill(tmp_path / "run", state="1")
    Mirror(url).push(tmp_path / "run")
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/objects/half", b"sta")
    files.pipe_file(f"{root}/index-00000002.json", b'{"state": "objec')
    assert Mirror(url).pull(tmp_path / "new")
    assert content(tmp_path / "new") == {"state": "1"}


def test_old_states_are_dropped_and_nothing_is_written_twice(url, tmp_path):
    mirror = Mirror(url)
    for i in range(6):
        fill(tmp_path / "run", config="same", state=str(i))
        mirror.push(tmp_path / "run")
    files, root = fsspec.core.url_to_fs(url)
    assert len(files.ls(f"{root}/objects")) == 3  # config, and the state of two indexes
    assert Mirror(url).pull(tmp_path / "new")
    assert content(tmp_path / "new") == {"config": "same", "state": "5"}


def test_the_word_lies_under_its_plain_name(url, tmp_path):
    fill(tmp_path / "run", **{"learned_embeds.safetensors": "rows"})
    Mirror(url).push(tmp_path / "run")
    files, root = fsspec.core.url_to_fs(url)
    assert files.cat_file(f"{root}/learned_embeds.safetensors") == b"rows"


def test_a_location_that_cannot_be_used_is_one_sentence(tmp_path):
    with pytest.raises(MirrorError, match="must be an fsspec URL whose file system is installed"):
        Mirror("nowhere://bucket/run")
    (tmp_path / "file").write_text("x")
    fill(tmp_path / "run", state="1")
    with pytest.raises(MirrorError, match=r"must be readable and writable, got: .*run the same"):
        Mirror(f"file://{tmp_path}/file/run").push(tmp_path / "run")
