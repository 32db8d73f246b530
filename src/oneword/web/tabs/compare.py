"""Compare words, saved steps and setups: the same prompts and seeds, side by side, with scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from oneword.config.commands import command_for
from oneword.config.drawing import GenerateConfig
from oneword.config.grid import axis_text
from oneword.evaluation.choosing import mean_of
from oneword.runs.folder import RunFolder
from oneword.web.page import Made, Page, Shown, Watch, changed, command_box, status
from oneword.web.workspace import WorkspaceError


_HEAD = ("word", "setup", "prompt", "likeness", "match")


def build(page: Page) -> Watch:
    """Put the tab's controls and what they do into the page."""
    with gr.Row():
        with gr.Column(min_width=320):
            words = gr.Dropdown(
                [],
                label="Words and saved steps, by folder (two or more)",
                multiselect=True,
                interactive=True,
                allow_custom_value=True,
                elem_id="compare-words",
            )
            prompts = gr.Textbox(
                label="Prompts, one per line, with {} for the word",
                value="a photo of a {} on the moon",
                lines=3,
                elem_id="compare-prompts",
            )
            with gr.Row():
                count = gr.Slider(1, 8, value=2, step=1, label="Pictures per prompt")
                seed = gr.Number(label="First seed", value=0, precision=0)
            run = gr.Button("Compare", variant="primary", elem_id="compare-compare")
            said = status("Status", elem_id="compare-said")
            again = command_box("compare-command")
        with gr.Column(min_width=320):
            drawn = gr.Gallery(
                label="Pictures, one row per prompt and seed",
                columns=2,
                height=420,
                fit_columns=False,
                interactive=False,
                format="png",
                elem_id="compare-drawn",
            )
    scores = gr.Dataframe(
        headers=[*_HEAD],
        label="CLIP scores: likeness to the training pictures, match to the prompt",
        interactive=False,
        wrap=True,
        elem_id="compare-scores",
    )

    def config(
        chosen: Sequence[str] | None, prompts: str, count: float, seed: float | None, folder: Path
    ) -> GenerateConfig:
        return GenerateConfig(
            prompts=_templates(prompts),
            output_dir=folder,
            model=page.model,
            num_images_per_prompt=int(count),
            seed=int(seed or 0),
            grid=(axis_text("checkpoint", _chosen(_files(page), chosen or ())),),
            score=True,
        )

    def shown(asked: GenerateConfig, made: Made) -> tuple[Any, ...]:
        names = {str(path): _title(name) for name, path in _files(page).items()}
        columns: dict[str, Made] = {}
        for file, own in made:
            title = names.get(own["checkpoint"], own["checkpoint"])
            columns.setdefault(title, []).append((file, own))
        gallery = gr.update(value=_side_by_side(columns, asked), columns=len(columns))
        return _rows(columns, asked), gallery, command_for("generate", asked)

    def work(*given: Any) -> Iterator[tuple[Any, ...]]:
        yield from page.drawing(lambda: config(*given, folder=page.new_drawing()), shown, count=3)

    def choices() -> list[Shown]:
        how = {
            entry.name: ", ".join(
                filter(None, [*entry.tokens, entry.setup, entry.preset, page.stranger(entry)])
            )
            for entry in page.library.entries()
        }
        found = [
            (f"{_title(name)}: {how[name]}" if how.get(name) else _title(name), name)
            for name in _files(page)
        ]
        return [(found, gr.update(choices=found))]

    inputs = [words, prompts, count, seed]
    run.click(
        work, inputs, [said, scores, drawn, again], api_name="compare", show_progress="hidden"
    )
    known = gr.State([])
    return Watch(changed(choices), [known], [known, words])


def _files(page: Page) -> dict[str, Path]:
    """What can be compared, by NAME or NAME/STEP: folders of one word, and files of saved steps."""
    root = page.library.root
    found: dict[tuple[str, int], Path] = {}
    for entry in page.library.entries():
        if len(entry.tokens) == 1:  # a file of several words has no place in one column
            found[entry.name, -1] = root / entry.name
    for folder in {path.parent for path in root.glob("*/learned_embeds-steps-*")}:
        for step, path in RunFolder(folder, steps=1).words().items():
            found[folder.name, step] = path
    return {
        name if step < 0 else f"{name}/{step}": found[name, step] for name, step in sorted(found)
    }


def _title(name: str) -> str:
    """NAME or NAME/STEP in words."""
    folder, _, step = name.partition("/")
    return f"{folder}, step {step}" if step else folder


def _chosen(files: Mapping[str, Path], names: Sequence[str]) -> list[Path]:
    """The files of what was chosen.

    Raises:
        WorkspaceError: they are fewer than two, or one is not there.
    """
    own = [*dict.fromkeys(names)]
    if len(own) < 2:
        raise WorkspaceError(
            f"Comparing needs two or more words or saved steps, got {len(own)}; choose more."
        )
    gone = next((name for name in own if name not in files), None)
    if gone is not None:
        raise WorkspaceError(f"Words and saved steps must be from the list, got {gone!r}.")
    return [files[name] for name in own]


def _templates(prompts: str) -> tuple[str, ...]:
    """The prompts, once each.

    Raises:
        WorkspaceError: one has no place for the word, or is the name of a file.
    """
    lines = [*dict.fromkeys(line.strip() for line in prompts.splitlines() if line.strip())]
    without = next((line for line in lines if "{}" not in line or line.endswith(".txt")), None)
    if without is not None or not lines:
        raise WorkspaceError(
            f"A prompt must be a sentence with {{}} for the word, got {without or 'none'!r}."
        )
    return (*lines,)


def _side_by_side(columns: Mapping[str, Made], asked: GenerateConfig) -> list[tuple[str, str]]:
    """The pictures with their captions, those of one prompt and seed next to each other."""
    found = []
    for place, row in enumerate(zip(*columns.values(), strict=True)):
        template = asked.prompts[place // len(asked.drawn_seeds)]
        end = f", {template}" if len(asked.prompts) > 1 else ""
        for title, (file, own) in zip(columns, row, strict=True):
            found.append((str(file), f"{title}, seed {own['seed']}{end}"))
    return found


def _rows(columns: Mapping[str, Made], asked: GenerateConfig) -> list[list[str]]:
    """A line for each prompt and word, with the means of its pictures' similarities."""
    count = len(asked.drawn_seeds)
    rows = []
    for place, template in enumerate(asked.prompts):
        for title, made in columns.items():
            own = [facts for _, facts in made[place * count : (place + 1) * count]]
            how = ", ".join(filter(None, (own[0]["setup"], own[0]["preset"])))
            means = [mean_of(own, f"{name}_similarity") for name in ("image", "text")]
            rows.append([title, how or "unknown", template, *means])
    return rows
