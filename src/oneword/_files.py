"""Atomic writes: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from oneword.errors import UserError


class OutputError(UserError):
    """A file cannot be written."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file through a temporary one in the same folder, which is made if missing.

    Raises:
        OutputError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutputError(
            f"{path} must be writable, got: {error.strerror or error}; make room or choose another "
            "folder."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Make a folder, and sure that it can be written, before anything costly; empty ones may stay.

    Raises:
        OutputError: it is a file, or cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The output folder {folder} is a file; pass another --output-dir.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".oneword-")
        with os.fdopen(handle, "wb") as file:
            file.write(b"x")
        Path(probe).unlink()
    except OSError as error:
        raise OutputError(
            f"The output folder {folder} must be writable, got: {error.strerror or error}; pass "
            "another --output-dir."
        ) from error


def write_json_atomic(path: Path, value: Any) -> None:
    """Write JSON, indented; numbers that are not finite become null."""
    write_atomic(path, (json.dumps(_finite(value), indent=1) + "\n").encode())


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
