"""Other trainers' options: each is taken or explained, and the pages about them are true."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest

from oneword.cli.arguments import COMMANDS, TrainArguments
from oneword.cli.options import NOT_NEEDED, _fields, parse, without_secrets, words_of


ROOT = Path(__file__).parents[3]
DIFFUSERS, KOHYA, ONETRAINER = (
    json.loads((ROOT / "tests" / "data" / f"{name}.json").read_text())
    for name in ("diffusers", "kohya", "onetrainer")
)
"""Names, types and defaults of options, as those projects have them at each file's commit."""
SCRIPTS = {n: o for script in DIFFUSERS["scripts"].values() for n, o in script.items()}


BASE = ("--train-data-dir", "p", "--placeholder-token", "<cat>", "--train-batch-size", "2")
GIVEN = {
    "train_data_dir": "q", "placeholder_token": "<dog>", "learnable_property": "style",
    "lr_scheduler": "linear", "mixed_precision": "bf16", "validation_prompt": "a <cat>",
    "gradient_accumulation_steps": "3", "report_to": "csv", "resume_from_checkpoint": "latest",
    "seed": "5", "train_batch_size": "3", "resolution": "64",
}  # fmt: skip
"""Values that are neither the scripts' defaults nor ours; of the others one is made up."""


def options_of(verb: str) -> set[str]:
    names = {"--" + name.replace("_", "-") for name in _fields(COMMANDS[verb][0])}
    return names | {name.replace("--", "--no-", 1) for name in names} | {"--config"}


def rows(page: str) -> list[tuple[list[str], str]]:
    """Each line of a page's tables: the names in its first cell, and its second."""
    text = (ROOT / "docs" / "guides" / f"coming-from-{page}.md").read_text()
    found = []
    for line in text.splitlines():
        cells = re.fullmatch(r"\| (.+?) \| (.+) \|", line)
        if cells and "`" in cells[1]:
            of = "part." if "of a part" in cells[1] else ""
            names = [of + name.removeprefix("--") for name in re.findall(r"`([^`]+)`", cells[1])]
            found.append((names, cells[2]))
    return found


def told(page: str) -> dict[str, str]:
    return {name: cell for names, cell in rows(page) for name in names}


# --- the pages


@pytest.mark.parametrize(
    ("page", "theirs"),
    [
        ("diffusers", {*SCRIPTS}),
        (
            "kohya",
            {n for script in KOHYA["scripts"].values() for n in script}
            | ({*KOHYA["dataset_keys"]} - {n for s in KOHYA["scripts"].values() for n in s}),
        ),
        ("onetrainer", {*ONETRAINER["keys"]}),
    ],
)
def test_a_page_tells_of_every_option_once_and_of_no_other(page, theirs):
    names = [name for own, _ in rows(page) for name in own]
    assert sorted(names) == sorted(theirs)


@pytest.mark.parametrize("page", ["diffusers", "kohya", "onetrainer", "a1111"])
def test_every_option_of_ours_on_a_page_is_there(page):
    for names, cell in rows(page):
        for span in re.findall(r"`([^`]+)`", cell):
            options = re.findall(r"--[a-z0-9-]+", span)
            verb = re.match(r"oneword ((?:concept )?[a-z]+)", span)
            if verb is None and not span.startswith("--"):
                continue
            verb_name = verb[1] if verb else "train"
            known = options_of(verb_name)
            known |= options_of("train --jobs") if verb_name == "train" else set()
            assert {*options} <= known, (names, span)


# --- diffusers' options


def value_of(name: str, option: dict[str, object]) -> str | None:
    if option["type"] == "flag":
        return None
    if name in GIVEN:
        return GIVEN[name]
    return {"int": "7", "float": "0.25", "str": "x"}[str(option["type"])]


def flat(config: object, found: dict[str, object] | None = None) -> dict[str, object]:
    """A config's settings by the names of their options."""
    found = {} if found is None else found
    for field in dataclasses.fields(typing.cast("typing.Any", config)):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat(value, found)
        else:
            found["--" + field.name.replace("_", "-")] = value
    return found


@pytest.fixture(scope="module")
def before():
    return flat(parse(TrainArguments, "train", BASE)[0])


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_option_of_the_scripts_does_what_the_page_says(name, before):
    """In both spellings, with dashes and underscores."""
    value, cell = value_of(name, SCRIPTS[name]), told("diffusers")[name]
    dashed = f"--{name.replace('_', '-')}"
    for words in (
        [f"--{name}", *([value] if value else [])],
        [f"{dashed}={value}" if value else dashed],
    ):
        chosen, notes = parse(TrainArguments, "train", [*BASE, *words])
        after = flat(chosen)
        changed = {option for option in after if after[option] != before[option]}
        if cell.startswith("dropped: "):
            assert notes == [f"{dashed} is not needed here: {NOT_NEEDED[dashed][1]}."]
            assert NOT_NEEDED[dashed][1].removesuffix(".") in cell
            assert not changed
        else:
            assert changed
            assert changed <= {*re.findall(r"`(--[a-z0-9-]+)`", cell)}


def test_the_scripts_values_are_read_as_they_mean_them():
    for words in (["--report_to=all"], ["--report_to", "all"]):
        chosen, notes = parse(TrainArguments, "train", [*BASE, *words])
        assert "csv" in chosen.report_to
        assert notes == []
    chosen, _ = parse(TrainArguments, "train", [*BASE, "--mixed_precision", "no"])
    assert chosen.model.dtype == "fp32"


def test_a_token_is_told_to_nobody():
    words = ["--hub_token", "hf_x", "--seed", "1", "--hub-token=hf_y", "--push_to_hub"]
    assert without_secrets(words) == ["--seed", "1", "--push_to_hub"]


def test_a_file_of_options_may_have_them_too():
    table = {"train_data_dir": "p", "push_to_hub": True, "save_as_full_pipeline": False}
    chosen, _ = parse(TrainArguments, "train", words_of(TrainArguments, table, "run.toml"))
    assert (chosen.push_to_hub, chosen.save_as_full_pipeline) == (True, False)
