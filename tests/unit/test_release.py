"""What is released says the same everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import oneword


ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]*)\)")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_file_names_the_same_version():
    assert re.findall(r"^version: (.*)$", text("CITATION.cff"), re.M) == [oneword.__version__]
    heads = re.findall(r"^## (.*)$", text("CHANGELOG.md"), re.M)
    assert heads[:2] == ["Unreleased", oneword.__version__]


def test_every_file_pins_the_same_torch():
    (pin,) = re.findall(r"^torch==(\S+)$", text("constraints.txt"), re.M)
    for name in ("Dockerfile", "docs/tutorials/install.md"):
        assert re.findall(r"torch==([\d.]+)", text(name)) == [pin], name


def test_the_image_takes_extras_that_are_there():
    (extras,) = re.findall(r"'\.\[(.*)\]'", text("Dockerfile"))
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert {*extras.split(",")} <= project["optional-dependencies"].keys()
    needed = re.findall(r"^!(.*)$", text(".dockerignore"), re.M)
    copied = re.findall(r"^COPY (.*) \S+$", text("Dockerfile"), re.M)
    assert sorted(needed) == sorted(" ".join(copied).split())


def test_every_link_of_the_readme_leads_to_a_file():
    links = LINK.findall(text("README.md"))
    own = [link.partition("#")[0] for link in links if not link.startswith("https:")]
    assert len(own) > 20
    assert [link for link in own if not (ROOT / link).is_file()] == []


def test_on_a_package_index_every_link_of_the_readme_is_absolute():
    done = subprocess.run(
        [sys.executable, "-m", "hatch_fancy_pypi_readme"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    links = LINK.findall(done.stdout)
    assert "https://arxiv.org/abs/2208.01618" in links
    assert [link for link in links if not link.startswith("https:")] == []
    # all else is there, and nothing speaks of a picture that is not
    assert re.findall(r"^#.*$", done.stdout, re.M) == [
        head for head in re.findall(r"^#.*$", text("README.md"), re.M) if "Where to go" not in head
    ]
    assert "\n    oneword generate --concepts my-mug" in done.stdout
    assert "First row" not in done.stdout
