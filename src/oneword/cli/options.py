"""From argv and a TOML file to a verb's dataclass, and its help, through tyro.

Option names are those of diffusers' textual-inversion script where it has them, with dashes or
underscores; what that script needs and oneword does not is accepted and explained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import inspect
import io
import math
import re
import sys
import time
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, TypeVar

import docstring_parser
import tyro

from oneword._escaping import terminal
from oneword._files import read_text, sweep, write_json_atomic
from oneword.cli.arguments import COMMON
from oneword.config.inversion import InversionConfig
from oneword.config.presets import PRESETS, SETUPS
from oneword.config.runs import TrackerName
from oneword.errors import ConfigError, UserError, require


T = TypeVar("T")
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
"""How tyro names options: without the names of the settings that they are part of."""
READER_GONE = 141
"""Exit code where nobody reads the output any more: that of a program that SIGPIPE ends."""

ALIASES = {
    "--pretrained-model-name-or-path": "--model",
    "--pretrained-vae-model-name-or-path": "--vae",
    "--mixed-precision": "--dtype",
    "--validation-prompt": "--validation-prompts",
    "--no-flip": "--no-random-flip",
    "--out": "--output-dir",
    "--optimizer-type": "--optimizer",
    "--min-snr-gamma": "--snr-gamma",
}
"""Other names of our options, most of them other tools'."""
FLAGS = {"--center-crop": ("--fit", "crop", "squash")}
"""Flags that are a value of ours: the option, its value, and the value of the opposite."""
VALUES = {
    ("--dtype", "no"): "fp32",
    ("--optimizer", "AdamW"): "adamw",
    ("--optimizer", "AdamW8bit"): "adamw8bit",
    ("--optimizer", "Prodigy"): "prodigy",
    ("--optimizer", "Lion"): "lion",
    ("--optimizer", "AdaFactor"): "adafactor",
    ("--optimizer", "Adafactor"): "adafactor",
}
"""Values that other tools call otherwise, by option."""
NOT_NEEDED = {
    "--repeats": (1, "pictures are drawn at random, not repeated"),
    "--enable-xformers-memory-efficient-attention": (
        0,
        "PyTorch's fast attention is always on",
    ),
    "--allow-tf32": (0, "--dtype fp32 uses it on CUDA"),
    "--dataloader-num-workers": (1, "pictures are read once"),
    "--logging-dir": (1, "trackers write to tracking/ in the run folder"),
    "--num-train-epochs": (1, "max_train_steps sets the length"),
    "--resume-from-checkpoint": (1, "running the same command again resumes"),
    "--checkpoints-total-limit": (1, "only one checkpoint is kept"),
    "--tokenizer-name": (1, "the model's own tokenizer is used"),
    "--validation-epochs": (1, "--validation-steps sets how often previews are drawn"),
    "--local-rank": (
        1,
        (
            "torchrun and accelerate launch set LOCAL_RANK, and --num-processes starts processes "
            "itself"
        ),
    ),
    "--no-safe-serialization": (0, "words are saved as safetensors"),
    "--only-save-embeds": (0, "only the word is saved"),
}
"""Options of diffusers' script that have nothing to do here: (number of values, why)."""


ADAM_8BIT = "--use-8bit-adam"
ACCUMULATION = "--gradient-accumulation-steps"

SECRETS = ("--hub-token", "--token")
"""Options whose value no report and no file may hold."""


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command's words without the options that hold a secret."""
    kept: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name, equals, _ = word.partition("=")
        if name.replace("_", "-") not in SECRETS:
            kept.append(word)
        elif not equals and queue:
            queue.pop(0)
    return kept


def normalised(arguments: Sequence[str], *, notes: list[str]) -> list[str]:
    """Bring other spellings to our option names; what is dropped is said in ``notes``."""
    out: list[str] = []
    queue = list(arguments)
    accumulated = "1"
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            out.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        name = ALIASES.get(name, name)
        if name == ADAM_8BIT:
            out += ["--optimizer", "adamw8bit"]
            continue
        positive = name.replace("--no-", "--", 1)
        if positive in FLAGS:
            if not equals and queue and queue[0] in ("True", "False"):
                value = queue.pop(0)
            option, on, off = FLAGS[positive]
            out += [option, on if (value != "False") == (name == positive) else off]
            continue
        if name == ACCUMULATION:
            accumulated = value if equals else queue.pop(0) if queue else ""
            continue
        if name in NOT_NEEDED:
            count, why = NOT_NEEDED[name]
            notes.append(f"{name} is not needed here: {why}.")
            if count and not equals and queue and not queue[0].startswith("--"):
                queue.pop(0)
            continue
        if name == "--report-to" and (value if equals else "".join(queue[:1])) == "all":
            out += [name, *_installed_trackers()]
            del queue[: not equals]
            continue
        if not equals and queue and (name, queue[0]) in VALUES:
            equals, value = "=", queue.pop(0)
        if equals:
            value = VALUES.get((name, value), value)
            out += [f"{name}={value}"] if value.startswith("-") else [name, value]
        else:
            out.append(name)
    return _accumulated(out, accumulated, notes)


