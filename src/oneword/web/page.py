"""What all tabs share: the folder, the worker, and how a mistake is shown."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from PIL import Image

from oneword.concepts.library import Entry, Library
from oneword.config.drawing import EditConfig, GenerateConfig
from oneword.config.model import ModelConfig
from oneword.config.scoring import ChooseConfig
from oneword.config.web import WebConfig
from oneword.errors import UserError, why
from oneword.web.desk import Desk
from oneword.web.uploads import Uploads
from oneword.web.workspace import Workspace


Made = list[tuple[Path, dict[str, str]]]
"""Pictures, each with what made it."""
Shown = tuple[Any, Any]
"""An output of a handler: what tells one value from the next, by ``==``, and the value."""
AT_ONCE: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "queue": False,
    "trigger_mode": "always_last",
}
"""How an event is bound whose answer takes no time: it passes gradio's queue, and what was
typed meanwhile counts."""
_Asked = TypeVar("_Asked", GenerateConfig, EditConfig, ChooseConfig)


@dataclass(frozen=True, slots=True)
class Page:
    """What a tab is built on."""

    config: WebConfig
    workspace: Workspace
    desk: Desk
    library: Library
    uploads: Uploads

    @property
    def model(self) -> ModelConfig:
        """The model that everyone at the page works with."""
        return self.desk.model

    def stranger(self, entry: Entry) -> str:
        """The model of a word that was learned on another than the loaded one; "" for others."""
        loaded = self.desk.loaded
        return "" if loaded is None or entry.base_model == loaded.name else entry.base_model

    def _entries(self) -> dict[str, Entry]:
        """The words by placeholder; of one name, one of the loaded model before the others."""
        found: dict[str, Entry] = {}
        # one that cannot be read has no placeholder
        for entry in sorted(self.library.entries(), key=lambda own: bool(self.stranger(own))):
            for token in entry.tokens:
                found.setdefault(token, entry)
        return found

    def learned(self) -> dict[str, Path]:
        """The run folders of the words that there are, by placeholder."""
        return {token: self.library.root / own.name for token, own in self._entries().items()}

    def choices(self) -> Shown:
        """The placeholders that there are, as a field's choices; another model is named."""
        own = [(token, self.stranger(entry)) for token, entry in sorted(self._entries().items())]
        choices = [(f"{token} ({model})" if model else token, token) for token, model in own]
        return choices, gr.update(choices=choices)

    def new_drawing(self) -> Path:
        """A folder for pictures that does not exist yet."""
        return self.workspace.drawings / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"

    def drawing(
        self, ask: Callable[[], _Asked], show: Callable[[_Asked, Made], tuple[Any, ...]], count: int
    ) -> Iterator[tuple[Any, ...]]:
        """Draw or edit in the worker, as a handler's outputs: a line on how far it is, and results.

        Args:
            ask: Gives what is to be done; its user errors are that line.
            show: From that and the pictures, the outputs after the line.
            count: How many outputs these are; until the pictures are there, they stay as they are.
        """
        unchanged = [gr.skip()] * count
        try:
            config = ask()
            number, future = self.desk.ask(config)
            while True:
                try:
                    made: Made = future.result(timeout=0.3)
                    break
                except NotYet:
                    share = self.desk.share(number)
                    line = f"Drawing: {share:.0%}." if share else "Drawing starts after this step."
                    yield line, *unchanged
            yield f"{num_pictures(len(made))} in {made[0][0].parent}.", *show(config, made)
        except REFUSALS as error:
            yield sentence(error), *unchanged


@dataclass(frozen=True, slots=True)
class Watch:
    """What of a tab changes without a click; it is looked at once a second."""

    look: Callable[..., tuple[Any, ...]]
    """A handler, as :func:`changed` makes them."""
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    with_model: Sequence[dict[str, Any]] = ()
    """What is done anew when the model is another, each as the arguments of gradio's event."""


def changed(look: Callable[..., Sequence[Shown]]) -> Callable[..., tuple[Any, ...]]:
    """A handler that leaves alone what is shown already, since drawing it anew takes time.

    Args:
        look: From the inputs, what the outputs are.

    Returns:
        A handler whose first input and output, a state that begins as ``[]``, is what was shown.
    """

    def handle(known: Sequence[Any], *given: Any) -> tuple[Any, ...]:
        found = look(*given)
        old = known if len(known) == len(found) else (object(),) * len(found)
        values = [
            gr.skip() if key == was else value
            for (key, value), was in zip(found, old, strict=True)
        ]  # fmt: skip
        return [key for key, _ in found], *values

    return handle


def name_field(choices: Sequence[str], value: str | None) -> Shown:
    """A field that chooses among names, as a look once a second shows it.

    Only an empty field gets a value, the first name. In any other the answer of a look, which may
    be late, would overwrite what was chosen meanwhile.
    """
    names = [*choices]
    if value or not names:
        return names, gr.update(choices=names)
    return (names, names[0]), gr.update(choices=names, value=names[0])


REFUSALS = (UserError, OSError)
"""What a person can mend, and the page says: a mistake, a full disk, a folder that has vanished."""


def sentence(error: UserError | OSError) -> str:
    """How one of them is said."""
    if isinstance(error, UserError):
        return str(error)
    where = f"Cannot use {error.filename}" if error.filename else "Cannot do this"
    return (
        f"{where} because of an error ({error.strerror or why(error)}); free some disk space, or "
        "make sure that the page's folder exists and is writable."
    )


def captioned(pictures: Made) -> list[tuple[str, str]]:
    """Pictures as a gallery takes them, with the seed, and the prompt where there are several."""
    alone = len({own["prompt"] for _, own in pictures}) == 1
    return [
        (str(file), f"seed {own['seed']}" if alone else f"{own['prompt']}, seed {own['seed']}")
        for file, own in pictures
    ]


def num_pictures(count: int) -> str:
    """How many pictures, in words."""
    return f"{count} picture{'' if count == 1 else 's'}"


def saying(count: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a handler's user errors be sentences in its first output; the others stay as they are.

    Args:
        count: Outputs of the handler after the first, which is a text.
    """

    def wrapped(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def handle(*given: Any) -> Any:
            try:
                return handler(*given)
            except REFUSALS as error:
                said = sentence(error)
                return (said, *[gr.skip()] * count) if count else said

        return handle

    return wrapped


def status(label: str, **more: Any) -> gr.Textbox:
    """Where something is said, as high as it is long; text alone, so that no HTML is drawn."""
    return gr.Textbox(value="", label=label, interactive=False, lines=1, max_lines=20, **more)


def command_box(elem_id: str) -> gr.Code:
    """Where the command that does the same is shown, as high as it is long."""
    return gr.Code(
        label="Equivalent command", wrap_lines=True, lines=1, max_lines=30, interactive=False,
        elem_id=elem_id, elem_classes="command",
    )  # fmt: skip


def painted_on(given: dict[str, Any] | None) -> Image.Image | None:
    """What was painted on an editor's picture, white; ``None``: nothing was."""
    if given is None or given.get("background") is None:
        return None
    painted = np.zeros(given["background"].size[::-1], bool)
    for layer in given.get("layers") or ():
        painted |= np.asarray(layer.convert("RGBA"))[..., 3] > 0
    return Image.fromarray(painted).convert("L") if painted.any() else None
