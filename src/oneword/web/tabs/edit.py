"""Edit a picture: paint what is to change, say what it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from oneword.config.commands import command_for
from oneword.config.drawing import EditConfig, SamplingConfig
from oneword.images import save_png
from oneword.prompts import named
from oneword.web.page import Page, Watch, captioned, command_box, painted_on, status
from oneword.web.workspace import WorkspaceError


def build(page: Page) -> Watch:
    """Put the tab's controls and what they do into the page."""
    gr.Markdown("Add a picture, then paint over the part to change.")
    # alone in its row: beside another component it is cut off
    canvas = gr.ImageEditor(
        label="Picture",
        type="pil",
        image_mode="RGBA",
        brush=gr.Brush(default_size=24, colors=["#ffffff"], color_mode="fixed"),
        layers=False,
        transforms=(),
        height=420,
        elem_id="edit-canvas",
    )
    with gr.Row():
        with gr.Column(min_width=320):
            prompt = gr.Textbox(
                value="", label="What the result should show", elem_id="edit-prompt"
            )
            strength = gr.Slider(
                0.05, 1.0, value=1.0, step=0.05,
                label="Strength: how much to change (1: start from noise)",
            )  # fmt: skip
            background = gr.Dropdown(
                ["paste", "optimize", "poisson", "blend"],
                value="paste",
                label="How to restore the unpainted part",
            )
            invert = gr.Textbox(
                value="",
                label="Or invert: what the picture shows now (all of it is redrawn)",
            )
            with gr.Row():
                count = gr.Slider(1, 8, value=4, step=1, label="Candidates")
                seed = gr.Number(label="First seed", value=0, precision=0)
            steps = gr.Number(label="Steps (0: model default)", value=0, precision=0)
            run = gr.Button("Edit", variant="primary", elem_id="edit-edit")
            said = status("Status", elem_id="edit-said")
            again = command_box("edit-command")
        with gr.Column(min_width=320):
            drawn = gr.Gallery(
        fit_columns=False,
                label="Edits", columns=2, height=420, interactive=False, format="png",
                elem_id="edit-drawn",
            )  # fmt: skip

    def work(
        given: dict[str, Any] | None,
        prompt: str,
        strength: float,
        background: Any,
        invert: str,
        count: float,
        seed: float | None,
        steps: float | None,
    ) -> Iterator[tuple[Any, ...]]:
        def config() -> EditConfig:
            folder = page.new_drawing()
            picture, mask = _kept(given, folder)
            words = {t: f for t, f in page.learned().items() if named(prompt + " " + invert, [t])}
            return EditConfig(
                picture=picture,
                prompt=prompt.strip(),
                mask=None if invert.strip() else mask,
                background=background,
                strength=1.0 if invert.strip() else strength,
                invert=invert.strip() or None,
                concepts=tuple(words.values()),
                output_dir=folder,
                model=page.model,
                sampling=SamplingConfig(num_inference_steps=int(steps or 0) or None),
                num_images_per_prompt=int(count),
                seed=int(seed or 0),
            )

        yield from page.drawing(
            config,
            lambda asked, made: (captioned(made), command_for("edit", asked, "picture")),
            count=2,
        )

    inputs = [canvas, prompt, strength, background, invert, count, seed, steps]
    run.click(work, inputs, [said, drawn, again], api_name="edit", show_progress="hidden")
    return Watch(tuple, [], [])  # nothing changes by itself


def _kept(given: dict[str, Any] | None, folder: Path) -> tuple[Path, Path | None]:
    """The picture and what was painted on it, as files next to the edits to come.

    Raises:
        WorkspaceError: there is no picture.
    """
    background = None if given is None else given.get("background")
    if given is None or background is None:
        raise WorkspaceError("An edit needs a picture, got none; add one first.")
    save_png(background.convert("RGB"), folder / "picture.png")
    painted = painted_on(given)
    if painted is None:
        return folder / "picture.png", None
    save_png(painted, folder / "mask.png")
    return folder / "picture.png", folder / "mask.png"
