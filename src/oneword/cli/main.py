"""The command line: reads the options, loads the verb, and turns errors into exit codes.

Exit codes: 0 done; 1 the work itself failed (nothing learned, diverged); 2 a mistake in the request;
130 stopped by Ctrl-C, with the state saved; 141 nobody reads the output any more, as in a pipe
into ``head``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import select
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from oneword._escaping import terminal
from oneword._files import check_target, is_there
from oneword._version import __version__
from oneword.cli import ahead, completion, options
from oneword.cli.arguments import (
    COMMANDS,
    SUB_VERB_HELP,
    ModelsArguments,
    TrainArguments,
    sub_verbs,
)
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError, UserError
from oneword.runs import requests, threads
from oneword.training.started import started


VERBS = {
    "demo": "learn a word from five pictures, draw with it, score it: start here",
    "pictures": "caption pictures and make masks for them, with models that you name",
    "train": "learn a word from a folder of pictures",
    "generate": "draw pictures with learned words",
    "edit": "change a picture: inside a mask, as a whole, or by inversion",
    "web": "open the page in the browser: teach, draw, edit and keep words",
    "choose": "pick one of the words that a run saved during training",
    "evaluate": "score a learned word next to its references",
    "study": "compare ways to learn a word, as the paper does: runs, figures, findings",
    "userstudy": "ask people: questionnaires about a study's pictures, and their analysis",
    "encoder": "train an encoder, for train --initializer encoder",
    "baseline": "what the paper compares with: CLIP-guided drawing, variations",
    "palavra": "learn a word of a CLIP, to find pictures and guide drawing (PALAVRA)",
    "compose": "learn several words together, so that they can appear in one picture",
    "debias": "learn a fairer word from a small diverse set, and show who each word draws",
    "microworld": "the embedded model: train, evaluate, card",
    "models": "list the model families and what was tested where",
    "concept": "files of learned words: inspect, convert, merge, rename, extract, combine, card, push",
}

HELP = f"""oneword {__version__}: teach a frozen text-to-image model one new word

usage: oneword VERB [options]

{chr(10).join(f"  {verb:<11} {text}" for verb, text in VERBS.items())}