def _installed_trackers() -> list[str]:
    """What accelerate's "all" means: every tracker whose package is there."""
    names = typing.get_args(TrackerName)
    return [name for name in names if name == "csv" or importlib.util.find_spec(name)]


def _with_values(cls: type[Any], words: Sequence[str]) -> list[str]:
    """Let a value begin with a dash where it stands behind its option.

    Raises:
        ConfigError: a word begins with a dash and is neither an option, nor a value behind one,
            nor a number.
    """
    options = {"--" + name.replace("_", "-") for name in _fields(cls)}
    takes = options - _flags(cls)
    options |= {name.replace("--", "--no-", 1) for name in options} | {"--help"}
    out: list[str] = []
    for word in words:
        behind = out[-1] if out and out[-1] in takes else ""
        name = word.partition("=")[0]
        if word.startswith("--") and name not in options:
            meant = nearest(name, [*sorted(options), *ALIASES, *NOT_NEEDED])
            raise ConfigError(
                f"{behind} must be followed by a value, got {word!r}, which is no option "
                f"either{meant} To pass a value that begins with two dashes, write "
                f"{behind}={word}."
                if behind
                else f"{name} is not an option here{meant}"
            )
        if not re.match(r"-(?!-|h$)", word) or _is_number(word):
            out.append(word)
        elif behind:
            out[-1] += f"={word}"
        else:
            raise ConfigError(
                f"Options must begin with two dashes, got {word!r}. To pass a value that begins "
                f"with one dash, write it right after its option: --placeholder-token={word}."
            )
    return out


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a misspelt name: what was meant, where something is near."""
    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]}?" if found else "."


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _accumulated(words: list[str], steps: str, notes: list[str]) -> list[str]:
    """Samples of several small steps are those of one here, parted into passes."""
    if steps == "1":
        return words
    places = [i + 1 for i, word in enumerate(words[:-1]) if word == "--train-batch-size"]
    if not places or not steps.isdecimal() or not words[places[-1]].isdecimal():
        raise ConfigError(
            f"{ACCUMULATION} must be used with a number for --train-batch-size, which it "
            f"multiplies, got {steps or 'nothing'!r}. Pass the product as --train-batch-size, and "
            "the number of samples at a time as --micro-batch-size."
        )
    at_once, place = int(words[places[-1]]), places[-1]
    batch = at_once * int(steps)
    notes.append(
        f"{ACCUMULATION} is the same as --train-batch-size {batch} --micro-batch-size {at_once}: "
        f"a step takes {batch} samples, {at_once} at a time."
    )
    return [*words[:place], str(batch), "--micro-batch-size", str(at_once), *words[place + 1 :]]


def _optional_flags(cls: type[Any]) -> set[str]:
    """Names of the fields that are true, false or unset; on the command line they are flags."""
    found: set[str] = set()
    hints = typing.get_type_hints(cls)
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


def _flags(cls: type[Any]) -> set[str]:
    """Options that take no value."""
    hints = typing.get_type_hints(cls)
    found = {f"--{name.replace('_', '-')}" for name in _optional_flags(cls)}
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            found |= _flags(typing.cast("type[Any]", hints[field.name]))
        elif hints[field.name] is bool:
            found.add("--" + field.name.replace("_", "-"))
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


def explain(cls: type[Any]) -> None:
    """Annotate the fields that may stay unset, so that help shows a type and where a value comes from.

    Done here rather than in ``config``, which knows nothing of tyro.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            explain(typing.cast("type[Any]", hint))
            continue
        if cls is InversionConfig and field.name == "setup":  # a string, since a study has more
            names = tyro.extras.literal_type_from_choices(SETUPS)
            others = ", ".join(name for name in SETUPS if name != field.default)
            listed = f"(default: {field.default}; others: {others})"
            told = tyro.conf.arg(metavar="NAME", help_behavior_hint=listed)
            cls.__annotations__[field.name] = typing.Annotated[names, told]
            continue
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if typing.get_origin(hint) is tuple and field.default == ():
            origin = tyro.conf.arg(help_behavior_hint="")  # its own words say what none means
        elif typing.get_origin(hint) in (UnionType, typing.Union) and len(kinds) == 1:
            choices = ("True", "False") if kinds[0] is bool else typing.get_args(kinds[0])
            metavar = f"{{{','.join(map(str, choices))}}}" if choices else kinds[0].__name__.upper()
            hint_of_default = _default(field.name) if issubclass(cls, InversionConfig) else ""
            origin = tyro.conf.arg(metavar=metavar, help_behavior_hint=hint_of_default)
        else:
            continue
        owner = next(c for c in cls.__mro__ if field.name in inspect.get_annotations(c))
        owner.__annotations__[field.name] = typing.Annotated[hint, origin]


