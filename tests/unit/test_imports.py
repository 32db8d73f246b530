"""Imports run in one direction, file by file, and the package stays light."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import oneword


ROOMS = (
    "errors", "_version", "_typing", "_escaping", "_files", "_devices", "catalog",
    "config", "prompts", "images",
    "concepts", "microworld", "vocabulary", "models",
    "training", "generation", "runs", "evaluation", "study", "web", "cli", "__main__",
)  # fmt: skip
"""A room imports only from rooms before it."""
EXTRAS = {
    "oneword.microworld.world.drawing",  # skia
    "oneword.microworld.world.wide_drawing",  # skia
}
"""Modules that need an optional extra: they alone may be imported inside a function."""
BY_STRING = {"oneword.catalog", "oneword.cli.main"}
"""Modules that may import by a string: families by their record, and verbs when they are called."""
ROOT = Path(oneword.__file__).parent


def _module(path: Path, root: Path) -> str:
    name = ".".join((root.name, *path.relative_to(root).with_suffix("").parts))
    return name.removesuffix(".__init__")


class Imports(ast.NodeVisitor):
    """What one file imports: at its top, inside functions, by a string; not for types alone."""

    def __init__(self, path: Path, modules: set[str]) -> None:
        self.modules = modules
        self.top: set[str] = set()
        self.hidden: set[str] = set()
        self.by_string = False
        self._depth = 0
        self.visit(ast.parse(path.read_text()))

    def visit_FunctionDef(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.module is not None
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            self._add(full if full in self.modules else node.module)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"}:
            self.by_string = True
        self.generic_visit(node)

    def _add(self, module: str) -> None:
        if module.partition(".")[0] == "oneword":
            (self.hidden if self._depth else self.top).add(module)


def faults(root: Path) -> list[str]:
    """Every import of a package that breaks a rule, in words."""
    paths = {_module(p, root): p for p in root.rglob("*.py") if p != root / "__init__.py"}
    found = {name: Imports(path, set(paths)) for name, path in paths.items()}
    told = []
    for name, imports in sorted(found.items()):
        if imports.by_string and name not in BY_STRING:
            told.append(f"{name} imports by a string")
        for other in sorted(imports.hidden - EXTRAS):
            told.append(f"{name} hides the import of {other} in a function")
        own = ROOMS.index(name.split(".")[1])
        for other in sorted(imports.top | imports.hidden):
            if other == "oneword" or ROOMS.index(other.split(".")[1]) > own:
                told.append(f"{name} imports {other}, which is further down the list")
    graph = {name: (imports.top | imports.hidden) - {name} for name, imports in found.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        told.append(f"imports run in a circle: {' <- '.join(error.args[1])}")
    return told


def test_imports_run_in_one_direction_and_in_the_open():
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"prompts": "from oneword.images import x"}, "further down the list"),
        ({"_files": "from oneword import __version__"}, "further down the list"),
        ({"prompts": "def f():\n    import oneword.errors"}, "hides the import of oneword.errors"),
        ({"prompts": "import importlib\nimportlib.import_module('x')"}, "imports by a string"),
        (
            {
                "config/a": "from oneword.config import b",
                "config/b": "from oneword.config.a import x",
            },
            "run in a circle",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_found(files, message, tmp_path):
    root = tmp_path / "oneword"
    (root / "config").mkdir(parents=True)
    for name in ("errors", "images", "config/__init__"):
        (root / f"{name}.py").touch()
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    assert len(faults(root)) == 1
    assert message in faults(root)[0]


def test_the_top_of_the_package_holds_rooms_and_nothing_else():
    names = {p.name.removesuffix(".py") for p in ROOT.iterdir() if p.name != "__pycache__"}
    rooms = names - {"__init__", "__main__", "__init__.pyi", "py.typed"}  # Python's own names
    assert rooms <= {*ROOMS}
    assert len(rooms) <= 21


def test_importing_the_package_and_its_configuration_loads_no_torch():
    names = "oneword, oneword.catalog, oneword.config.runs"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shapes_are_checked_while_tests_run():
    from oneword.images import to_images

    with pytest.raises(jaxtyping.TypeCheckError, match="pixels"):
        to_images(torch.zeros(2, 2))


def test_every_public_name_exists():
    for name in oneword.__all__:
        assert getattr(oneword, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="invret"):
        oneword.invret  # noqa: B018
