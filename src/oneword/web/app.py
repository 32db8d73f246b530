"""The page, put together from its tabs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from oneword.web.page import AT_ONCE, Page, Watch
from oneword.web.tabs import choose, compare, draw, edit, library, teach


TABS = {
    "Teach": teach,
    "Choose": choose,
    "Draw": draw,
    "Edit": edit,
    "Compare": compare,
    "Library": library,
}


CSS = """
/* what is said is shown whole, however narrow the page is and whatever tab was open meanwhile */
@supports (field-sizing: content) {
  textarea:disabled { field-sizing: content; height: auto !important; max-height: none !important; }
}
.caption-label, .caption { white-space: normal !important; overflow-wrap: anywhere; }
"""


def build(page: Page) -> gr.Blocks:
    """The page as gradio serves it."""
    with gr.Blocks(title="oneword", analytics_enabled=False, fill_width=True) as app:
        gr.Markdown("# oneword")
        model = gr.Textbox(
            label="Model", interactive=False, max_lines=20, show_label=False, container=False,
            elem_id="model",
        )  # fmt: skip
        watches, own = {}, {}
        with gr.Tabs() as tabs:
            for name, tab in TABS.items():
                with gr.Tab(name, elem_id=f"tab-{name.lower()}") as own[name]:
                    watches[name] = tab.build(page)
        first, *_ = TABS
        clocks = {name: gr.Timer(1.0, active=name == first) for name in TABS}
        for name, watch in watches.items():
            event = {
                "fn": _looking(page, watch),
                "inputs": [model, *watch.inputs],
                "outputs": [model, *watch.outputs],
            }
            clocks[name].tick(**event, **AT_ONCE | {"trigger_mode": "once"})
            own[name].select(**event, **AT_ONCE)
            if name == first:
                app.load(**event, **AT_ONCE)
        tabs.select(_open_only, None, [*clocks.values()], **AT_ONCE)
    return app


def _looking(page: Page, watch: Watch) -> Callable[..., tuple[Any, ...]]:
    """Look at what a tab shows, and at the model's line above it."""

    def look(request: gr.Request, line: str, *given: Any) -> tuple[Any, ...]:
        if request.session_hash:
            page.uploads.heard(request.session_hash)
        now = _model(page)
        return gr.skip() if now == line else now, *watch.look(*given)

    return look


def _open_only(event: gr.SelectData) -> list[gr.Timer]:
    """Let the clock of the tab that is opened go, and no other."""
    return [gr.Timer(active=name == event.value) for name in TABS]


def _model(page: Page) -> str:
    desk = page.desk
    if desk.problem:
        return f"The model could not be loaded: {desk.problem}"
    if desk.loaded is None:
        return f"Loading {page.config.model.model} ..."
    return f"Model: {desk.loaded.name}, pictures of {desk.loaded.resolution} px."
