"""What the site has besides the files of ``docs/``, for MkDocs (``hooks`` of ``mkdocs.yml``).

A page for each verb, made from the help snapshots of ``docs/reference/cli``, and copies of the
files outside of ``docs/`` that a page links to, so that the site needs no other host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).parents[1]
CLI = PurePosixPath("reference/cli")
COPIES = PurePosixPath("repository")
"""Where files from outside of ``docs/`` lie in the site."""
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def verbs() -> list[str]:
    """The verbs, as ``oneword --help`` lists them."""
    text = (ROOT / "docs" / CLI / "oneword.txt").read_text(encoding="utf-8")
    return re.findall(r"^  ([a-z]+) +\S", text, re.M)


def page_of(snapshot: str) -> str:
    """The verb on whose page a snapshot stands: ``train`` for ``train-jobs-all``."""
    return snapshot.partition("-")[0]


def _titled(snapshot: str) -> tuple[str, str]:
    """A snapshot's heading, and the command that prints it."""
    name = snapshot.removesuffix("-all")
    words = "oneword " + ("train --jobs ." if name == "train-jobs" else name.replace("-", " "))
    if snapshot.endswith("-all"):
        return f"{words}: all options", f"{words} --help-all"
    return words, f"{words} --help"


def verb_page(verb: str) -> str:
    """The page of a verb: what it and its sub-verbs print, first the short help, then the whole."""
    shots = [p for p in (ROOT / "docs" / CLI).glob("*.txt") if page_of(p.stem) == verb]
    parts = [f"# oneword {verb}"]
    for path in sorted(shots, key=lambda path: path.stem):
        heading, command = _titled(path.stem)
        text = path.read_text(encoding="utf-8").rstrip()
        parts += [f"## {heading}", f"```console\n$ {command}\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def _origin(page: str) -> PurePosixPath:
    """A page's place in the repository, from its place in the site."""
    path = PurePosixPath(page)
    copied = path.is_relative_to(COPIES)
    return path.relative_to(COPIES) if copied else PurePosixPath("docs") / path


def target_of(page: str, link: str) -> tuple[PurePosixPath, str]:
    """Where a page's link to a file leads in the site, and the heading there.

    Outside of ``docs/`` that is a copy, and for a help snapshot its place on its verb's page.
    """
    path = PurePosixPath(os.path.normpath(_origin(page).parent / link))
    if not path.is_relative_to("docs"):
        return COPIES / path, ""
    path = path.relative_to("docs")
    if path.parent != CLI or path.suffix != ".txt" or page_of(path.stem) not in verbs():
        return path, ""
    heading = re.sub(r"\W+", "-", _titled(path.stem)[0].lower()).strip("-")
    return path.with_name(f"{page_of(path.stem)}.md"), f"#{heading}"


def copies(pages: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What pages (place in the site, text) link to outside of ``docs/``, and what that links to."""
    seen: set[str] = set()
    waiting = [*pages]
    while waiting:
        page, text = waiting.pop()
        for link in _LINK.findall(text):
            copy, _ = target_of(page, link)
            if not copy.is_relative_to(COPIES) or str(copy) in seen:
                continue
            file = ROOT / copy.relative_to(COPIES)
            if file.is_file():  # what is missing stays a broken link, which ends the build
                seen.add(str(copy))
                yield str(copy)
                if file.suffix == ".md":
                    waiting.append((str(copy), file.read_text(encoding="utf-8")))


def on_config(config: Any) -> Any:
    """Put the verbs' pages into the navigation, behind the page that lists them."""
    for part in config.nav:
        for group in part.get("Reference", ()):
            if "Command line" in group:
                group["Command line"] += [{verb: str(CLI / f"{verb}.md")} for verb in verbs()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the verbs' pages, and the files outside of ``docs/`` that pages link to."""
    for verb in verbs():
        files.append(File.generated(config, str(CLI / f"{verb}.md"), content=verb_page(verb)))
    pages = [(page.src_uri, page.content_string) for page in files.documentation_pages()]
    for copy in [*copies(pages)]:
        file = ROOT / PurePosixPath(copy).relative_to(COPIES)
        files.append(File.generated(config, copy, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to what ``on_files`` has added."""
    source = page.file.src_uri

    def led(found: re.Match[str]) -> str:
        target, heading = target_of(source, found[1])
        return os.path.relpath(target, PurePosixPath(source).parent) + heading

    return _LINK.sub(led, markdown)
