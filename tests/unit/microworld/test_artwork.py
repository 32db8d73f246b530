"""The artists' drawings: data that is whole, a build that is pinned, names that are found."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import tarfile
from dataclasses import replace

import pytest

from oneword.microworld.making import things_data
from oneword.microworld.world import artwork


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder of two things in one look, without its drawings."""
    (tmp_path / artwork.LIST).write_text(
        '["dog","dog-face","animals","mammal",["pet"],{"tiny":"dog"}]\n'
        '["fox","fox","animals","mammal",["sly"],{"tiny":""}]\n'
    )
    (tmp_path / artwork.COLOURED).write_text("dog-face\n")
    monkeypatch.setattr(artwork, "FOLDER", tmp_path)
    artwork.artworks.cache_clear()
    yield tmp_path
    artwork.artworks.cache_clear()


def packed(path, version: str = "1.0.0") -> things_data.Package:
    """A package file of one drawing and an alias of it."""
    body = '<defs><path id="a" d="M0 0z"/></defs><use href="#a" fill="currentColor"/>'
    files = {
        "package.json": {"version": version},
        "icons.json": {
            "icons": {"hound": {"body": body, "height": 33}},
            "aliases": {"dog": {"parent": "hound"}},
            "width": 32,
            "height": 32,
        },
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return things_data.Package(name="tiny", version="1.0.0", integrity=digest)


def test_every_thing_is_there_in_every_look():
    things = artwork.things()
    assert len(things) == 787
    assert len({thing.noun for thing in things.values()}) == 787
    for look in artwork.LOOKS:
        assert artwork.artworks(look).keys() == things.keys()
    assert len(artwork.artworks(artwork.FIRST_EDITION)) == 566


def test_drawings_hold_what_skia_reads():
    for look in (*artwork.LOOKS, artwork.FIRST_EDITION):
        for art in artwork.artworks(look).values():
            assert "currentColor" not in art.body
            assert ' href="' not in art.body
            assert art.svg.startswith("<svg ")


def test_the_builds_packages_are_those_of_the_notice():
    sums = json.loads((artwork.FOLDER / artwork.SUMS).read_text())
    notice = (artwork.FOLDER.parents[3] / "NOTICE").read_text()
    for look, package in things_data.PACKAGES.items():
        assert sums[look]["version"] == package.version
        assert f"@iconify-json/{package.name} {package.version}" in " ".join(notice.split())


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    name = artwork.file_of("flat sticker")
    (tmp_path / name).write_bytes(b"other")
    (tmp_path / artwork.SUMS).write_text((artwork.FOLDER / artwork.SUMS).read_text())
    monkeypatch.setattr(artwork, "FOLDER", tmp_path)
    artwork.artworks.cache_clear()
    with pytest.raises(artwork.ArtworkError, match=r"flat-sticker.* must have SHA-256 .*reinstall"):
        artwork.artworks("flat sticker")
    (tmp_path / name).unlink()
    with pytest.raises(artwork.ArtworkError, match="got no file"):
        artwork.artworks("flat sticker")
    artwork.artworks.cache_clear()


@pytest.mark.parametrize("name", [artwork.LIST, artwork.COLOURED])
def test_a_damaged_list_is_refused(name, tmp_path, monkeypatch):
    for own in (name, artwork.SUMS):
        (tmp_path / own).write_bytes((artwork.FOLDER / own).read_bytes())
    monkeypatch.setattr(artwork, "FOLDER", tmp_path)
    assert artwork.listed(name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(artwork.ArtworkError, match=rf"{name} must have SHA-256 .*reinstall"):
        artwork.listed(name)
    (tmp_path / artwork.SUMS).write_text("{")
    with pytest.raises(artwork.ArtworkError, match=r"sums\.json"):
        artwork.listed(name)


def test_an_unknown_look_is_refused():
    with pytest.raises(artwork.ArtworkError, match=r"must be one of flat sticker.*got 'sketchy'"):
        artwork.artworks("sketchy")


def test_build_follows_aliases_and_leaves_out_what_a_package_lacks(folder, monkeypatch):
    package = packed(folder / "iconify-json-tiny-1.0.0.tgz")
    monkeypatch.setattr(things_data, "PACKAGES", {"flat sticker": package})
    sizes = things_data.build(folder, folder)
    built = folder / "flat-sticker.json.xz"
    assert sizes == {"flat sticker": built.stat().st_size}
    assert list(json.loads(lzma.decompress(built.read_bytes()))) == ["dog-face"]
    art = artwork.artworks("flat sticker")["dog-face"]
    assert art.box == (0, 0, 32, 33)
    assert '<use xlink:href="#a" fill="#1c1c22"/>' in art.body
    before = built.read_bytes()
    things_data.build(folder, folder)
    assert built.read_bytes() == before


def test_another_version_is_refused(tmp_path):
    package = packed(tmp_path / "a.tgz", version="1.1.0")
    with pytest.raises(things_data.BuildError, match=r"tiny must be version 1\.0\.0, got 1\.1\.0"):
        things_data.icons(package, tmp_path / "a.tgz")


def test_a_changed_package_is_refused(tmp_path):
    package = replace(packed(tmp_path / "a.tgz"), integrity="AAAAAAAAAAAAAAAA")
    with pytest.raises(things_data.BuildError, match=r"must have SHA-512 AAAAAAAAAAAA\.\.\., got"):
        things_data.icons(package, tmp_path / "a.tgz")


def test_things_are_found_by_noun_and_by_keyword():
    assert artwork.find("fox").slug == "fox"
    assert artwork.find("dog").slug == "dog-face"
    assert "fungus" not in {thing.noun for thing in artwork.things().values()}
    assert [thing.noun for thing in artwork.search("toadstool")] == ["mushroom"]
    with pytest.raises(artwork.ArtworkError, match="got 'octupus'; did you mean octopus"):
        artwork.find("octupus")
    with pytest.raises(artwork.ArtworkError, match="`oneword microworld things` lists all"):
        artwork.find("qqqqqqq")