`oneword VERB --help` shows a verb's most common options, --help-all shows all.
To read options from a file: --config run.toml (the command line wins).
`oneword --install-completion` sets up bash, zsh or fish to complete verbs, options and values."""


_EXTRAS = {
    "skia": ("Drawing needs skia-python", "microworld"),
    "gradio": ("The page needs gradio", "web"),
}
"""What some modules need, by its name: in words, and the extra that brings it."""
_HELP = ("-h", "--help", "--help-all")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with contextlib.redirect_stderr(_Log(sys.stderr)):
        return _checked(argv)


def _checked(argv: Sequence[str] | None) -> int:
    try:
        code = _main(argv)
        sys.stdout.flush()  # here, where it may fail, rather than when the interpreter ends
    except BrokenPipeError:
        if not _drop_unread():
            raise
        return options.READER_GONE
    except OSError as error:  # the results' own disk is full
        _to_nowhere(sys.stdout)
        print(f"oneword: cannot print the results: {error.strerror or error}", file=sys.stderr)
        return 2
    if code == options.READER_GONE:  # noticed by ``screen``
        _drop_unread()
    return code


def _drop_unread() -> bool:
    """Let what nobody reads go nowhere, so that it fails no more; whether there is such output."""
    gone = []
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # it is no file
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0)):
                gone.append(stream)
    for stream in gone:
        _to_nowhere(stream)
    return bool(gone)


def _to_nowhere(stream: Any) -> None:
    """Let what is written to a stream fail no more, now and when the interpreter ends."""
    with contextlib.suppress(OSError):  # it is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Log:
    """Standard error, which ends no work: its disk may be full, its terminal closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lenient():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lenient():
            self._stream.flush()

    @contextlib.contextmanager
    def _lenient(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError:
            _to_nowhere(self._stream)


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in (*_HELP, "help"):
        print(HELP)
        return 0 if arguments else 2
    if arguments[0] in ("--version", "-V"):
        print(f"oneword {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb == "--install-completion":
        try:
            options.tell(completion.install(rest))
        except UserError as error:
            print(terminal(f"oneword: {error}", lines=True), file=sys.stderr)
            return 2
        return 0
    if verb not in VERBS:
        print(
            f"The verb must be one of {', '.join(VERBS)}, got {verb!r}"
            f"{options.nearest(verb, VERBS)}",
            file=sys.stderr,
        )
        return 2
    _hush()
    try:
        return _follow(verb, rest)
    except UserError as error:
        print(terminal(f"oneword {verb}: {error}", lines=True), file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:  # of a name that no file can have, a disk that fails
        where = f": {error.filename}" if error.filename else ""
        print(terminal(f"oneword {verb}: {error.strerror or error}{where}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\noneword {verb}: stopped.", file=sys.stderr)
        return 130
    except SystemExit as stop:  # tyro prints its own message
        return stop.code if isinstance(stop.code, int) else 2


def _follow(verb: str, words: list[str]) -> int:
    """Read the options, and only then load what they need."""
    if verb in SUB_VERB_HELP and (not words or words[0] in _HELP):
        print(SUB_VERB_HELP[verb])
        return 0 if words else 2
    name, given = _command(verb, words)
    kind, module = COMMANDS[name]
    own = started()
    if own is not None and name != "train":
        more = (
            "; to share words among processes, use --cluster local"
            if name == "train --jobs"
            else ""
        )
        raise ConfigError(
            f"Cannot start oneword {name} in {own.count} processes (WORLD_SIZE) because it is a "
            f"single process; leave out accelerate launch or torchrun{more}."
        )
    chosen, notes = options.parse(kind, name, given)
    for note in notes if own is None or own.rank == 0 else ():
        options.say(note)
    for option in ("json", "sheet"):
        if (target := getattr(chosen, option, None)) is not None:
            check_target(target)
    if isinstance(chosen, ModelsArguments) and chosen.probe is not None:
        module = "probe"
    if name == "train" and isinstance(chosen, TrainArguments) and own is None:
        module = "launch" if chosen.num_processes > 1 and not chosen.dry_run else module
    if name == "demo":
        options.say("Loading the model ...")  # the libraries' import takes seconds, too
    folder = getattr(chosen, "output_dir", None)
    was_there = folder is None or is_there(folder)
    ahead.look_for_hub(chosen)
    try:
        model = getattr(chosen, "model", None)
        if isinstance(model, ModelConfig) and not getattr(chosen, "preview_pictures", False):
            ahead.read_ahead(model)
        # a signal that no run listens to, before or behind its steps, would end the process
        with requests.unheard() if verb == "train" else contextlib.nullcontext():
            return _loaded(module).run(chosen, words)
    except UserError as error:
        if (
            ahead.AWAY.is_set() and error.__cause__ is not None
        ):  # a library's, of what it looked for
            options.say("Cannot reach the Hub; using only what is on this machine.")
        if folder is not None and not was_there:
            with contextlib.suppress(OSError):  # it may hold something
                folder.rmdir()
        raise
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        what, extra = _EXTRAS[error.name]
        raise ConfigError(
            f"{what}, which is not installed; run: pip install 'oneword[{extra}]'"
        ) from error


def _loaded(module: str) -> Any:
    """The module of a command, and with it torch, whose threads leave room for other processes."""
    threads.wait_briefly()
    others = threads.OtherWork()
    gc.disable()  # it would look through everything again and again, for a fifth of the time
    try:
        loaded = importlib.import_module(f"oneword.cli.{module}")
    finally:
        gc.enable()
    others.leave_room()
    return loaded


def _command(verb: str, words: list[str]) -> tuple[str, list[str]]:
    """A command's full name, and its options: what stands before them gets an option's name."""
    if verb == "train" and any(word.partition("=")[0] == "--jobs" for word in words):
        return "train --jobs", words
    if verb == "debias" and words and not words[0].startswith("-"):
        return verb, ["--word", *words]
    known = sub_verbs(verb)
    if not known:
        return verb, words
    sub, *words = words
    if sub not in known:
        raise ConfigError(
            f"The sub-verb must be one of {', '.join(known)}, got {sub!r}{options.nearest(sub, known)}"
        )
    if verb == "concept" and words and not words[0].startswith("-"):
        words = ["--files", *words]
    return f"{verb} {sub}", words


class _NoTorchvision(logging.Filter):
    """torchvision has no part here; that it is missing is no news to a user."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "requires torchvision" not in record.getMessage()


_format = warnings.formatwarning


def _plainly(message: Any, category: Any, filename: str, lineno: int, line: Any = None) -> str:
    """Our own warnings are sentences for the person: no file and no line of code with them."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return terminal(f"{message}\n", lines=True)
    return _format(message, category, filename, lineno, line)


def _hush() -> None:
    warnings.formatwarning = _plainly
    logging.getLogger("transformers.utils.import_utils").addFilter(_NoTorchvision())
    # bitsandbytes tells at every start that one of its kernels for the CPU is not there
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR + 1)


if __name__ == "__main__":
    sys.exit(main())
