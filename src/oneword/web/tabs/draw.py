"""Draw with the words that there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from oneword.concepts import formats
from oneword.config.commands import command_for
from oneword.config.drawing import GenerateConfig, SamplingConfig
from oneword.errors import UserError
from oneword.prompts import named
from oneword.web.page import AT_ONCE, Page, Watch, captioned, changed, command_box, status
from oneword.web.workspace import WorkspaceError


_EMPTY = "a photo of "


def build(page: Page) -> Watch:
    """Put the tab's controls and what they do into the page."""
    with gr.Row():
        with gr.Column(min_width=320):
            prompts = gr.Textbox(
                value="",
                label="Prompts, one per line",
                lines=3,
                placeholder="a photo of a <my-thing> on the moon",
                elem_id="draw-prompts",
            )
            words = gr.Radio([], label="Words (click to insert)", elem_id="draw-words")
            with gr.Row():
                count = gr.Slider(1, 16, value=4, step=1, label="Pictures per prompt")
                seed = gr.Number(label="First seed", value=0, precision=0)
            keep = gr.Number(
                label="Keep the best per prompt, by CLIP (0: all)", value=0, precision=0,
                elem_id="draw-keep",
            )  # fmt: skip
            beside = gr.Checkbox(label="Also draw the initialiser, with the same seeds")
            with gr.Accordion("Advanced", open=False):
                negative = gr.Textbox(value="", label="Negative prompt")
                guidance = gr.Number(label="Guidance (0: model default)", value=0)
                steps = gr.Number(label="Steps (0: model default)", value=0, precision=0)
            again = command_box("draw-command")
            draw = gr.Button("Draw", variant="primary", elem_id="draw-draw")
            said = status("Status", elem_id="draw-said")
        with gr.Column(min_width=320):
            drawn = gr.Gallery(
                fit_columns=False,
                label="Pictures",
                columns=4,
                height=420,
                interactive=False,
                format="png",
                type="filepath",
                elem_id="draw-drawn",
            )
            made = gr.State([])
            facts = gr.JSON(label="Settings of the selected picture", elem_id="draw-facts")

    settings = [prompts, count, seed, keep, beside, negative, guidance, steps]

    def config(
        prompts: str,
        count: float,
        seed: float | None,
        keep: float | None,
        beside: bool,
        negative: str,
        guidance: float | None,
        steps: float | None,
        folder: Path,
    ) -> GenerateConfig:
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        if not lines:
            raise WorkspaceError("There must be at least one prompt, got none.")
        files = page.learned()
        away = [*lines, negative]
        own = {token: file for token, file in files.items() if any(named(p, [token]) for p in away)}
        if beside:
            lines += [
                line.replace(token, initializer)
                for line in lines
                for token, initializer in _initializers(own).items()
                if named(line, [token])
            ]
        return GenerateConfig(
            prompts=tuple(dict.fromkeys(lines)),
            concepts=tuple(own.values()),
            output_dir=folder,
            model=page.model,
            sampling=SamplingConfig(
                negative_prompt=negative,
                guidance_scale=guidance or None,
                num_inference_steps=int(steps or 0) or None,
            ),
            num_images_per_prompt=int(count),
            seed=int(seed or 0),
            keep=int(keep or 0) or None,
        )

    def written(*given: Any) -> str:
        try:
            asked = config(*given, folder=Path("oneword-pictures"))
        except UserError as error:
            return f"# {error}"
        return command_for("generate", asked)

    def work(*given: Any) -> Iterator[tuple[Any, ...]]:
        yield from page.drawing(
            lambda: config(*given, folder=page.new_drawing()),
            lambda asked, made: (
                captioned(made), [own for _, own in made], command_for("generate", asked)
            ),
            count=3,
        )  # fmt: skip

    def put_in(prompts: str, word: str | None) -> tuple[str, None]:
        """The prompts with the word, which may be clicked on again."""
        if not word:
            return prompts, None
        return (f"{prompts.rstrip()} {word}" if prompts.strip() else f"{_EMPTY}a {word}"), None

    def told(made: Sequence[dict[str, str]], event: gr.SelectData) -> dict[str, str]:
        return made[event.index]

    draw.click(work, settings, [said, drawn, made, again], api_name="draw", show_progress="hidden")
    words.input(put_in, [prompts, words], [prompts, words], **AT_ONCE)
    drawn.select(told, made, facts, **AT_ONCE)
    gr.on([part.change for part in settings], written, settings, again, **AT_ONCE)
    known = gr.State([])
    anew = {"fn": written, "inputs": settings, "outputs": again, **AT_ONCE}
    return Watch(changed(lambda: [page.choices()]), [known], [known, words], [anew])


def _initializers(files: dict[str, Path]) -> dict[str, str]:
    found = {}
    for token, folder in files.items():
        for concept in formats.load_all(folder):
            started = concept.provenance.get("initializer_token")
            if concept.placeholder_token == token and started:
                found[token] = started
    return found
