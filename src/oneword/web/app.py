"""The page, put together from its tabs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from oneword.web import model
from oneword.web.dropping import SCRIPT
from oneword.web.page import AT_ONCE, REFUSALS, Page, Watch
from oneword.web.tabs import choose, compare, draw, edit, library, teach


TABS = {
    "Teach": teach,
    "Choose": choose,
    "Draw": draw,
    "Edit": edit,
    "Compare": compare,
    "Library": library,
}


# in the head, since gradio leaves out rules with a condition from what it calls css
HEAD = (
    """<style>
/* what is said is shown whole, however narrow the page is and whatever tab was open meanwhile */
@supports (field-sizing: content) {
  textarea:disabled { field-sizing: content; height: auto !important; max-height: none !important; }
}
.caption-label, .caption { white-space: normal !important; overflow-wrap: anywhere; }
@media (max-width: 600px) {
  .grid-container { grid-template-columns: repeat(2, minmax(100px, 1fr)) !important; }
  /* five heads side by side, none broken within a word */
  #compare-scores th, #compare-scores th * {
    font-size: 0.68rem !important;
    overflow-wrap: normal !important;
    word-break: keep-all !important;
  }
  #compare-scores th, #compare-scores .cell-wrap, #compare-scores .header-content {
    padding: 2px !important;
  }
}
.caption-label { max-width: 100% !important; }
#draw-facts *, #library-facts * { overflow-wrap: anywhere; }
/* a command is as high as it is long; gradio gives its box the height of other text */
.command .cm-scroller { min-height: 0 !important; max-height: none !important; }
.command .empty { min-height: 4rem !important; }
</style>"""
    + SCRIPT
)


def build(page: Page) -> gr.Blocks:
    """The page as gradio serves it."""
    with gr.Blocks(title="oneword", analytics_enabled=False, fill_width=True) as app:
        gr.Markdown("# oneword")
        line, *watches = model.build(page)
        with gr.Tabs():
            for name, tab in TABS.items():
                with gr.Tab(name, elem_id=f"tab-{name.lower()}"):
                    watches.append(tab.build(page))
        for event in (one for watch in watches for one in watch.with_model):
            line.change(**event)
        looking: dict[str, Any] = {
            "fn": _looking(page, watches),
            "inputs": [part for watch in watches for part in watch.inputs],
            "outputs": [part for watch in watches for part in watch.outputs],
        }
        app.load(**looking, **AT_ONCE)
        gr.Timer(1.0).tick(**looking, **(AT_ONCE | dict[str, Any](trigger_mode="once")))
    return app


def _looking(page: Page, watches: Sequence[Watch]) -> Callable[..., tuple[Any, ...]]:
    """Look at what the page shows."""

    def look(request: gr.Request, *given: Any) -> tuple[Any, ...]:
        if request.session_hash:
            page.uploads.heard(request.session_hash)
        left = iter(given)
        found: list[Any] = []
        for watch in watches:
            own = [*itertools.islice(left, len(watch.inputs))]
            try:
                found += watch.look(*own)
            except REFUSALS:  # such as a full disk: the other tabs go on
                found += [gr.skip()] * len(watch.outputs)
        return tuple(found)

    return look
