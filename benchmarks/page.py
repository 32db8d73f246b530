"""How soon the page is there, and how soon it answers a click while a word is being learned.

    python benchmarks/page.py --json page.json

Serves the page on the embedded model, opens it in chromium several times, then teaches a word and
searches the library again and again, as a person does: from the last key to the changed list.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from _common import machine, record
from playwright.sync_api import sync_playwright


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browsing import CHROMIUM, FLAGS
from oneword.cli.demo import copy_pictures
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import TrainConfig
from oneword.config.web import WebConfig
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
    """How often it is asked, idle and while a word learns."""
    json: Path | None = None
    """File for all numbers."""


def main() -> None:
    """Serve, open, ask, and print a table."""
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        model = ModelConfig(model=arguments.model)
        config = WebConfig(workspace=Path(name) / "oneword-web", port=0, model=model)
        pictures, _ = copy_pictures("gold-mug", Path(name))
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
            served.page.desk.teach(_run(pictures, words / "first", model, 20))
            until(lambda: served.page.learned() and health(served)["learning"] == [])
            idle = _answers(tab, arguments.clicks)
            served.page.desk.teach(_run(pictures, words / "second", model, 100_000))
            until(lambda: served.page.desk.standing("second").step >= 2)
            busy = _answers(tab, arguments.clicks)
        browser.close()
    print(f"{arguments.model}, {machine()}\n\n| | median, ms | least to most, ms |\n|---|---|---|")
    found = {"the page is open": opened, "answer, idle": idle, "answer, a word learns": busy}
    for what, times in found.items():
        middle, least, most = (1000 * f(times) for f in (statistics.median, min, max))
        print(f"| {what} | {middle:.0f} | {least:.0f} to {most:.0f} |")
    record(arguments.json, model=None, seconds=found)


def _run(pictures: Path, folder: Path, model: ModelConfig, steps: int) -> TrainConfig:
    return TrainConfig(
        train_data_dir=pictures,
        output_dir=folder,
        model=model,
        validation_steps=0,
        inversion=InversionConfig(
            placeholder_token=f"<{folder.name}>",
            initializer_token="mug",
            max_train_steps=steps,
            early_stopping=False,
        ),
    )


def _answers(tab: Any, count: int) -> list[float]:
    """Seconds from a changed search to the list that fits it."""
    tab.get_by_role("tab", name="Library", exact=True).click()
    box = tab.locator("#library-search textarea, #library-search input").first
    times = []
    for number in range(count):
        text, cards = ("z", 0) if number % 2 else ("f", 1)
        started = time.perf_counter()
        box.press("Control+a")
        box.press_sequentially(text)
        tab.wait_for_function(
            "n => document.querySelectorAll('#library-cards img').length === n", arg=cards
        )
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
