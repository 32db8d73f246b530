"""Imports run in one direction, and the package stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import oneword


ORDER = (
    "_typing", "_devices", "config", "_files", "hub", "deltas", "concept", "descriptions", "images",
    "prompts", "formats", "outputs", "vocabulary", "inspection", "microworld", "backbones", "draws",
    "parts", "extensions", "learner", "inversion", "baselines",
    "mirror", "run_folder", "runs", "jobs", "composition", "generation",
    "bipartite", "blending", "editing",
    "evaluation", "sharing",
    "cluster", "study", "web", "cli",
)  # fmt: skip
ROOT = Path(oneword.__file__).parent


def _imports(path: Path) -> set[str]:
    """Layers that a file imports, at its top or inside functions, but not for types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("oneword"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("oneword.")}
    return found - {"__version__"}


def _layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_layers_above_it(path):
    own = ORDER.index(_layer(path))
    later = {name for name in _imports(path) if ORDER.index(name) > own}
    assert not later, f"{path.name} of layer {_layer(path)} imports {later}"


def test_importing_the_package_and_its_configuration_loads_no_torch():
    code = "import sys, oneword, oneword.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shapes_are_checked_while_tests_run():
    from oneword.images import to_images

    with pytest.raises(jaxtyping.TypeCheckError, match="pixels"):
        to_images(torch.zeros(2, 2))


def test_every_public_name_exists():
    for name in oneword.__all__:
        assert getattr(oneword, name) is not None
    assert set(oneword.__all__) == set(oneword._PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'invret'"):
        oneword.invret  # noqa: B018
