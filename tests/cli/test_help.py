"""What each help page says is what ``docs/reference/cli`` says, and it comes without torch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import help_pages
from oneword.cli.main import main
from oneword.config.presets import SETUPS
from oneword.microworld.making.run import STAGES
from oneword.microworld.world import artwork, inventory
from oneword.microworld.world.held_out import HELD_OUT
from oneword.study.plan import BASELINES, BIPARTITE, GROUPS, REFERENCES
from oneword.study.prompt_sets import PROMPT_SETS


PAGES = dict(help_pages.commands())
ALL_AT_ONCE = """
import json, sys, help_pages
pages = {name: help_pages.page(words) for name, words in help_pages.commands()}
print(json.dumps([pages, [*sys.modules]]))
"""


@pytest.fixture(scope="module")
def told():
    """All pages, and the modules that are loaded then, of a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE], cwd=Path(help_pages.__file__).parent,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", PAGES)
def test_help_is_what_its_page_says(name, told):
    kept = (help_pages.FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert told[0][name] == kept, "`make help-pages` writes the pages anew"


def test_help_loads_no_library_that_takes_long(told):
    assert not {"torch", "diffusers", "transformers", "rich", "numpy", "PIL"} & {*told[1]}


def test_every_page_belongs_to_a_command():
    assert {path.stem for path in help_pages.FOLDER.glob("*.txt")} == PAGES.keys()


# --- what most people use


@pytest.mark.parametrize("name", [name for name in PAGES if f"{name}-all" in PAGES])
def test_a_command_with_many_options_shows_those_that_people_use(name, told):
    short, whole = told[0][name], told[0][f"{name}-all"]
    shown, known = ({*re.findall(r"^  (--[a-z][a-z0-9-]*)", text, re.M)} for text in (short, whole))
    assert shown <= known
    assert f"--help-all shows all {len(known)}." in short
    assert len(shown) <= 24


def test_no_help_is_longer_than_two_screens(told):
    lengths = {name: text.count("\n") for name, text in told[0].items()}
    assert {name for name, n in lengths.items() if n > 80 and not name.endswith("-all")} == set()


# --- choices


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("train-all", SETUPS), ("train", SETUPS), ("study-all", PROMPT_SETS),
        ("study-all", {*SETUPS, BIPARTITE, *REFERENCES, *BASELINES, *GROUPS}),
        ("microworld-pictures", [concept.name for concept in HELD_OUT]),
        ("microworld-people", inventory.PROFESSIONS), ("microworld-train", STAGES),
        ("microworld-things", (*artwork.LOOKS, artwork.FIRST_EDITION)),
    ],
)  # fmt: skip
def test_every_choice_lists_its_names(page, names, told):
    text = " ".join(told[0][page].split())
    assert [name for name in names if name not in text.replace(", ", ",")] == []


# --- completion


COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="${COMP_WORDS[*]}"
COMP_POINT=${#COMP_LINE}
function=$(complete -p oneword | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def install(home, monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SHELL", "/usr/bin/bash")
    return lambda *words: main(["--install-completion", *words])


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_verbs_options_and_values(install, home, capsys):
    assert install() == 0
    path = home / ".local/share/bash-completion/completions/oneword"
    assert str(path) in capsys.readouterr().out
    for words, expected in [
        (["t"], {"train"}),
        (["concept", "in"], {"inspect"}),
        (["train", "--placeholder"], {"--placeholder-token"}),
        (["train", "--job"], {"--jobs"}),
        (["train", "--train-d"], {"--train-data-dir"}),
        (["train", "--setup", "t"], {"two-words", "three-words"}),
        (["microworld", "pictures", "--concept", "gold"], {"gold-mug"}),
    ]:
        command = ["bash", "-c", COMPLETE, "bash", str(path), "oneword", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        assert {*done.stdout.split()} == expected


@pytest.mark.parametrize(
    ("shell", "name"),
    [("zsh", ".zfunc/_oneword"), ("fish", ".config/fish/completions/oneword.fish")],
)
def test_other_shells_have_their_own_script(shell, name, install, home):
    assert install(shell) == 0
    assert "train" in (home / name).read_text()


@pytest.mark.parametrize("words", [["fsh"], ["bash", "zsh"]])
def test_an_unknown_shell_is_refused(words, install, capsys):
    assert install(*words) == 2
    message = f"must be followed by one of bash, zsh, fish, got {' '.join(words)}"
    assert message in capsys.readouterr().err
