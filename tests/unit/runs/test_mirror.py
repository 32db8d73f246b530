"""A run folder's copy elsewhere: never half of one, never an old one over a new one."""

from __future__ import annotations

import json
import os
import uuid

import fsspec
import pytest

from oneword._files import InUseError
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
    fill(here, **{"config.json": "a"}, state="1", previews__one="p")
    Mirror(url).push(here)
    assert Mirror(url).pull(there)
    assert content(there) == {"config.json": "a", "state": "1", "previews/one": "p"}
    fill(there, state="2")
    Mirror(url).push(there)
    assert Mirror(url).pull(here)
    assert content(here) == content(there)
    assert not Mirror(url).pull(here)
    (there / "previews/one").unlink()
    Mirror(url).push(there)
    (here / "notes").write_text("mine")
    assert Mirror(url).pull(here)
    assert content(here) == {**content(there), "notes": "mine"}


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


def test_another_word_of_the_same_length_takes_its_place(url, tmp_path):
    files, root = fsspec.core.url_to_fs(url)
    for text in ("rows", "cols"):
        fill(tmp_path / "run", **{"learned_embeds.safetensors": text})
        Mirror(url).push(tmp_path / "run")
        assert files.cat_file(f"{root}/learned_embeds.safetensors") == text.encode()


def test_what_is_asked_of_a_run_here_is_not_asked_elsewhere(url, tmp_path):
    words = {"learned_embeds-steps-5.safetensors": "rows", "config.json": "a"}
    fill(tmp_path / "run", **words, **{"save-now": "", "preview-now": ""})
    Mirror(url).push(tmp_path / "run")
    assert Mirror(url).pull(tmp_path / "new")
    assert content(tmp_path / "new") == words


def test_a_location_that_cannot_be_used_is_one_sentence(tmp_path):
    with pytest.raises(MirrorError, match=r"must be an fsspec URL whose file system is installed"):
        Mirror("nowhere://bucket/run")
    (tmp_path / "file").write_text("x")
    fill(tmp_path / "run", state="1")
    with pytest.raises(MirrorError, match=r"Cannot read or write the mirror .*run the same"):
        Mirror(f"file://{tmp_path}/file/run").push(tmp_path / "run")


# --- what is not ours


def published(url, index, stored="objects/" + "a" * 32, data=b"theirs"):
    """A mirror that somebody else wrote."""
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/{stored}", data)
    index = index if isinstance(index, str) else json.dumps(index)
    files.pipe_file(f"{root}/index-00000001.json", index.encode())
    return stored


def test_a_folder_of_other_files_is_left_untouched(url, tmp_path):
    stored = "objects/" + "a" * 32
    published(url, {"config.json": stored})
    fill(tmp_path / "thesis", **{"thesis.tex": "mine", "chapters__one.tex": "mine"})
    with pytest.raises(MirrorError, match="must be empty or contain a run, got other files"):
        Mirror(url).pull(tmp_path / "thesis")
    assert content(tmp_path / "thesis") == {"thesis.tex": "mine", "chapters/one.tex": "mine"}


@pytest.mark.parametrize(
    "name", ["../home/.bashrc", "{tmp}/abs.txt", "a/../../b", "..", "", "a\\b", "link/x"]
)
def test_an_index_cannot_name_files_outside_of_the_folder(name, url, tmp_path):
    published(url, {name.format(tmp=tmp_path): "objects/" + "a" * 32})
    (tmp_path / "home").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    (tmp_path / "run/link").symlink_to(tmp_path / "home")
    with pytest.raises(MirrorError, match="must be that of a file inside"):
        Mirror(url).pull(tmp_path / "run")
    assert not list((tmp_path / "home").iterdir())
    assert {p.name for p in tmp_path.iterdir()} == {"home", "run"}


