"""Commands that a person can paste, from words or from what a verb was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from oneword._escaping import shell


def command(verb: str, *words: Any) -> str:
    """A command as a person can paste it."""
    return shell(["oneword", *verb.split(), *words])


def command_for(verb: str, config: Any, *positional: str, always: Collection[str] = ()) -> str:
    """The command that asks for the same as a config does.

    Args:
        verb: The command's verb.
        config: Its settings, a dataclass; what is as usual is left out.
        positional: Names of the settings that the verb takes without their names, in its order.
        always: Names of settings that are written even where they are as usual.
    """
    first = [word for name in positional for word in _words(getattr(config, name))]
    usual = {field.name: _usual(field) for field in dataclasses.fields(config)}
    return command(verb, *first, *_options(config, usual, without=positional, always=always))


def _options(
    config: Any, usual: Mapping[str, Any], *, without: Collection[str], always: Collection[str]
) -> Iterator[str]:
    """The options of all settings that are not as usual, those of parts among them."""
    for name, normal in usual.items():
        value = getattr(config, name)
        if name in without:
            continue
        if dataclasses.is_dataclass(value):
            part = {field.name: getattr(normal, field.name) for field in dataclasses.fields(value)}
            yield from _options(value, part, without=(), always=always)
        elif name in always or value != normal:
            yield from _option(name, value)


def _usual(field: dataclasses.Field[Any]) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _words(value: Any) -> list[str]:
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return [str(one) for one in value] if several else [str(value)]


def _option(name: str, value: Any) -> Iterator[str]:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        yield option if value else f"--no-{option.removeprefix('--')}"
        return
    values = _words(value)
    if len(values) == 1 and values[0].startswith("-"):
        yield f"{option}={values[0]}"  # or it would be read as an option
    else:
        yield from (option, *values)
