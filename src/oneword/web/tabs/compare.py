"""Compare words: the same prompts and seeds with each of them, side by side, with scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from oneword.config.commands import command_for
from oneword.config.drawing import GenerateConfig
from oneword.prompts import named
from oneword.web.page import Page, Watch, captioned, changed, command_box, status
from oneword.web.workspace import WorkspaceError


_HEAD = ("word", "prompt", "likeness", "match")


def build(page: Page) -> Watch:
    """Put the tab's controls and what they do into the page."""
    with gr.Row():
        with gr.Column(min_width=320):
            words = gr.CheckboxGroup([], label="Words, two or more", elem_id="compare-words")
            prompts = gr.Textbox(
                label="Prompts, one a line, with {} where the word stands",
                value="a photo of a {} on the moon",
                lines=3,
                elem_id="compare-prompts",
            )
            with gr.Row():
                count = gr.Slider(1, 8, value=2, step=1, label="Pictures of each")
                seed = gr.Number(label="First seed", value=0, precision=0)
            run = gr.Button("Compare", variant="primary", elem_id="compare-compare")
            said = status("What happens", elem_id="compare-said")
            again = command_box("compare-command")
        with gr.Column(min_width=320):
            scores = gr.Dataframe(
                headers=[*_HEAD],
                label="CLIP scores: likeness to the training pictures, match with the prompt",
                interactive=False,
                wrap=True,
                elem_id="compare-scores",
            )
            drawn = gr.Gallery(
                label="Pictures, a prompt after the other",
                columns=4,
                height=420,
                fit_columns=False,
                interactive=False,
                format="png",
                elem_id="compare-drawn",
            )

    def config(
        chosen: Sequence[str], prompts: str, count: float, seed: float | None, folder: Path
    ) -> GenerateConfig:
        files = {token: file for token, file in page.learned().items() if token in chosen}
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        if len(files) < 2:
            raise WorkspaceError(f"Two or more words are compared, got {len(files)}; choose more.")
        without = next((line for line in lines if "{}" not in line), None)
        if without is not None or not lines:
            raise WorkspaceError(
                f"A prompt must hold {{}} where the word stands, got {without or 'none'!r}."
            )
        return GenerateConfig(
            prompts=tuple(line.replace("{}", token) for line in lines for token in files),
            concepts=tuple(files.values()),
            output_dir=folder,
            model=page.model,
            num_images_per_prompt=int(count),
            seed=int(seed or 0),
            keep=int(count),  # all of them, ranked
        )

    def work(*given: Any) -> Iterator[tuple[Any, ...]]:
        yield from page.drawing(
            lambda: config(*given, folder=page.new_drawing()),
            lambda asked, made: (
                _rows(given[0], [own for _, own in made]),
                captioned(made),
                command_for("generate", asked),
            ),
            count=3,
        )

    inputs = [words, prompts, count, seed]
    run.click(
        work, inputs, [said, scores, drawn, again], api_name="compare", show_progress="hidden"
    )
    known = gr.State([])
    return Watch(changed(lambda: [page.choices()]), [known], [known, words])


def _rows(words: Sequence[str], facts: Sequence[dict[str, str]]) -> list[list[str]]:
    """A line for each word and prompt, with the means of its pictures' similarities."""
    rows = []
    for prompt in dict.fromkeys(own["prompt"] for own in facts):
        group = [own for own in facts if own["prompt"] == prompt]
        word = next((token for token in words if named(prompt, [token])), "")
        means = [
            _mean([own[name] for own in group]) for name in ("image_similarity", "text_similarity")
        ]
        rows.append([word, prompt, *means])
    return rows


def _mean(values: Sequence[str]) -> str:
    numbers = [float(value) for value in values if value]
    return f"{sum(numbers) / len(numbers):.3f}" if numbers else "not known"
