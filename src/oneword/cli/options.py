"""From argv and a TOML file to a verb's dataclass, through tyro.

Option names are those of diffusers' textual-inversion script where it has them, with dashes or
underscores; what that script needs and oneword does not is accepted and explained.
"""

from __future__ import annotations

import dataclasses
import sys
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

import tyro

from oneword.config import ConfigError


T = TypeVar("T")

ALIASES = {
    "--pretrained-model-name-or-path": "--model",
    "--pretrained-vae-model-name-or-path": "--vae",
    "--mixed-precision": "--dtype",
    "--save-steps": "--checkpointing-steps",
}
"""Other tools' names of our options."""
VALUES = {("--dtype", "no"): "fp32"}
NOT_NEEDED = {
    "--repeats": (1, "pictures are drawn at random, not repeated"),
    "--enable-xformers-memory-efficient-attention": (
        0,
        "attention is PyTorch's own fast kernel",
    ),
    "--allow-tf32": (0, "the rows are trained in fp32 over the model's own type"),
    "--gradient-checkpointing": (0, "the frozen model keeps no weight gradients"),
    "--dataloader-num-workers": (1, "pictures are read once"),
    "--report-to": (1, "metrics are written to metrics.jsonl in the run folder"),
    "--logging-dir": (1, "metrics are written to metrics.jsonl in the run folder"),
    "--save-as-full-pipeline": (0, "only the word is saved; the model is not changed"),
    "--num-train-epochs": (1, "max_train_steps decides"),
    "--resume-from-checkpoint": (1, "the same command again resumes"),
    "--checkpoints-total-limit": (1, "one state is kept"),
}
"""Options of diffusers' script that have nothing to do here: (number of values, why)."""


def normalised(arguments: Sequence[str], *, notes: list[str]) -> list[str]:
    """Bring other spellings to our option names; what is dropped is said in ``notes``."""
    out: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            out.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        name = ALIASES.get(name, name)
        if name in NOT_NEEDED:
            count, why = NOT_NEEDED[name]
            notes.append(f"{name} is not needed here: {why}.")
            if count and not equals and queue:
                queue.pop(0)
            continue
        if not equals and queue and (name, queue[0]) in VALUES:
            out += [name, VALUES[(name, queue.pop(0))]]
            continue
        out.append(f"{name}={VALUES.get((name, value), value)}" if equals else name)
    return out


def _optional_flags(cls: type[Any]) -> set[str]:
    """Names of the fields that are true, false or unset; on the command line they are flags."""
    found: set[str] = set()
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= _optional_flags(typing.cast("type[Any]", hint))
        elif isinstance(hint, UnionType) and set(typing.get_args(hint)) == {
            bool,
            type(None),
        }:
            found.add(field.name)
    return found


def _spell_flags(cls: type[Any], arguments: list[str]) -> list[str]:
    names = {"--" + name.replace("_", "-"): True for name in _optional_flags(cls)}
    names |= {name.replace("--", "--no-", 1): False for name in list(names)}
    out: list[str] = []
    for i, word in enumerate(arguments):
        out.append(word)
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        if word in names and following not in ("True", "False", "None"):
            out[-1:] = [word.replace("--no-", "--", 1), str(names[word])]
    return out


def parse(cls: type[T], verb: str, arguments: Sequence[str]) -> tuple[T, list[str]]:
    """Build a verb's dataclass from its arguments, over the file named by --config.

    Returns:
        The value, and notes about options that were dropped.

    Raises:
        ConfigError: the TOML file cannot be read or names an unknown option.
        SystemExit: tyro has printed help or an error.
    """
    notes: list[str] = []
    words = _spell_flags(cls, normalised(arguments, notes=notes))
    default: Any = None
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--config":
            if not equals and i + 1 >= len(words):
                raise ConfigError(
                    "--config must be followed by a TOML file, got nothing."
                )
            path = Path(value if equals else words[i + 1])
            del words[i : i + (1 if equals else 2)]
            default = from_toml(cls, path)
            break
    kwargs = {} if default is None else {"default": default}
    try:
        value = tyro.cli(
            cls,
            prog=f"oneword {verb}",
            args=words,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
            **kwargs,
        )
    except ConfigError:
        raise
    return value, notes


def from_toml(cls: type[T], path: Path) -> T:
    """Read a dataclass from a flat TOML file, whose keys are the option names."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"The configuration must be a readable TOML file, got {path} ({error.strerror})."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The configuration {path} must be TOML: {error}.") from error
    flat = {
        ALIASES.get("--" + k.replace("_", "-"), "--" + k.replace("_", "-"))[2:].replace(
            "-", "_"
        ): v
        for k, v in table.items()
    }
    value = _filled(cls, flat)
    if flat:
        raise ConfigError(
            f"The configuration {path} must name only known options, got {', '.join(sorted(flat))}."
        )
    return value


def _filled(cls: type[Any], flat: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            values[field.name] = _filled(typing.cast("type[Any]", hint), flat)
        elif field.name in flat:
            value = flat.pop(field.name)
            value = tuple(value) if isinstance(value, list) else value
            values[field.name] = Path(value) if "Path" in str(hint) and value else value
        elif (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            values[field.name] = tyro.MISSING
    return cls(**values)


def say(message: str) -> None:
    """Print a line about the work, apart from results."""
    print(message, file=sys.stderr, flush=True)
