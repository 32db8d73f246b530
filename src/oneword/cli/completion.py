"""``oneword --install-completion``: the shell completes verbs, options and their values."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from oneword._files import write_atomic
from oneword.cli import options
from oneword.cli.arguments import COMMANDS, JobsArguments, sub_verbs
from oneword.errors import ConfigError


_PLACES = {
    "bash": ("XDG_DATA_HOME", ".local/share", "bash-completion/completions/oneword"),
    "zsh": ("ZDOTDIR", "", ".zfunc/_oneword"),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/oneword.fish"),
}
"""Where each shell looks: the variable that names a folder, the one in the home folder where it is
unset, and the file in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Train(JobsArguments):
    """What ``oneword train`` takes, with and without ``--jobs``."""

    train_data_dir: Path = Path()
    """Folder with three to five pictures of one thing."""


def install(words: list[str]) -> str:
    """Write a shell's completion script where that shell looks for it.

    Args:
        words: The shell's name; none: that of ``$SHELL``.

    Returns:
        What was done, and what the shell still needs.

    Raises:
        ConfigError: the shell is none of those that are known.
        OutputError: the script cannot be written.
    """
    shell = words[0] if words else Path(os.environ.get("SHELL", "")).name
    if shell not in _PLACES or len(words) > 1:
        given = " ".join(words) or shell or "no SHELL"
        raise ConfigError(
            f"--install-completion must be followed by one of {', '.join(_PLACES)}, got {given}"
            f"{options.nearest(shell, _PLACES)}"
        )
    variable, default, name = _PLACES[shell]
    path = Path(os.environ.get(variable) or Path.home() / default) / name
    write_atomic(path, script(shell).encode())
    then = {
        "bash": "Open a new shell. If the package bash-completion is not installed, first add `source "
        f"{path}` to ~/.bashrc.",
        "zsh": f"Add `fpath=({path.parent} $fpath); autoload -Uz compinit; compinit` to ~/.zshrc "
        "(once), then open a new shell.",
        "fish": "Open a new shell.",
    }[shell]
    return f"Completion for {shell} is in {path}. {then}"


def script(shell: str) -> str:
    """The completion script of the whole command line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script"
        try:
            tyro.cli(
                _everything(),
                prog="oneword",
                args=["--tyro-write-completion", shell, str(path)],
                config=options.CONFIG,
            )
        except SystemExit as stop:  # it ends the command when it has written
            if stop.code:
                raise
        return path.read_text(encoding="utf-8")


def _everything() -> Any:
    """All commands as one type: a union of the verbs, of which some are unions of sub-verbs."""
    verbs: dict[str, Any] = {}
    for name in COMMANDS:
        verb = name.partition(" ")[0]
        if subs := sub_verbs(verb):
            field = ("sub_verb", _one_of(subs))
            verbs[verb] = dataclasses.make_dataclass(verb, [field], kw_only=True)
        elif verb not in verbs:
            verbs[verb] = _Train if verb == "train" else COMMANDS[name][0]
    return _one_of(verbs)


def _one_of(kinds: Mapping[str, type[Any]]) -> Any:
    for kind in kinds.values():
        options.explain(kind)
    named = [Annotated[kind, tyro.conf.subcommand(name=name)] for name, kind in kinds.items()]
    return typing.Union[tuple(named)]  # noqa: UP007
