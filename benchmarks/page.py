"""How soon the page is there, and how soon it answers a click while a word is being learned.

    python benchmarks/page.py --json page.json

Serves the page on the embedded model, opens it in chromium several times, then clicks and types as
a person does, idle and while a word is being learned. A time is from the key or click until the
page shows its answer, as the browser itself counts it.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from _common import machine, record
from playwright.sync_api import sync_playwright


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browsing import CHROMIUM, FLAGS, PATIENCE_MS, open_tab
from oneword.cli.demo import copy_pictures, pictures_of
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.web import WebConfig
from oneword.microworld.world.learnable import find
from oneword.web.server import serving
from waiting import health, until


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time the page."""

    model: str = "microworld"
    """Base model."""
    openings: int = 5
    """How often the page is opened."""
    clicks: int = 20
    """How often each thing is clicked on, idle and while a word learns."""
    json: Path | None = None
    """File for all numbers."""


def main() -> None:
    """Serve, open, ask, and print a table."""
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        model = ModelConfig(model=arguments.model)
        config = WebConfig(workspace=Path(name) / "oneword-web", port=0, model=model)
        pictures, _ = copy_pictures(pictures_of(find("gold-mug", 1), 1, 128), Path(name))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with serving(config) as served:
            until(lambda: health(served)["status"] == "ok")
            opened = []
            for _ in range(arguments.openings):
                tab = browser.new_context().new_page()
                started = time.perf_counter()
                tab.goto(served.url)
                tab.wait_for_selector("#teach-files")
                opened.append(time.perf_counter() - started)
            words = served.page.workspace.words
            for name in ("first", "second"):
                served.page.desk.teach(_run(pictures, words / name, model, 20))
            until(lambda: len(served.page.learned()) == 2 and health(served)["learning"] == [])
            _prepare(tab)
            idle = {kind: _times(tab, kind, arguments.clicks) for kind in _KINDS}
            served.page.desk.teach(_run(pictures, words / "third", model, 100_000))
            until(lambda: served.page.desk.standing("third").step >= 2)
            busy = {kind: _times(tab, kind, arguments.clicks) for kind in _KINDS}
        browser.close()
    print(f"{arguments.model}, {machine()}; medians, and least to most, in ms\n")
    print(f"The page is open after {_told(opened)}.\n\n| | idle | a word learns |\n|---|---|---|")
    for kind in _KINDS:
        print(f"| {kind} | {_told(idle[kind])} | {_told(busy[kind])} |")
    record(
        arguments.json, model=None, seconds={"opened": opened, "idle": idle, "a word learns": busy}
    )


def _told(times: list[float]) -> str:
    middle, least, most = (1000 * f(times) for f in (statistics.median, min, max))
    return f"{middle:.0f} ({least:.0f} to {most:.0f})"


def _run(pictures: Path, folder: Path, model: ModelConfig, steps: int) -> TrainConfig:
    return TrainConfig(
        train_data_dir=pictures,
        output_dir=folder,
        model=model,
        validation_steps=0,
        save_steps=10 if steps < 100 else 0,
        inversion=InversionConfig(
            placeholder_token=f"<{folder.name}>",
            initializer_token="mug",
            max_train_steps=steps,
            early_stopping=False,
        ),
    )


def _prepare(tab: Any) -> None:
    """Draw what the saved steps of a word draw, for the slider."""
    tab.set_default_timeout(PATIENCE_MS)
    open_tab(tab, "Choose")
    tab.locator("#choose-run input").first.click()
    tab.get_by_role("option", name="first").click()
    tab.fill("#choose-prompts textarea", "a photo of a <first>")
    tab.click("#choose-draw")
    tab.wait_for_function("() => document.querySelectorAll('#choose-drawn img').length > 0")


Click = tuple[Callable[[], None], str]
"""What a person does, and what the page shows then, as a condition in JavaScript."""


def _tabs(tab: Any) -> Iterator[Click]:
    while True:
        for name, shown in (("Draw", "draw-draw"), ("Library", "library-search")):
            own = tab.get_by_role("tab", name=name, exact=True)
            yield own.click, f"document.querySelector('#{shown}').offsetParent !== null"


def _search(tab: Any) -> Iterator[Click]:
    open_tab(tab, "Library")
    box = tab.locator("#library-search textarea, #library-search input").first
    box.press("Control+a")
    while True:
        for key, cards in (("z", 0), ("Backspace", 2)):
            shown = f"document.querySelectorAll('#library-cards img').length === {cards}"
            yield lambda key=key: box.press(key), shown


def _pick(tab: Any) -> Iterator[Click]:
    open_tab(tab, "Library")
    cards = tab.locator("#library-cards button img")
    while True:
        for place, token in ((1, "<second>"), (0, "<first>")):
            shown = f"document.querySelector('#library-facts').innerText.includes('{token}')"
            yield cards.nth(place).click, shown


def _slider(tab: Any) -> Iterator[Click]:
    open_tab(tab, "Choose")
    slider = tab.locator("#choose-place input[type=range]")
    slider.press("End")
    tab.wait_for_timeout(1000)
    while True:
        for key in ("ArrowLeft", "ArrowRight"):
            before = tab.locator("#choose-which textarea").input_value()
            yield (
                lambda key=key: slider.press(key),
                f"document.querySelector('#choose-which textarea').value !== '{before}'",
            )


def _prompt(tab: Any) -> Iterator[Click]:
    open_tab(tab, "Draw")
    box = tab.locator("#draw-prompts textarea")
    box.fill("")
    tab.wait_for_timeout(1000)
    count = 0
    while True:
        count += 1
        told = f"document.querySelector('#draw-command').innerText.includes('{'m' * count}')"
        yield lambda: box.press("m"), told


def _chip(tab: Any) -> Iterator[Click]:
    open_tab(tab, "Draw")
    chips = tab.locator("#draw-words label")
    box = tab.locator("#draw-prompts textarea")
    while True:
        for place, token in ((0, "<first>"), (1, "<second>")):
            box.fill("")
            tab.wait_for_timeout(500)
            shown = f"document.querySelector('#draw-prompts textarea').value.includes('{token}')"
            yield chips.nth(place).click, shown


_KINDS: dict[str, Callable[[Any], Iterator[Click]]] = {
    "another tab": _tabs,
    "search the library": _search,
    "pick a word of it": _pick,
    "move the slider over saved steps": _slider,
    "type into a prompt, until the command has it": _prompt,
    "put a word into the prompt": _chip,
}


def _times(tab: Any, kind: str, count: int) -> list[float]:
    """Seconds from what a person does until the page shows its answer."""
    clicks, times = _KINDS[kind](tab), []
    for _ in range(count):
        act, shown = next(clicks)
        tab.evaluate(_WATCH % shown)
        act()
        times.append(tab.evaluate("() => window.answered") / 1000)
        tab.wait_for_timeout(250)
    return times


_WATCH = """() => {
  window.answered = new Promise(done => {
    let began = 0;
    const begin = () => { began = began || performance.now(); };
    for (const kind of ['pointerdown', 'keydown'])
      addEventListener(kind, begin, {capture: true, once: true});
    const look = () => {
      if (began && (%s)) done(performance.now() - began); else requestAnimationFrame(look);
    };
    look();
  });
}"""


if __name__ == "__main__":
    main()