def _default(name: str) -> str:
    """What an unset option comes to."""
    ours, theirs = (PRESETS["default"][f] for f in ("microworld", "*"))
    if name not in ours or name not in theirs:  # its own words say it
        return ""
    if name == "prompt_templates":
        return f"(default: {' or '.join(ours[name].values())})"
    if ours[name] == theirs[name]:
        return f"(default: {ours[name]})"
    return f"(default: {ours[name]} on microworld, {theirs[name]} elsewhere)"


def _show_common(cls: type[Any], verb: str) -> NoReturn:
    """Print the options that most people use, in groups and with a sentence each, and end."""
    owners, texts = {}, {}
    for kind in _classes(cls):
        hints = typing.get_type_hints(kind, include_extras=True)
        owners |= {f.name: (hints[f.name], f) for f in dataclasses.fields(kind)}
        for base in reversed(kind.__mro__):
            if dataclasses.is_dataclass(base):
                found = docstring_parser.parse_from_object(base).params
                texts |= {one.arg_name: one.description for one in found}
    groups = []
    for group, names in COMMON[verb].items():
        own = []
        for name in names:
            hint, field = owners[name]
            sentence = re.split(r"(?<!al)\. (?=[A-Z])", " ".join((texts[name] or "").split()))[0]
            told = tyro.conf.arg(help=f"{sentence.rstrip('.')}.")
            default = dataclasses.field(
                default=field.default, default_factory=field.default_factory
            )
            own.append((name, typing.Annotated[hint, told], default))
        groups.append((group, dataclasses.make_dataclass(group, own, kw_only=True)))
    said = inspect.cleandoc(cls.__doc__ or "")
    hidden = sum(
        bool({tyro.conf.Suppress, tyro.conf.Positional} & {*getattr(hint, "__metadata__", ())})
        for hint in typing.get_type_hints(cls, include_extras=True).values()
    )
    count = sum(1 for _ in _fields(cls)) - hidden
    tyro.cli(
        dataclasses.make_dataclass(cls.__name__, groups, kw_only=True),
        prog=f"oneword {verb}",
        description=f"{said}\n\nThese are the most common options; --help-all shows all {count}.",
        args=["--help"],
        config=CONFIG,
    )
    raise AssertionError("help ends the command")


def _classes(cls: type[Any]) -> Iterator[type[Any]]:
    """A dataclass of options, and those that it holds."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        if dataclasses.is_dataclass(hint):
            yield from _classes(typing.cast("type[Any]", hint))


def parse(
    cls: type[T], verb: str, arguments: Sequence[str], *, alone: bool = True
) -> tuple[T, list[str]]:
    """Build a verb's dataclass from its arguments, over the file named by --config.

    Args:
        cls: The dataclass.
        verb: The command's name.
        arguments: Its words.
        alone: Whether tyro may print what it finds wrong, and end the command; otherwise it is
            raised, for those who have others to go on with.

    Returns:
        The value, and notes about options that were dropped.

    Raises:
        UserError: a value is out of its range, or the TOML file cannot be used.
        SystemExit: tyro has printed help or an error.
    """
    notes: list[str] = []
    words = list(arguments)
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--config":
            if not equals and i + 1 >= len(words):
                raise ConfigError("--config must be followed by a TOML file, got nothing.")
            path = Path(value if equals else words[i + 1])
            del words[i : i + (1 if equals else 2)]
            words = words_of(cls, read_toml(path), path) + words  # what comes later wins
            break
    explain(cls)
    if "--help-all" in words:
        words = ["--help"]
    elif verb in COMMON and {"-h", "--help"} & {*words}:
        _show_common(cls, verb)
    words = _with_values(cls, _spell_flags(cls, normalised(words, notes=notes)))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            value = tyro.cli(cls, prog=f"oneword {verb}", args=words, config=CONFIG)
    except SystemExit as stop:
        # tyro draws a box around what a dataclass refuses; the sentence alone is clearer
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, UserError):
            raise cause from None
        sentence = _sentence(printed.getvalue())
        if not alone or _CHOICE.match(sentence):
            raise ConfigError(_of_choice(sentence)) from None
        sys.stderr.write(printed.getvalue())
        raise
    return value, notes


def _sentence(box: str) -> str:
    """What tyro draws a box around, without the box and the help that it adds."""
    lines = [line.strip("│╭╮╰╯|+ ") for line in box.splitlines()[1:]]
    parts = [" ".join(part.split()) for part in re.split("[─-]{9,}", " ".join(lines))]
    text = next(filter(None, parts), "").partition(" Got errors:")[0]
    found = re.match(
        r"Error parsing (\S+): .*?(?:instantiated from \[|base 10: )(.+?)\]?\.?$", text
    )
    if found is None:
        return text or "Cannot read the options."
    kind = next((w for line in lines if (w := line.removeprefix(found[1] + " ")) != line), "")
    return f"{found[1]} must be {kind or 'another value'}, got {found[2]}."


_CHOICE = re.compile(r"invalid choice '(.*)' for argument '(.+)'\. Expected one of \((.*)\)\.$")


def _of_choice(sentence: str) -> str:
    """What tyro says of a value that is none of an option's, in our words."""
    found = _CHOICE.match(sentence)
    if found is None:
        return sentence
    given, option, choices = found.groups()
    names = re.findall(r"'([^']*)'", choices)
    if "None" in names:  # unset; tyro names such choices in any order
        names = sorted({*names} - {"None"})
    name = option if option.startswith("-") else option.lower()
    return f"{name} must be one of {', '.join(names)}, got {given!r}{nearest(given, names)}"


