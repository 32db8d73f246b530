"""Reading and writing files: opened in one place, names from outside checked, written atomically.

Nothing that is read is trusted. Only regular files are opened (a FIFO would wait for ever, a device
may do anything), with a limit on the bytes that are read, and text is decoded by one rule. A name
from a file, an address or a setting is checked against the folder that it belongs to. Writes are
atomic: a reader sees the old file or the new one, never half of either. A folder has one writer at
a time (``hold``), and leftovers of a killed one are removed.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import re
import socket
import stat
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from oneword.errors import UserError


try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None


MAX_TEXT = 16 * 2**20
"""Most bytes of a text file; no settings, captions or prompts come near it."""
MAX_LINE = 2**20
"""Most characters of one line of a file that is read line by line."""
_MAX_NAME = 255  # bytes, of ext4, APFS and NTFS alike
_TEMPORARY = ".oneword"  # ends the name of a file that is being written
_PROBE = ".oneword-"  # begins the name of the file that tests whether a folder can be written
LOCK = ".oneword-lock"
"""Name of the lock in a folder that has a writer; if a writer is killed it stays, and blocks
nobody."""
_GRACE_S = 2.0  # a process that was just killed may take this long to disappear
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class OutputError(UserError):
    """A file cannot be written."""


class InUseError(UserError):
    """Another process writes in a folder."""


class InputError(UserError):
    """A file cannot be read, or does not have the form that it must have."""


# --- names


def within(root: Path, name: object, *, error: type[UserError] = InputError) -> Path:
    """The path of a file below a folder, from a name that comes from outside.

    Args:
        root: The folder.
        name: Parts with "/" between them, as in "previews/step-000010.png".
        error: What to raise.

    Raises:
        UserError: the name is empty or absolute, leads out of the folder, or cannot be a file's
            name.
    """
    text = name if isinstance(name, str) else ""
    parts = text.split("/")
    wrong = (
        "nothing" if not text
        else "a path that leads elsewhere" if {"", ".", ".."} & set(parts)
        else "a drive or a backslash" if "\\" in text or re.match("[A-Za-z]:", text)
        else "control characters" if any(ord(c) < 32 or ord(c) == 127 for c in text)
        else "a part that is too long" if max(len(os.fsencode(p)) for p in parts) > _MAX_NAME
        else ""
    )  # fmt: skip
    path = root.joinpath(*PurePosixPath(text).parts) if not wrong else root
    if not wrong and not path.parent.resolve().is_relative_to(root.resolve()):
        wrong = "a link that leads elsewhere"
    if wrong:
        raise error(
            f"A name must be that of a file inside {root}, such as \"cat\" or \"previews/1.png\", "
            f"got {str(name)[:300]!r} ({wrong})."
        )  # fmt: skip
    return path


def is_there(path: Path) -> bool:
    """Whether anything exists under that name; for a name that no file can have, ``False``."""
    try:
        return path.exists() or path.is_symlink()
    except OSError:
        return False


def visible(folder: Path) -> list[Path]:
    """What a person put into a folder; hidden files, such as ``.DS_Store``, do not count."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


# --- reading


def open_regular(
    path: Path, *, most: int, must: str = "", error: type[UserError] = InputError
) -> BinaryIO:
    """Open a file to read bytes.

    Args:
        path: Where.
        most: Most bytes that it may have.
        must: Beginning of the message, such as "The prompts must be a readable text file".
        error: What to raise.

    Raises:
        UserError: the file is missing, cannot be read, is not a regular file, or is larger.
    """
    must = must or "The file must be readable and regular"
    try:
        # Checked before, because opening a device may do something, and again once it is open,
        # because it may have been replaced. Without O_NONBLOCK a FIFO would wait for its other end.
        reason = _irregular(os.stat(path).st_mode)
        if not reason:
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            file = os.fdopen(os.open(path, flags), "rb")
            found = os.fstat(file.fileno())
            reason = _irregular(found.st_mode)
            if not reason and found.st_size > most:
                reason = f"{_size(found.st_size)}, more than {_size(most)}"
            if not reason:
                return file
            file.close()
    except (OSError, ValueError) as problem:  # a NUL in the name is a ValueError
        text = getattr(problem, "strerror", None) or str(problem)
        raise error(f"{must}, got {path} ({text}).") from problem
    raise error(f"{must}, got {path} ({reason}).")


def _irregular(mode: int) -> str:
    if stat.S_ISREG(mode):
        return ""
    for is_it, kind in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_it(mode):
            return kind
    return "a device"


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count} bytes"


def read_bytes(
    path: Path, *, most: int, must: str = "", error: type[UserError] = InputError
) -> bytes:
    """All bytes of a regular file.

    Raises:
        UserError: as for :func:`open_regular`.
    """
    with open_regular(path, most=most, must=must, error=error) as file:
        data = file.read(os.fstat(file.fileno()).st_size + 1)
        while len(data) <= most and (more := file.read(min(most, 2**20))):
            data += more  # it grew, or is one of /proc that claims to be empty
    if len(data) > most:
        raise error(f"{must or 'The file must be readable'}, got {path} (more than {_size(most)}).")
    return data


