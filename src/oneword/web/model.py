"""The model that everyone at the page works with, and how another one takes its place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

import gradio as gr

from oneword.concepts.base import may_be_model
from oneword.config.commands import command_for
from oneword.config.model import EMBEDDED, ModelConfig
from oneword.web.page import REFUSALS, Page, Shown, Watch, changed, command_box, sentence, status
from oneword.web.workspace import WorkspaceError


def build(page: Page) -> tuple[gr.Textbox, Watch]:
    """Put the model's line, and the choice of another, into the page.

    Returns:
        The line, which changes with the model, and what is looked at.
    """
    line = gr.Textbox(
        label="Model", interactive=False, max_lines=20, show_label=False, container=False,
        elem_id="model",
    )  # fmt: skip
    with gr.Accordion("Another model", open=False, elem_id="model-choice"):
        with gr.Row():
            name = gr.Dropdown(
                [],
                value="",
                label="Model name, Hub ID, or path of a folder or checkpoint on the server",
                allow_custom_value=True,
                interactive=True,
                scale=3,
                elem_id="model-name",
            )
            load = gr.Button("Load for everyone", min_width=140, scale=1, elem_id="model-load")
        said = status("Model status", elem_id="model-said")
        again = command_box("model-command")

    def loaded(name: str | None) -> Iterator[tuple[Any, Any]]:
        try:
            config = _config(page, (name or "").strip())
            yield f"Looking for {config.model}.", gr.skip()
            began, future = time.monotonic(), page.desk.use(config)
            while wait([future], timeout=0.5).not_done:
                yield f"Loading {config.model}: {time.monotonic() - began:.0f} s.", gr.skip()
            future.result()
            # without what only the server may know
            asked = replace(page.config, model=config, auth=None)
            yield (
                f"Loaded {config.model} for everyone who uses this page.",
                command_for("web", asked),
            )
        except REFUSALS as error:
            yield sentence(error), gr.skip()

    def looked() -> list[Shown]:
        told, names = _line(page), _names(page)
        return [(told, told), (names, gr.update(choices=names))]

    load.click(loaded, name, [said, again], api_name="load_model", show_progress="hidden")
    known = gr.State([])
    return line, Watch(changed(looked), [known], [known, line, name])


def _config(page: Page, name: str) -> ModelConfig:
    """How a model is loaded: as the server was asked to, but for what is of one model alone.

    Raises:
        WorkspaceError: there is no name.
    """
    start = page.config.model
    if not name:
        raise WorkspaceError(
            "Cannot load a model because no name is given; choose or type one first."
        )
    if name == start.model:
        return start
    return replace(
        start,
        model=name, vae=None, clip_skip=None, single_file_config=None, variant=None, revision=None,
    )  # fmt: skip


def _names(page: Page) -> list[str]:
    """The models that are known: those that ship, that of the start, and those of the words."""
    own = [entry.base_model for entry in page.library.entries()]
    return [*dict.fromkeys([*EMBEDDED, page.config.model.model, *filter(may_be_model, own)])]


def _line(page: Page) -> str:
    desk = page.desk
    if desk.problem:
        return f"Could not load the model: {desk.problem}"
    if desk.loaded is None:
        line = f"Loading {desk.model.model} ..."
    else:
        line = f"Model: {desk.loaded.name}, {desk.loaded.resolution} px."
    return f"{line} {desk.refused}".strip()
