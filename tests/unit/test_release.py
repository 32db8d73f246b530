"""What is released says the same everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import oneword


ROOT = Path(__file__).parents[2]


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
