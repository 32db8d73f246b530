"""What all tabs share: the folder, the worker, and how a mistake is shown."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from oneword._escaping import shell
from oneword.concepts import formats
from oneword.config.drawing import EditConfig, GenerateConfig
from oneword.config.scoring import ChooseConfig
from oneword.config.web import WebConfig
from oneword.errors import UserError
from oneword.web.desk import Desk
from oneword.web.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Page:
    """What a tab is built on."""

    config: WebConfig
    workspace: Workspace
    desk: Desk

    def learned(self) -> dict[str, Path]:
        """The run folders of the words that there are, by placeholder; of one name, the first."""
        found: dict[str, Path] = {}
        for folder in self.workspace.learned():
            try:
                for concept in formats.load_all(folder):
                    found.setdefault(concept.placeholder_token, folder)
            except UserError:
                continue  # the library says what is wrong with it
        return found

    def new_drawing(self) -> Path:
        """A folder for pictures that does not exist yet."""
        return self.workspace.drawings / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"

    def pictures(
        self, config: GenerateConfig | EditConfig | ChooseConfig
    ) -> Iterator[tuple[str, list[tuple[Path, dict[str, str]]] | None]]:
        """Draw or edit in the worker: how far it is, several times, then the pictures.

        Raises:
            UserError: it could not be done.
        """
        number, future = self.desk.ask(config)
        while True:
            try:
                found = future.result(timeout=0.3)
                break
            except NotYet:
                share = self.desk.share(number)
                yield (f"Drawing: {share:.0%}." if share else "It begins after this step."), None
        yield f"{len(found)} pictures in {found[0][0].parent}.", found


def captioned(pictures: list[tuple[Path, dict[str, str]]]) -> list[tuple[str, str]]:
    """Pictures as a gallery takes them, with prompt and seed."""
    return [(str(file), f"{own['prompt']}, seed {own['seed']}") for file, own in pictures]


def command(verb: str, *words: Any) -> str:
    """A command as a person can paste it."""
    return shell(["oneword", *verb.split(), *words])


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
            except UserError as error:
                return (str(error), *[gr.skip()] * count) if count else str(error)

        return handle

    return wrapped


def status(label: str, **more: Any) -> gr.Textbox:
    """A line in which something is said; text alone, so that nobody's HTML is drawn."""
    return gr.Textbox(value="", label=label, interactive=False, lines=1, max_lines=6, **more)


def painted_on(given: dict[str, Any] | None) -> Image.Image | None:
    """What was painted on an editor's picture, white; ``None``: nothing was."""
    if given is None or given.get("background") is None:
        return None
    painted = np.zeros(given["background"].size[::-1], bool)
    for layer in given.get("layers") or ():
        painted |= np.asarray(layer.convert("RGBA"))[..., 3] > 0
    return Image.fromarray(painted).convert("L") if painted.any() else None
