"""The page, put together from its tabs."""

from __future__ import annotations

import gradio as gr

from oneword.web.page import Page
from oneword.web.tabs import choose, compare, draw, edit, library, teach


TABS = {
    "Teach": teach,
    "Choose": choose,
    "Draw": draw,
    "Edit": edit,
    "Compare": compare,
    "Library": library,
}


def build(page: Page) -> gr.Blocks:
    """The page as gradio serves it."""
    with gr.Blocks(title="oneword", analytics_enabled=False, fill_width=True) as app:
        gr.Markdown("# oneword")
        model = gr.Textbox(
            label="Model", interactive=False, max_lines=2, show_label=False, container=False,
            elem_id="model",
        )  # fmt: skip
        gr.Timer(1.0).tick(
            lambda: _model(page), None, model, api_visibility="private", show_progress="hidden"
        )
        with gr.Tabs():
            for name, tab in TABS.items():
                with gr.Tab(name, elem_id=f"tab-{name.lower()}"):
                    tab.build(page)
    return app


def _model(page: Page) -> str:
    desk = page.desk
    if desk.problem:
        return f"The model could not be loaded: {desk.problem}"
    if desk.loaded is None:
        return f"Loading {page.config.model.model} ..."
    return f"Model: {desk.loaded.name}, pictures of {desk.loaded.resolution} px."