def read_text(
    path: Path, *, most: int = MAX_TEXT, must: str = "", error: type[UserError] = InputError
) -> str:
    r"""The text of a file, with "\n" between its lines.

    UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises:
        UserError: as for :func:`open_regular`; or it is in another encoding.
    """
    must = must or "The file must be readable text"
    data = read_bytes(path, most=most, must=must, error=error)
    return decoded(data, path, error=error)


def decoded(data: bytes, path: object, *, error: type[UserError] = InputError) -> str:
    """Bytes as :func:`read_text` takes them.

    Raises:
        UserError: the bytes are in another encoding.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise error(
            f"{path} must be text in UTF-8, got another encoding ({data[problem.start]:#x} in line "
            f"{line}); save it as UTF-8."
        ) from problem
    if "\0" in text:
        raise error(
            f"{path} must be text in UTF-8, got NUL bytes: it is not text, or it is UTF-16 "
            "without a byte order mark; save it as UTF-8."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(
    path: Path, *, most: int = MAX_TEXT, must: str = "", error: type[UserError] = InputError
) -> list[str]:
    r"""The lines of a text file; only "\n", "\r\n" and "\r" end one, as in JSON Lines.

    Raises:
        UserError: as for :func:`read_text`.
    """
    lines = read_text(path, most=most, must=must, error=error).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_json(
    path: Path,
    form: Any = object,
    *,
    most: int = MAX_TEXT,
    must: str = "",
    error: type[UserError] = InputError,
) -> Any:
    """The value in a JSON file.

    Args:
        path: Where.
        form: The form that it must have; see :func:`check`.
        most: Most bytes that it may have.
        must: Beginning of the message.
        error: What to raise.

    Raises:
        UserError: as for :func:`read_text`; or it is not JSON, or JSON of another form.
    """
    must = must or "The file must be readable JSON"
    text = read_text(path, most=most, must=must, error=error)
    try:
        return check(parsed(text), form)
    except FormError as problem:
        raise error(f"{must}, got {path} ({problem}).") from problem


class FormError(Exception):
    """JSON, or a value in it, has another form; the text says where and which."""


def parsed(text: str | bytes) -> Any:
    """JSON, as a value.

    Raises:
        FormError: the text is not JSON, or is nested deeper than any of ours.
    """
    try:
        return json.loads(text)
    except RecursionError as problem:
        raise FormError("it is nested too deeply") from problem
    except ValueError as problem:
        raise FormError(str(problem)[:200]) from problem


def check(value: Any, form: Any, place: str = "it") -> Any:
    """Compare a value with a form, and return it.

    Args:
        value: What JSON or TOML holds.
        form: A type or a tuple of types (``bool`` is no ``int`` here, an ``int`` is a ``float``);
            ``[form]`` for a list; ``{str: form}`` for an object with any names; ``{"name": form}``
            for one with these names and perhaps others; names that end in "?" are optional.
        place: Name of the value in messages.

    Raises:
        FormError: the value does not have the form.
    """
    if isinstance(form, list):
        _must_be(value, list, place)
        for index, inner in enumerate(value):
            check(inner, form[0], f"{place}[{index}]")
    elif isinstance(form, dict) and str in form:
        _must_be(value, dict, place)
        for key, inner in value.items():
            check(inner, form[str], f"{place}[{key!r}]")
    elif isinstance(form, dict):
        _must_be(value, dict, place)
        for key, inner in form.items():
            name = key.removesuffix("?")
            if name in value:
                check(value[name], inner, f"{place}[{name!r}]")
            elif name == key:
                raise FormError(f"{place} has no {name!r}")
    else:
        _must_be(value, form, place)
    return value


def _must_be(value: Any, kinds: Any, place: str) -> None:
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if isinstance(value, bool):
        fits = bool in kinds or object in kinds
    else:
        fits = isinstance(value, kinds) or (isinstance(value, int) and float in kinds)
    if not fits:
        wanted = " or ".join(str(_JSON.get(kind, kind.__name__)) for kind in kinds)
        raise FormError(f"{place} must be {wanted}, got {repr(value)[:80]}")


_JSON = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


# --- writing


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file through a temporary one in the same folder, which is made if missing.

    Raises:
        OutputError: the folder cannot be written or the disk is full. Nothing is left behind.
    """
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write all of the files or none: all are complete before the first one is moved to its place.

    If the process is killed during the moves, the first ones are in place.

    Raises:
        OutputError: as for :func:`write_atomic`, for the first file that cannot be written.
    """
    moves: dict[Path, Path] = {}
    path = Path()
    try:
        with contextlib.ExitStack() as held:  # open until moved, so that none is swept up
            for path, data in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                handle, temporary = _temporary(path.parent, f".{path.name[:40]}.", _TEMPORARY)
                moves[temporary] = path
                file = held.enter_context(os.fdopen(handle, "wb"))
                file.write(data)
                file.flush()
                os.fsync(handle)
                os.chmod(temporary, 0o644)
                if fcntl is None:  # Windows cannot move an open file
                    file.close()
            while moves:
                temporary, path = next(iter(moves.items()))
                os.replace(temporary, path)
                del moves[temporary]
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path} must be writable, got: {getattr(error, 'strerror', None) or error}; make room "
            "or choose another folder."
        ) from error
    finally:
        for temporary in moves:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def is_plain_name(name: str) -> bool:
    """Whether a name is one of an entry in a folder, and leads nowhere else."""
    return bool(name) and name not in (".", "..") and Path(name).name == name


def check_writable(folder: Path) -> None:
    """Make a folder and check that it can be written, before costly work; an empty one may stay.

    Leftovers of killed writers in it are removed.

    Raises:
        OutputError: the folder is a file, or cannot be made or written.
    """
    probe: Path | None = None
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"The output folder {folder} is a file; pass another --output-dir.")
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = _temporary(folder, _PROBE, "")
        with os.fdopen(handle, "wb") as file:
            file.write(b"x")
        sweep(folder, below=False)
    except (OSError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        raise _unwritable(folder, error) from error
    finally:
        if probe is not None:  # a full disk must not leave it behind
            with contextlib.suppress(OSError):
                probe.unlink()


def check_target(path: Path) -> None:
    """Check that a file can be written there, before costly work; nothing is made.

    Raises:
        OutputError: it is a folder, or is in a folder that cannot be written.
    """
    try:
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        reason = (
            "a folder" if path.is_dir()
            else f"the file {folder} where a folder is needed" if not folder.is_dir()
            else f"no right to write in {folder}" if not os.access(folder, os.W_OK)
            else ""
        )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason:
        raise OutputError(f"{path} must be a file that can be written, got {reason}.")


def _unwritable(folder: Path, error: Exception) -> OutputError:
    return OutputError(
        f"The output folder {folder} must be writable, got: "
        f"{getattr(error, 'strerror', None) or error}; make room, or pass another --output-dir."
    )


def _temporary(folder: Path, prefix: str, suffix: str) -> tuple[int, Path]:
    """A new file that no ``sweep`` removes while its handle is open."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
        if fcntl is None:
            return handle, Path(name)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # otherwise removed between the two calls
            return handle, Path(name)
        os.close(handle)


