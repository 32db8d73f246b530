"""The page's folder gives nothing outside of it."""

from __future__ import annotations

import pytest

from oneword.web.workspace import Workspace, WorkspaceError


@pytest.mark.parametrize("name", [None, "", ".", "..", "../other", "../../run", "nobody", "/run"])
def test_a_run_outside_the_words_is_none(tmp_path, name):
    workspace = Workspace(tmp_path / "web")
    for folder in (tmp_path / "run", tmp_path / "web", workspace.root / "other", workspace.words):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
    with pytest.raises(WorkspaceError, match="taught here"):
        workspace.run_folder(name)


def test_a_run_of_the_words_is_found(tmp_path):
    workspace = Workspace(tmp_path / "web")
    (workspace.words / "mug").mkdir()
    (workspace.words / "mug" / "config.json").write_text("{}")
    assert workspace.run_folder("mug") == workspace.words / "mug"


@pytest.mark.parametrize("number", ["", "..", "0123456789abcdeg", "../0123456789abcd"])
def test_a_set_of_pictures_has_a_number_of_ours(tmp_path, number):
    with pytest.raises(WorkspaceError, match="number of 16 digits"):
        Workspace(tmp_path / "web").draft(number)
