"""Change every constant once, and see whether a test notices.

    make mutants
    python benchmarks/mutants.py --only presets.py --json mutants.json

The constants are the numbers and switches of presets, protocols, setups, editing and baselines, and
the words that presets choose between. Each is changed in a copy of the package; the tests that
should catch it run on the copy, and those that do not are listed as survivors. Each change runs in
a process of its own, forked after torch is loaded, so that it takes seconds: on Linux or macOS.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import ast
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers  # noqa: F401  (for the processes that are forked)
import pytest
import torch
import transformers  # noqa: F401  (likewise)
import tyro


ROOT = Path(__file__).parents[1]
_CONFIG = ("tests/unit/config/test_published.py", "tests/unit/config/test_inversion.py")
_SETUPS = ("tests/unit/training/test_extensions.py", "tests/contracts/test_setups.py")
_BASELINES = ("tests/contracts/test_baselines.py",)
TARGETS: dict[str, tuple[str, ...]] = {
    "config/presets.py": _CONFIG,
    "config/tuning.py": _CONFIG,
    "config/scoring.py": (*_CONFIG, "tests/unit/evaluation/test_protocol.py"),
    "evaluation/protocol.py": ("tests/unit/evaluation/test_protocol.py",),
    "evaluation/harness.py": (
        *_CONFIG,
        "tests/unit/evaluation/test_protocol.py",
        "tests/unit/evaluation/test_evaluation.py",
    ),
    "models/families/ldm.py": (*_CONFIG, "tests/parity/test_ldm_checkpoint.py"),
    "models/ldm_checkpoint.py": (*_CONFIG, "tests/parity/test_ldm_checkpoint.py"),
    "generation/blending.py": (*_CONFIG, "tests/unit/generation/test_editing.py"),
    "generation/editing.py": ("tests/unit/generation/test_editing.py",),
    "generation/ddim_inversion.py": ("tests/unit/generation/test_ddim_inversion.py",),
    "study/findings.py": (*_CONFIG, "tests/unit/study/test_study.py"),
    "training/extensions/*.py": (*_CONFIG, *_SETUPS, "tests/contracts/test_tricks.py"),
    "training/tuning/*.py": (*_CONFIG, *_BASELINES),
    "vocabulary/kinds.py": (*_CONFIG, *_SETUPS),
}
"""Files of the package, and the tests that should catch a change in them."""
WORDS = ("config/presets.py", "config/tuning.py")
"""Files whose dicts choose between words; those are changed, too."""
_FIRST_LIMIT_S = 3600.0  # of the tests without a change


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Change constants, run the tests, list the survivors."""

    only: tuple[str, ...] = ()
    """Ends of file names to keep to; none: all."""
    limit_s: float = 300.0
    """Longest that a change's tests may take, or three times what they take without it."""
    list_only: bool = False
    """Print what would be changed, and stop."""
    json: Path | None = None
    """File for every change and what became of it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One constant, changed."""

    file: str
    line: int
    column: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.old} -> {self.new}"


def files() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The files whose constants are changed, each with its tests."""
    package = ROOT / "src" / "oneword"
    for pattern, tests in TARGETS.items():
        for path in sorted(package.glob(pattern)):
            yield path, tests


class Constants(ast.NodeVisitor):
    """Where a file's constants stand, and what each becomes."""

    def __init__(self, name: str, text: str, *, words: bool) -> None:
        self.name, self.text, self.words = name, text, words
        self.found: list[Mutant] = []
        self.visit(ast.parse(text))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Leave the decorators out."""
        for part in node.body:
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Leave the type out."""
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Leave the types out."""
        for part in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
            self.visit(part)

    def visit_Dict(self, node: ast.Dict) -> None:
        """Values alone: a changed key is an error, not a change."""
        for value in node.values:
            if self.words and isinstance(value, ast.Constant) and isinstance(value.value, str):
                self._add(value, repr(f"{value.value}?"))
            self.visit(value)

    def visit_keyword(self, node: ast.keyword) -> None:
        """Leave out what only guards or shows: no result changes with it."""
        if node.arg not in ("strict", "repr", "stacklevel"):
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Numbers and switches."""
        value = node.value
        if isinstance(value, bool):
            self._add(node, str(not value))
        elif isinstance(value, int):
            self._add(node, str(value + 1))
        elif isinstance(value, float):
            self._add(node, repr(value * 1.5 if value else 0.5))

    def _add(self, node: ast.Constant, new: str) -> None:
        old = ast.get_source_segment(self.text, node)
        assert old is not None
        self.found.append(Mutant(self.name, node.lineno, node.col_offset, old, new))


def changed(text: str, mutant: Mutant) -> str:
    """The file's text with the constant changed."""
    lines = text.splitlines(keepends=True)
    line = lines[mutant.line - 1].encode()  # columns count bytes
    end = mutant.column + len(mutant.old.encode())
    lines[mutant.line - 1] = (line[: mutant.column] + mutant.new.encode() + line[end:]).decode()
    return "".join(lines)


def survives(copy: Path, tests: tuple[str, ...], limit_s: float) -> bool:
    """Whether the tests pass on a copy of the package, in a process of their own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(copy)
            sys.path.insert(0, str(copy / "src"))
            for name in [n for n in sys.modules if n.partition(".")[0] == "oneword"]:
                del sys.modules[name]  # what was loaded above is not the copy
            import oneword

            assert Path(oneword.__file__).is_relative_to(copy)
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
                code = int(
                    pytest.main(["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", *tests])
                )
        finally:
            os._exit(code)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> None:
    """Change, test, list."""
    arguments = tyro.cli(Arguments)
    torch.set_num_threads(1)
    chosen: list[tuple[Path, str, tuple[str, ...], list[Mutant]]] = []
    for path, tests in files():
        name = path.relative_to(ROOT / "src" / "oneword").as_posix()
        if arguments.only and not name.endswith(arguments.only):
            continue
        text = path.read_text(encoding="utf-8")
        found = Constants(name, text, words=name in WORDS).found
        chosen.append((path, text, tests, found))
    total = sum(len(found) for *_, found in chosen)
    print(f"{total} constants in {len(chosen)} files.", flush=True)
    if arguments.list_only:
        for *_, found in chosen:
            for mutant in found:
                print(mutant)
        return
    survivors: list[Mutant] = []
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "oneword"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache")
        )
        for path, text, tests, found in chosen:
            place = copy / path.relative_to(ROOT)
            began = time.monotonic()
            if found and not survives(copy, tests, _FIRST_LIMIT_S):
                raise SystemExit(f"The tests of {path.name} must pass as it is: {' '.join(tests)}")
            limit_s = max(arguments.limit_s, 3 * (time.monotonic() - began))
            for number, mutant in enumerate(found, 1):
                if number % 20 == 0:
                    print(f"{path.name}: {number} of {len(found)}", flush=True)
                place.write_text(changed(text, mutant), encoding="utf-8")
                alive = survives(copy, tests, limit_s)
                rows.append(asdict(mutant) | {"survives": alive})
                if alive:
                    survivors.append(mutant)
                    print(f"SURVIVES {mutant}", flush=True)
            place.write_text(text, encoding="utf-8")
            print(f"{path.name}: {len(found)} changed", flush=True)
    print(f"{total - len(survivors)} of {total} changes were caught.")
    for mutant in survivors:
        print(f"survived: {mutant}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"mutants": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