# --- one writer at a time


class Hold:
    """A folder that only we write to, until it is released or this process ends."""

    def __init__(self, folder: Path, lock: Any) -> None:
        self.folder, self._lock = folder, lock

    def release(self) -> None:
        """Let others write; calling it again does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(OSError):  # first, while nobody else can hold it
                (self.folder / LOCK).unlink()
            with contextlib.suppress(OSError):
                lock.release()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(folder: Path, *, below: bool = False, wait_s: float = _GRACE_S) -> Hold:
    """Make a folder, remove the leftovers of killed writers, and keep other writers out of it.

    The lock is the system's (``flock``): it ends with the process that holds it, however that dies.
    If the file system has no locks, a warning says so, and nobody is kept out.

    Args:
        folder: The folder.
        below: Clean up the folders below, too.
        wait_s: How long to wait for another writer to finish, s.

    Raises:
        InUseError: another process, or another part of this one, writes there.
        OutputError: the folder is a file, or cannot be made or written.
    """
    import filelock  # takes as long as everything else here

    check_writable(folder)
    path = folder / LOCK
    lock: Any = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=wait_s, poll_interval=0.05)
    except filelock.Timeout as error:
        raise InUseError(
            f"Cannot write to the folder {folder} because another process is working "
            f"there{_holder(path)}; wait until it ends, stop it, or choose another folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _unwritable(folder, error) from error
        with contextlib.suppress(OSError):
            path.unlink()
        lock = None
        warnings.warn(
            f"The file system of {folder} has no locks: make sure that nothing else writes there "
            "in the meantime.",
            stacklevel=2,
        )
    else:
        with contextlib.suppress(OSError):  # only for messages
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    if below:
        sweep(folder)
    return Hold(folder, lock)


def _holder(path: Path) -> str:
    try:
        text = read_text(path, most=200)
    except UserError:
        return ""
    return f" ({text})" if text else ""


def sweep(folder: Path, *, below: bool = True) -> None:
    """Remove leftovers of killed writers; the files of those at work stay.

    Args:
        folder: Where.
        below: In the folders below, too.
    """
    for path in leftovers(folder, below=below):
        with contextlib.suppress(OSError):
            _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    if fcntl is None:
        path.unlink()
        return
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(handle)


def leftovers(folder: Path, *, below: bool = True) -> Iterator[Path]:
    """Our temporary files and locks in a folder and, on request, below it."""
    for path in folder.rglob(".*") if below else folder.glob(".*"):
        ours = path.name.endswith(_TEMPORARY) or path.name.startswith(_PROBE)
        if ours and path.is_file() and not path.is_symlink():
            yield path


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
