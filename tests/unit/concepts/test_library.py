"""A folder of words: the index follows the files, and nothing that is deleted is lost."""

from __future__ import annotations

import sqlite3

import pytest
import torch

from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.library import INDEX, Library, LibraryError
from oneword.errors import ConfigError


def put(root, name, token="<cat>", value=0.5, **provenance):
    concept = Concept(
        placeholder_token=token,
        rows={"clip_l": torch.full((2, 768), value)},
        provenance={"base_model": "some/model", "steps": 7, "loss": 0.25} | provenance,
    )
    formats.save_concept(concept, root / name / formats.LEARNED)


@pytest.fixture
def library(tmp_path):
    put(tmp_path, "cat")
    put(tmp_path, "dog", "<dog>", config={"learnable_property": "style"})
    return Library(tmp_path)


def names(library, search=""):
    return [entry.name for entry in library.entries(search)]


def test_what_is_listed_is_what_the_files_hold(library):
    cat, dog = library.entries()
    assert (cat.name, cat.tokens, cat.num_vectors) == ("cat", ("<cat>",), 2)
    assert (cat.base_model, cat.steps, cat.loss, cat.kind) == ("some/model", 7, 0.25, "object")
    assert dog.kind == "style"


def test_a_search_wants_each_of_its_words(library):
    assert names(library, "some cat") == ["cat"]
    assert names(library, "STYLE") == ["dog"]
    assert names(library, "cat dog") == []


def test_the_index_follows_the_files(library, tmp_path, monkeypatch):
    assert names(library) == ["cat", "dog"]
    reads = []
    real = formats.load_all
    monkeypatch.setattr(formats, "load_all", lambda p: reads.append(p) or real(p))
    assert names(library) == ["cat", "dog"]
    assert reads == []  # from the index alone
    put(tmp_path, "cat", "<kitten>", loss=0.125)
    put(tmp_path, "eel", "<eel>")
    (tmp_path / "dog" / formats.LEARNED).unlink()
    found = library.entries()
    assert [(e.name, e.tokens) for e in found] == [("cat", ("<kitten>",)), ("eel", ("<eel>",))]
    assert len(reads) == 2


@pytest.mark.parametrize("damage", [b"not a database", b""])
def test_a_damaged_index_is_made_anew(library, tmp_path, damage):
    before = library.entries()
    (tmp_path / INDEX).write_bytes(damage)
    assert library.entries() == before
    assert sqlite3.connect(tmp_path / INDEX).execute("SELECT count(*) FROM word").fetchone() == (2,)


def test_a_row_that_is_no_entry_is_read_anew(library, tmp_path):
    before = library.entries()
    with sqlite3.connect(tmp_path / INDEX) as index:
        index.execute("UPDATE word SET facts = '[1]'")
    assert library.entries() == before


def test_a_file_that_cannot_be_read_is_listed_with_its_reason(library, tmp_path):
    (tmp_path / "cat" / formats.LEARNED).write_bytes(b"nothing")
    cat, _ = library.entries()
    assert cat.name == "cat"
    assert "cat" in cat.problem


def test_a_deleted_word_comes_back(library, tmp_path):
    whole = (tmp_path / "cat" / formats.LEARNED).read_bytes()
    kept = library.delete("cat")
    assert names(library) == ["dog"]
    assert library.deleted() == [kept]
    put(tmp_path, "cat", "<other>")  # the name is taken meanwhile
    assert library.restore(kept) == "cat-2"
    assert (tmp_path / "cat-2" / formats.LEARNED).read_bytes() == whole
    assert library.deleted() == []
    library.delete("cat")
    library.empty_trash()
    assert library.deleted() == []


def test_words_of_any_tool_are_taken_in(library, tmp_path):
    word = formats.load_concept(tmp_path / "cat")
    formats.save_concept(word, tmp_path / "away" / "cat.pt", "a1111")
    assert library.take(tmp_path / "away" / "cat.pt") == ["cat-2"]
    again = formats.load_concept(tmp_path / "cat-2")
    assert torch.equal(again.rows["clip_l"], word.rows["clip_l"])


def test_a_renamed_word_keeps_the_rest(library, tmp_path):
    before = formats.load_concept(tmp_path / "cat")
    library.rename("cat", "<lion>")
    after = formats.load_concept(tmp_path / "cat")
    assert after.placeholder_token == "<lion>"
    assert torch.equal(after.rows["clip_l"], before.rows["clip_l"])
    assert after.provenance["steps"] == 7
    with pytest.raises(ConfigError, match="spaces"):
        library.rename("cat", "two words")


def test_merged_words_stand_in_one_file(library, tmp_path):
    put(tmp_path, "other", "<cat>", 0.25)
    assert library.merge(["cat", "other"]) == "cat-other"
    words = formats.load_all(tmp_path / "cat-other")
    assert [w.placeholder_token for w in words] == ["<cat>", "<cat-2>"]
    assert float(words[1].rows["clip_l"][0, 0]) == 0.25
    assert names(library) == ["cat", "cat-other", "dog", "other"]
    with pytest.raises(LibraryError, match="Merging needs two or more words, got 1"):
        library.merge(["cat", "cat"])


@pytest.mark.parametrize("name", ["nobody", "..", "../cat", ".", "a/../cat"])
def test_a_word_outside_the_folder_is_none(library, tmp_path, name):
    library = Library(tmp_path / "cat")  # above which another word lies
    put(tmp_path, "")
    for act in (library.file, library.delete):
        with pytest.raises(LibraryError, match="has no word"):
            act(name)
    with pytest.raises(LibraryError, match="no deleted word"):
        library.restore(name)
