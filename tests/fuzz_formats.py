"""Fuzz the readers of embedding files, by hand: no error but our own may come out.

pip install atheris
PYTHONPATH=tests python tests/fuzz_formats.py -max_total_time=300 [folder of seeds]
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris


with atheris.instrument_imports(
    include=["oneword.concepts.formats", "safetensors", "pickletools", "zipfile"]
):
    from oneword.concepts import formats

import layouts
from oneword.errors import UserError


FOLDER = Path(tempfile.mkdtemp())


def one(data: bytes) -> None:
    """Read one file."""
    path = FOLDER / "fuzzed"
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        formats.read(path)


if __name__ == "__main__":
    seeds = FOLDER / "seeds"
    seeds.mkdir()
    for i, name in enumerate(layouts.LAYOUTS):
        (seeds / str(i)).write_bytes(layouts.in_memory(name, FOLDER))
    atheris.Setup([*sys.argv, "-max_len=20000", str(seeds)], one)
    atheris.Fuzz()
