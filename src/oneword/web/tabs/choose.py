"""Choose among the words that a run has saved on its way: a slider over them, the same seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from oneword.config.commands import command, command_for
from oneword.config.scoring import ChooseConfig
from oneword.runs.words import choose_word, read_saved
from oneword.web.page import (
    AT_ONCE,
    Made,
    Page,
    Shown,
    Watch,
    captioned,
    changed,
    command_box,
    saying,
    status,
)
from oneword.web.workspace import WorkspaceError


def build(page: Page) -> Watch:
    """Put the tab's controls and what they do into the page."""
    with gr.Row():
        with gr.Column(min_width=320):
            run = gr.Dropdown(
                [], label="Word with saved steps", interactive=True,
                allow_custom_value=True, elem_id="choose-run",
            )  # fmt: skip
            prompts = gr.Textbox(
                value="",
                label="Prompts, one per line (empty: those of the previews)", lines=2,
                elem_id="choose-prompts",
            )  # fmt: skip
            draw = gr.Button("Draw with every step", variant="primary", elem_id="choose-draw")
            place = gr.Slider(0, 1, value=0, step=1, label="Saved step", elem_id="choose-place")
            which = status("Step shown", elem_id="choose-which")
            keep = gr.Button("Use this step", elem_id="choose-keep")
            back = gr.Button("Go back to the word that training kept")
            said = status("Status", elem_id="choose-said")
            again = command_box("choose-command")
        with gr.Column(min_width=320):
            drawn = gr.Gallery(
                label="Pictures",
                columns=2,
                height=420,
                fit_columns=False,
                interactive=False,
                format="png",
                elem_id="choose-drawn",
            )
    made = gr.State([])

    def work(name: str | None, prompts: str) -> Iterator[tuple[Any, ...]]:
        lines = tuple(line.strip() for line in prompts.splitlines() if line.strip())

        def shown_last(asked: ChooseConfig, made: Made) -> tuple[Any, ...]:
            last = len(_steps(made)) - 1
            slider = gr.update(maximum=max(1, last), value=last)
            return made, slider, *shown(made, last), command_for("choose", asked, "run")

        yield from page.drawing(
            lambda: ChooseConfig(run=_folder(page, name), prompts=lines, model=page.model),
            shown_last,
            count=5,
        )

    def shown(made: Made, place: float) -> tuple[str, list[tuple[str, str]]]:
        """The step at a place of the slider, and its pictures."""
        steps = _steps(made)
        if not steps:
            return "Nothing drawn yet.", []
        step = steps[min(int(place), len(steps) - 1)]
        own = [(file, facts) for file, facts in made if facts["step"] == step]
        return f"{step}" if step == _FIRST else f"step {step}", captioned(own)

    @saying(1)
    def kept(name: str | None, made: Made, place: float) -> tuple[str, Any]:
        steps = _steps(made)
        step = steps[min(int(place), len(steps) - 1)] if steps else _FIRST
        if step == _FIRST:
            raise WorkspaceError("Choose a saved step with the slider first.")
        folder = _folder(page, name)
        choose_word(folder, int(step))
        return f"The word is now that of step {step}.", command("choose", folder, "--step", step)

    @saying(1)
    def taken_back(name: str | None) -> tuple[str, Any]:
        folder = _folder(page, name)
        choose_word(folder, None)
        return "The word is again the one that training kept.", command(
            "choose", folder, "--by", "training"
        )

    def names() -> list[Shown]:
        found = {path.parent for path in page.workspace.words.glob("*/learned_embeds-steps-*")}
        choices = sorted(path.name for path in found)
        return [(tuple(choices), gr.update(choices=choices))]

    outputs = [said, made, place, which, drawn, again]
    draw.click(work, [run, prompts], outputs, api_name="steps", show_progress="hidden")
    place.change(shown, [made, place], [which, drawn], **AT_ONCE)
    keep.click(kept, [run, made, place], [said, again], api_name="keep_step", queue=False)
    back.click(taken_back, run, [said, again], api_name="keep_trained", queue=False)
    known = gr.State([])
    return Watch(changed(names), [known], [known, run])


_FIRST = "initialiser"


def _steps(made: Sequence[tuple[Path, dict[str, str]]]) -> list[str]:
    return list(dict.fromkeys(facts["step"] for _, facts in made))


def _folder(page: Page, name: str | None) -> Path:
    """A run's folder.

    Raises:
        UserError: none is chosen, or it has saved no words.
    """
    folder = page.workspace.run_folder(name)
    read_saved(folder)
    return folder
