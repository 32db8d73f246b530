"""The site: it builds, needs no other host, and leads to every page and heading."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import site_hooks


ROOT = Path(__file__).parents[2]
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


@dataclass
class Html(HTMLParser):
    """What a built page links to, loads and says; ``links`` are those of its text."""

    path: Path
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    paragraphs: list[str] = field(default_factory=list)
    _within: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag in {"script", "img", "iframe", "link"}:
            self.loaded += [given[name] for name in ("src", "href") if given.get(name)]
        if tag == "a" and given.get("href"):
            self.links += [given["href"]] if "article" in self._within else []
        if tag == "p":
            self.paragraphs.append("")
        if tag not in VOID:
            self._within.append(tag)

    def handle_endtag(self, tag):
        while tag in self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data):
        if self._within[-1:] == ["p"]:
            self.paragraphs[-1] += data

    def targets(self) -> Iterator[tuple[Path, str]]:
        """Files of the site that the text leads to, with the headings."""
        for link in self.links:
            if not re.match(r"[a-z]+:", link):
                target, heading = urldefrag(unquote(link))
                yield (self.path.parent / target).resolve() if target else self.path, heading


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[Path, Html]:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path: Html(path.resolve()) for path in sorted(folder.resolve().rglob("*.html"))}


def home(pages: dict[Path, Html]) -> Html:
    return pages[min(pages, key=lambda path: (len(path.parts), path.name != "index.html"))]


def test_every_page_of_the_folder_is_a_page_of_the_site(pages):
    folder = home(pages).path.parent
    expected = {
        (folder / path.relative_to(ROOT / "docs")).with_suffix(".html")
        for path in (ROOT / "docs").rglob("*.md")
    }
    expected = {p.with_stem("index") if p.stem == "README" else p for p in expected}
    expected |= {folder / site_hooks.CLI / f"{verb}.html" for verb in site_hooks.verbs()}
    assert expected <= pages.keys()


def test_every_page_is_two_clicks_from_the_first(pages):
    start = home(pages)
    near = {start.path}
    for _ in range(2):
        near |= {target for path in near if path in pages for target, _ in pages[path].targets()}
    assert {path for path in pages if path.name != "404.html"} <= near


def test_every_link_leads_to_a_file_and_a_heading(pages):
    lost = [
        (str(page.path), str(target), heading)
        for page in pages.values()
        for target, heading in page.targets()
        if not target.is_file()
        or (heading and target in pages and heading not in pages[target].ids)
    ]
    assert lost == []


def test_the_site_asks_no_other_host(pages):
    for page in pages.values():
        assert [url for url in page.loaded if re.match(r"(https?:)?//", url)] == []
        text = page.path.read_text(encoding="utf-8")
        assert 'class="mermaid"' not in text  # which would fetch its library


def test_what_is_a_list_or_a_table_in_the_text_is_one_on_the_page(pages):
    """MkDocs wants an empty line before each, which others do not."""
    for page in pages.values():
        for text in page.paragraphs:
            assert not re.search(r"^(- |\d+\. |\||```)", text, re.M), (page.path.name, text[:200])


def test_there_are_four_parts(pages):
    text = home(pages).path.read_text(encoding="utf-8")
    tabs = re.findall(r'<li class="md-tabs__item.*?>\s*<a .*?>\s*(.*?)\s*</a>', text, re.S)
    assert tabs == ["Home", "Tutorials", "Guides", "Reference", "Explanation"]


# --- the library's pages


def test_every_public_name_has_its_place_on_one_page():
    stub = ast.parse((ROOT / "src/oneword/__init__.pyi").read_text(encoding="utf-8"))
    names = {
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    folder = ROOT / "docs/reference/library"
    found = {
        path.name: re.findall(r"^::: oneword\.(\w+)$", path.read_text(encoding="utf-8"), re.M)
        for path in folder.glob("*.md")
    }
    listed = [name for own in found.values() for name in own]
    assert sorted(listed) == sorted(names - {"__version__"})
    rows = re.findall(
        r"^\| \[.*?\]\((.*?)\) \| (.*) \|$",
        (folder / "README.md").read_text(encoding="utf-8"),
        re.M,
    )
    told = {page: re.findall(r"`(\w+)`", cell) for page, cell in rows}
    assert told == {page: own for page, own in found.items() if page != "README.md"}


# --- the gallery


def test_the_gallery_shows_every_picture_with_its_command():
    text = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    folder = ROOT / "docs/pictures"
    no_drawings = {"editing-picture.png", "editing-mask.png", "samples-to-quality.png"}
    there = {path.name for path in folder.iterdir() if path.is_file()} - no_drawings
    assert there <= {*re.findall(r"\]\(pictures/(.*?)\)", text)}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        assert "```sh\noneword " in section or "What it is: [" in section, section


# --- what the hooks add


def test_a_link_out_of_the_folder_leads_to_a_copy():
    assert site_hooks.target_of("guides/styles.md", "../../examples/generate.py") == (
        site_hooks.COPIES / "examples/generate.py", "",
    )  # fmt: skip
    target, heading = site_hooks.target_of("repository/CHANGELOG.md", "docs/guides/page.md")
    assert (str(target), heading) == ("guides/page.md", "")


def test_a_snapshot_of_help_is_a_place_on_its_verbs_page():
    target, heading = site_hooks.target_of("reference/cli/README.md", "train-jobs-all.txt")
    assert (str(target), heading) == ("reference/cli/train.md", "#oneword-train-jobs-all-options")
    target, heading = site_hooks.target_of("reference/cli/README.md", "oneword.txt")
    assert (str(target), heading) == ("reference/cli/oneword.txt", "")


def test_what_is_linked_to_is_copied_and_what_that_links_to_and_nothing_else():
    found = [
        *site_hooks.copies([("README.md", "[a](../CONTRIBUTING.md) [b](../none.md) [c](x.md)")])
    ]
    assert found == ["repository/CONTRIBUTING.md"]
