"""Every figure of the pages has its command, its commit and the version of its weights."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LANDED = {"microworld": "aaaa", "microworld-nano": "bbbb"}
PAGE = """# A page

| | a | b |
|---|---|---|
| one | 0.5 ± 0.1 | 3 |

| option | what it does |
|---|---|
| `--x` | nothing of note |

```
| in | code |
|---|---|
| 1 | 2 |
```

## Speed

| | s |
|---|---|
| here | 1.5 |

| | s |
|---|---|
| there | 2.5 |
"""


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import figures

    return figures


@pytest.fixture
def docs(tmp_path, figures) -> Path:
    """A folder of which everything is known."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/mug.png").write_bytes(b"png")
    (tmp_path / "page.md").write_text(PAGE)
    own = {"command": ["benchmarks/x.py"], "commit": "1234567", "weights": {"microworld": "aaaa"}}
    (tmp_path / "rows.json").write_text(json.dumps(own | {"rows": [1]}))
    (tmp_path / "figures.json").write_text('{"figures": [], "facts": ["page.md#Speed/2"]}')
    there = figures.files(tmp_path) | figures.tables(tmp_path)
    names = ["pictures/mug.png", "page.md#A page", "page.md#Speed"]
    save(
        tmp_path,
        command="oneword demo", commit="1234567", weights={"microworld": "aaaa"},
        sums={name: there[name] for name in names},
    )  # fmt: skip
    return tmp_path


def save(docs: Path, **entry) -> None:
    known = json.loads((docs / "figures.json").read_text())
    known["figures"] = [{**(known["figures"] or [{}])[0], **entry}]
    (docs / "figures.json").write_text(json.dumps(known))


def test_every_figure_of_the_pages_is_known_and_of_the_landed_weights(figures):
    assert figures.problems(figures.DOCS, figures.weights_of(*figures.SIZES)) == []


def test_commits_are_written_as_git_writes_them(figures):
    for name, entry in figures.entries(figures.DOCS).items():
        commit = entry["commit"].removesuffix("-dirty")
        assert commit == figures.UNKNOWN or re.fullmatch("[0-9a-f]{7,40}", commit), name


def test_tables_of_numbers_are_found_by_heading_and_place(figures, docs):
    full = ["page.md#A page", "page.md#Speed", "page.md#Speed/2"]
    assert [*figures.tables(docs, 0.25)] == full
    assert {*figures.tables(docs)} == {*full, "page.md#A page/2"}  # one of words alone
    assert figures.problems(docs, LANDED) == []


def test_what_has_no_command_is_named(figures, docs):
    (docs / "pictures/new.png").write_bytes(b"new")
    (docs / "more.md").write_text(PAGE.replace("# A page", "# More"))
    found = figures.problems(docs, LANDED)
    assert [text.partition(" has no command")[0] for text in found] == [
        "pictures/new.png", "more.md#More", "more.md#Speed", "more.md#Speed/2",
    ]  # fmt: skip


def test_what_is_gone_or_another_one_is_named(figures, docs):
    (docs / "pictures/mug.png").write_bytes(b"another")
    (docs / "page.md").write_text(PAGE.replace("1.5", "1.6").replace("# A page", "# Its page"))
    assert {text.partition(" is ")[::2] for text in figures.problems(docs, LANDED)} == {
        ("page.md#A page", "in figures.json and is not there"),
        ("pictures/mug.png", "another one than was noted; --made notes it anew"),
        ("page.md#Speed", "another one than was noted; --made notes it anew"),
        (
            "page.md#Its page has no command; python benchmarks/figures.py --made notes it", "",
        ),
    }  # fmt: skip


def test_words_of_a_table_may_change(figures, docs):
    (docs / "page.md").write_text(PAGE.replace("| here |", "| on this machine |"))
    assert figures.problems(docs, LANDED) == []


def test_other_weights_must_be_marked(figures, docs):
    landed = LANDED | {"microworld": "cccc"}
    found = figures.problems(docs, landed)
    assert {text.split(" ")[0] for text in found} == {
        "pictures/mug.png", "page.md#A", "page.md#Speed", "rows.json",
    }  # fmt: skip
    assert all("have landed" in text for text in found)
    save(docs, old="to be made anew")
    (docs / "rows.json").unlink()
    assert figures.problems(docs, landed) == []
    save(docs, old=None, weights=figures.UNKNOWN)
    assert figures.problems(docs, landed) == []
    save(docs, weights={})
    assert figures.problems(docs, landed) == []


def test_a_figure_is_told_of_in_one_place(figures, docs):
    known = figures.register(docs)
    known["facts"].append("page.md#Speed")
    (docs / "figures.json").write_text(json.dumps(known))
    assert figures.problems(docs, LANDED) == ["page.md#Speed is told of in two places"]


def test_what_is_made_anew_is_noted_alone(figures, docs):
    (docs / "pictures/mug.png").write_bytes(b"another")
    save(docs, old="to be made anew")
    there = figures.files(docs) | figures.tables(docs)
    known = figures.noted(
        figures.register(docs), ["pictures/mug.png"], there,
        commit="7654321", weights={"microworld": "cccc"},
    )  # fmt: skip
    (docs / "figures.json").write_text(json.dumps(known))
    found = figures.entries(docs)
    assert found["page.md#Speed"]["old"] == "to be made anew"
    assert found["page.md#Speed"]["commit"] == "1234567"
    made = found["pictures/mug.png"]
    assert (made["command"], made["commit"], made.get("old")) == ("oneword demo", "7654321", None)
    (docs / "rows.json").unlink()
    assert figures.problems(docs, {"microworld": "cccc"}) == []


def test_what_is_new_needs_a_command(figures, docs):
    (docs / "pictures/new.png").write_bytes(b"new")
    there = figures.files(docs)
    with pytest.raises(SystemExit, match="--command and --weights must be given"):
        figures.noted(figures.register(docs), ["pictures/new.png"], there, commit="1234567")
    known = figures.noted(
        figures.register(docs), ["pictures/new.png"], there,
        command="oneword web", commit="1234567", weights={},
    )  # fmt: skip
    assert known["figures"][-1]["sums"] == {"pictures/new.png": there["pictures/new.png"]}


# --- what the benchmarks write


def test_a_record_says_where_it_comes_from(figures, tmp_path, monkeypatch):
    import _common

    path = tmp_path / "numbers.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", "--json", "numbers.json"])
    _common.record(path, model="microworld", rows=[1])
    assert figures.own_records(tmp_path)["numbers.json"]["command"] == (
        "python benchmarks/x.py --json numbers.json"
    )
    found = json.loads(path.read_text())
    assert found["weights"] == figures.weights_of("microworld") != {}
    assert found["commit"] == figures.commit()
    assert _common.recorded(path, model="microworld")["rows"] == [1]
    with pytest.raises(SystemExit, match=r"Cannot go on from .* because its numbers are of the"):
        _common.recorded(path, model="microworld-nano")
    _common.record(path, model=None, rows=[1])
    assert json.loads(path.read_text())["weights"] == {}