def settings(cls: type[T], chosen: Any) -> T:
    """A verb's arguments without what only its command line has: the config that they extend."""
    fields = dataclasses.fields(typing.cast("type[Any]", cls))
    return cls(**{field.name: getattr(chosen, field.name) for field in fields})


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of options.

    Raises:
        ConfigError: it is not there, or is no TOML.
    """
    must = "The configuration must be a readable TOML file"
    text = read_text(path, must=must, error=ConfigError)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The configuration {path} must be TOML: {error}.") from error


def words_of(cls: type[Any], table: Mapping[str, Any], where: object) -> list[str]:
    """Turn a flat table, whose keys are option names, into command-line words.

    Raises:
        ConfigError: a key is no option, or a value cannot stand where it does.
    """
    known = {"--" + name.replace("_", "-") for name in _fields(cls)}
    known |= ALIASES.keys() | FLAGS.keys() | NOT_NEEDED.keys() | {ACCUMULATION, ADAM_8BIT}
    words, unknown = [], []
    for key, value in table.items():
        name = "--" + key.replace("_", "-")
        if name not in known:
            unknown.append(key)
        elif name in {*NOT_NEEDED, ADAM_8BIT} and value is False:
            continue
        elif isinstance(value, bool):
            words.append(name if value else name.replace("--", "--no-", 1))
        else:
            values = [str(v) for v in value] if isinstance(value, list) else [str(value)]
            dashed = [v for v in values[1:] if v.startswith("-") and not _is_number(v)]
            if dashed:
                raise ConfigError(
                    f"A value that begins with a dash must come first in {key} of the "
                    f"configuration {where}, got {dashed[0]!r} later."
                )
            words += [name, *values]
            if values and values[0].startswith("-"):
                words[-len(values) - 1 :] = [f"{name}={values[0]}", *values[1:]]
    if unknown:
        raise ConfigError(
            f"The configuration {where} must contain only known options, got "
            f"{', '.join(sorted(unknown))}{nearest('--' + unknown[0].replace('_', '-'), known)}"
        )
    return words


def _fields(cls: type[Any]) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _fields(typing.cast("type[Any]", hints[field.name]))
        else:
            yield field.name


def write_json(path: Path | None, value: Any) -> None:
    """Write the file of --json, where one is asked for; what a killed command left there goes.

    Raises:
        OutputError: it cannot be written.
    """
    if path is not None:
        write_json_atomic(path, value)
        sweep(path.parent, below=False)


class TimeUp(KeyboardInterrupt):
    """The minutes of this call are over."""


class Deadline:
    """The end of a call's time.

    Args:
        minutes: From now on; ``None``: no end.

    Raises:
        ConfigError: the number is not positive.
    """

    said = "Time is up. To continue, run the same command again."

    def __init__(self, minutes: float | None) -> None:
        require(minutes is None or minutes > 0, f"minutes must be above 0, got {minutes}.")
        self._end_s = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._end_s

    def check(self) -> None:
        """Stop what can be stopped and resumed, if the time is over.

        Raises:
            TimeUp: it is.
        """
        if self.is_over:
            raise TimeUp


def tell(message: str) -> None:
    """Print a result, of which nothing can command the terminal."""
    print(terminal(message, lines=True))


def say(message: str) -> None:
    """Print a line about the work, apart from results."""
    print(terminal(message, lines=True), file=sys.stderr, flush=True)
