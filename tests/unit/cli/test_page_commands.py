"""Every command on the pages is one that can be typed: verbs, options, values, files, names."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

import blocks
import oneword
from oneword.cli.arguments import COMMANDS, TrainArguments, sub_verbs
from oneword.cli.main import VERBS, _command
from oneword.cli.options import (
    ACCUMULATION,
    ADAM_8BIT,
    ALIASES,
    FLAGS,
    NOT_NEEDED,
    _fields,
    parse,
    words_of,
)


PAGES = blocks.pages()
NEEDED = {"--train-data-dir": "photos", "--output-dir": "folder"}
"""What "..." stands for."""
THEIRS = {
    "--at",
    "--batch-size",
    "--compile",
    "--cut-out",
    "--export",
    "--made",
    "--names",
    "--old",
    "--only",
    "--variants",
}
"""Options of scripts and of modules that are run, where the text names them alone."""


def by_name(page):
    return str(page.relative_to(blocks.ROOT))


def whole(words):
    """A command with what its "..." leaves out, as far as it is needed."""
    if "..." not in words:
        return words
    kept = [
        word
        for i, word in enumerate(words)
        if word != "..." or (words[i - 1].startswith("--") and words[i - 1] != "--dry-run")
    ]
    if kept[0] == "train" and not {"--jobs", "--train-data-dir"} & {*kept}:
        kept += ["--train-data-dir", NEEDED["--train-data-dir"]]
    return kept


def options_of(name):
    own = {"--" + field.replace("_", "-") for field in _fields(COMMANDS[name][0])}
    own |= {*ALIASES, *FLAGS, *NOT_NEEDED, ACCUMULATION, ADAM_8BIT}
    own |= {"--config", "--help", "--help-all", "--jobs"}
    return own | {option.replace("--", "--no-", 1) for option in own}


ANY = {option for name in COMMANDS for option in options_of(name)}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_command_of_a_block_can_be_read(page):
    for words in map(whole, blocks.commands(page)):
        if {"--help", "--help-all", "--install-completion"} & {*words} or words[0].isupper():
            continue
        assert words[0] in VERBS, words
        # a folder of an embedded model is told from others by what is in it
        name, given = _command(
            words[0], ["microworld" if own == "FOLDER" else own for own in words[1:]]
        )
        try:
            parse(COMMANDS[name][0], name, given, alone=False)
        except Exception as error:
            raise AssertionError(f"oneword {' '.join(words)}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_option_in_the_text_is_there(page):
    for span in blocks.spans(page):
        found = {option.replace("_", "-") for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span)}
        begins = re.match(r"oneword (\w[\w-]*)(?: (\w[\w-]*))?", span)
        if begins is None and not span.startswith("--"):
            continue
        known = ANY | THEIRS
        if begins and begins[1].islower():
            verb, sub = begins[1], begins[2]
            assert verb in VERBS, span
            subs = sub_verbs(verb)
            if subs:
                assert sub is None or sub in subs or sub.isupper(), span
                verb = f"{verb} {sub}"
            known = options_of(verb) if verb in COMMANDS else known
            known |= options_of("train --jobs") if verb == "train" else set()
        if page.name.startswith("coming-from"):  # of theirs there is a test of its own
            continue
        assert found <= known, (span, sorted(found - known))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_script_target_and_extra_of_a_block_is_there(page):
    targets = re.findall(r"^([a-z-]+):", (blocks.ROOT / "Makefile").read_text(), re.M)
    project = tomllib.loads((blocks.ROOT / "pyproject.toml").read_text())["project"]
    for words in (w for b in blocks.code(page, "sh", "console") for w in blocks.lines(b)):
        if words[:1] == ["make"]:
            assert {*words[1:]} <= {*targets}, words
        for word in words[1:]:
            if words[0].startswith("python") and re.match(r"(benchmarks|examples|tests)/", word):
                assert (blocks.ROOT / word).is_file(), words
            for extras in re.findall(r"^(?:oneword|\.)\[(.*)\]$", word):
                assert {*extras.split(",")} <= project["optional-dependencies"].keys(), words


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_the_python_of_a_page_is_python_and_names_what_is_public(page):
    for block in blocks.code(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "oneword":
                assert node.attr in oneword.__all__, block


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_the_toml_of_a_page_holds_options(page):
    for block in blocks.code(page, "toml"):
        table = tomllib.loads(block)
        for job in table.pop("jobs", []):
            job.pop("name", None)
            words_of(TrainArguments, job, page)
        words_of(TrainArguments, table, page)


def test_the_tour_names_what_is_on_the_page():
    tour = (blocks.ROOT / "docs/tutorials/page.md").read_text(encoding="utf-8")
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in sorted((blocks.ROOT / "src/oneword/web").rglob("*.py"))
    )
    named = re.findall(r"\*\*(.*?)\*\*", " ".join(tour.split()))
    named += re.findall(r"^## (?!Another model)(.*)$", tour, re.M)
    assert len(named) > 10
    for label in named:
        assert f'"{label}"' in source, label


def test_a_page_with_a_wrong_command_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n```sh\noneword train --train-data-dir a \\\n    --placeholder-token '<b>'  # c\n"
        'oneword models | head -1\n```\n\ntext\n\n    common="--x 1"\n    oneword train $common\n'
        "    accelerate launch -m oneword edit\n\n- a list\n"
    )
    assert blocks.commands(page) == [
        ["train", "--train-data-dir", "a", "--placeholder-token", "<b>"],
        ["models"], ["train", "--x", "1"], ["edit"],
    ]  # fmt: skip