@pytest.mark.parametrize(
    "stored", ["../../secret", "/etc/passwd", "index-00000001.json", "objects/x/y"]
)
def test_an_index_cannot_fetch_files_from_elsewhere(stored, url, tmp_path):
    published(url, {"config.json": stored})
    with pytest.raises(MirrorError, match="must list only files in its own folder"):
        Mirror(url).pull(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_of_somebodys_in_a_run_folder_is_not_written_over(url, tmp_path):
    published(url, {"config.json": "objects/" + "a" * 32, "notes.txt": "objects/" + "a" * 32})
    fill(tmp_path / "run", **{"config.json": "{}", "notes.txt": "mine"})
    with pytest.raises(MirrorError, match=r"files that oneword did not write.*notes\.txt"):
        Mirror(url).pull(tmp_path / "run")
    assert content(tmp_path / "run") == {"config.json": "{}", "notes.txt": "mine"}


@pytest.mark.parametrize("index", ["[]", '{"a": 1}', "[" * 100_000, "3"])
def test_an_index_of_another_form_does_not_count(index, url, tmp_path):
    published(url, index)
    assert not Mirror(url).pull(tmp_path / "run")


@pytest.mark.parametrize("note", ["[1]", '{"number": 1}', "{", '{"number": 1, "files": [2]}'])
def test_a_note_of_another_form_is_one_sentence(note, url, tmp_path):
    published(url, {"config.json": "objects/" + "a" * 32})
    fill(tmp_path / "run", **{"config.json": "{}", ".mirror.json": note})
    with pytest.raises(MirrorError, match="note of a mirror must be one written by oneword"):
        Mirror(url).pull(tmp_path / "run")


def test_a_note_as_it_was_before_is_read(url, tmp_path):
    published(url, {"config.json": "objects/" + "a" * 32})
    fill(tmp_path / "run", **{"config.json": "{}", ".mirror.json": "1"})
    assert not Mirror(url).pull(tmp_path / "run")


def test_a_foreign_file_among_the_objects_stays(url, tmp_path):
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/objects/holiday.jpg", b"mine")
    for i in range(4):
        fill(tmp_path / "run", state=str(i))
        Mirror(url).push(tmp_path / "run")
    assert files.cat_file(f"{root}/objects/holiday.jpg") == b"mine"


def test_what_a_link_leads_to_is_not_copied(url, tmp_path):
    (tmp_path / "secret").write_text("secret")
    fill(tmp_path / "run", state="1")
    (tmp_path / "run/link").symlink_to(tmp_path / "secret")
    Mirror(url).push(tmp_path / "run")
    assert Mirror(url).pull(tmp_path / "new")
    assert content(tmp_path / "new") == {"state": "1"}


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_mirror_is_refused(empty):
    with pytest.raises(MirrorError, match=r"must be an fsspec URL of a folder.*got an empty one"):
        Mirror(empty)


def test_a_second_machine_that_writes_is_noticed_and_writes_no_more(url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    first, second = Mirror(url), Mirror(url)
    fill(here, **{"config.json": "a"}, state="1")
    first.push(here)
    second.pull(there)
    fill(there, state="2")
    second.push(there)
    fill(here, state="3")
    with pytest.raises(InUseError, match=r"another machine wrote to it .its index 2"):
        first.push(here)
    assert Mirror(url).pull(tmp_path / "third")
    assert content(tmp_path / "third")["state"] == "2"
    first.files.pipe_file(f"{first.root}/index-00000002.json", b"{}")  # both at the same moment
    with pytest.raises(InUseError, match="another machine wrote to it"):
        second.push(there)


def test_half_an_object_of_a_killed_push_is_written_again(tmp_path):
    url = f"file://{tmp_path}/store"
    fill(tmp_path / "run", **{"config.json": "a"}, state="whole")
    Mirror(url).push(tmp_path / "run")
    (stored,) = (p for p in (tmp_path / "store" / "objects").iterdir() if p.read_text() == "whole")
    stored.write_text("wh")
    fill(tmp_path / "run", more="1")
    Mirror(url).push(tmp_path / "run")
    assert Mirror(url).pull(tmp_path / "other")
    assert content(tmp_path / "other")["state"] == "whole"


def test_a_mirror_that_stands_is_not_written_anew(tmp_path):
    url = f"file://{tmp_path}/store"
    fill(tmp_path / "run", **{"config.json": "a"})
    mirror = Mirror(url)
    mirror.push(tmp_path / "run")
    before = sorted(p.name for p in (tmp_path / "store").rglob("*"))
    mirror.push(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "store").rglob("*")) == before


def test_a_mirror_on_this_machine_is_locked(tmp_path):
    first, second = (Mirror(f"file://{tmp_path}/store") for _ in range(2))
    first.claim()
    with pytest.raises(InUseError, match="another process is working there"):
        second.claim()
    first.release()
    second.claim()
    second.release()
    assert not (tmp_path / "store").exists()  # nothing was put there


def test_a_pull_that_was_killed_is_done_again(url, tmp_path, monkeypatch):
    fill(tmp_path / "run", **{"README.md": "a card", "config.json": "a"}, state="1")
    Mirror(url).push(tmp_path / "run")
    real, calls = os.replace, []

    def killed(source, target):
        calls.append(target)
        if len(calls) > 2:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Mirror(url).pull(tmp_path / "other")
    assert content(tmp_path / "other").keys() == {"config.json", "README.md"}
    assert Mirror(url).pull(tmp_path / "other")
    assert content(tmp_path / "other") == content(tmp_path / "run")
