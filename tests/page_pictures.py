"""Screenshots of every tab of the page, wide and narrow, light and dark, into docs/pictures/page.

    python tests/page_pictures.py

Teaches a word on the embedded model first, draws and compares with it, so that the tabs show
something. Needs chromium and playwright.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browsing import CHROMIUM, FLAGS, PATIENCE_MS, open_tab  # noqa: E402
from oneword.config.model import ModelConfig  # noqa: E402
from oneword.config.web import WebConfig  # noqa: E402
from oneword.web.server import serving  # noqa: E402
from waiting import health, until  # noqa: E402


TABS = ("Teach", "Choose", "Draw", "Edit", "Compare", "Library")
MUG = ROOT / "src/oneword/microworld/pictures/gold-mug"
WIDTHS = (1280, 390)
THEMES = ("light", "dark")


def main() -> None:
    """Make them all."""
    target = ROOT / "docs" / "pictures" / "page"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        config = WebConfig(
            workspace=Path(folder) / "oneword-web", port=0, model=ModelConfig(model="microworld")
        )
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with serving(config) as served:
            until(lambda: health(served)["status"] == "ok", 900)
            for theme in THEMES:
                # opened in it: the canvas takes its colour from the theme that it begins with
                context = browser.new_context(color_scheme=theme)
                tab = context.new_page()
                tab.set_viewport_size({"width": WIDTHS[0], "height": 900})
                tab.set_default_timeout(PATIENCE_MS)
                tab.goto(served.url)
                _use(tab, served)
                for width in WIDTHS:
                    tab.set_viewport_size({"width": width, "height": 900})
                    for name in TABS:
                        open_tab(tab, name)
                        tab.wait_for_timeout(800)
                        path = target / f"{name.lower()}-{width}-{theme}.jpg"
                        tab.screenshot(path=path, full_page=True, type="jpeg", quality=40)
                        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
                context.close()
        browser.close()


def _use(tab: Any, served: Any) -> None:
    """Teach two words if there are none, draw with one, compare them and a saved step."""
    tab.wait_for_selector("#teach-files")
    tab.set_input_files("#teach-files input[type=file]", sorted(map(str, MUG.glob("*.png"))))
    until(lambda: tab.locator("#teach-seen img").count() == 5)
    tab.get_by_text("Advanced").first.click()
    taught = (("<early>", "5", "0"), ("<gold-mug>", "60", "20"))
    for token, steps, saved in taught if not served.page.learned() else ():
        tab.fill("#teach-token textarea, #teach-token input", token)
        tab.fill("#teach-initializer textarea, #teach-initializer input", "mug")
        tab.fill("#teach-steps input", steps)
        tab.fill("#teach-save-steps input", saved)
        tab.locator("#teach-save-steps input").press("Tab")
        tab.click("#teach-learn")
        folder = served.page.workspace.word_folder(token)
        until((folder / "config.json").is_file)
    until(lambda: len(served.page.learned()) == 2, 900)
    until(lambda: health(served)["learning"] == [])
    tab.locator("#learning-word input").first.click()
    tab.get_by_role("option", name="gold-mug", exact=True).click()
    tab.fill("#teach-token textarea, #teach-token input", "<next-mug>")
    open_tab(tab, "Choose")
    tab.locator("#choose-run input").first.click()
    tab.get_by_role("option", name="gold-mug", exact=True).click()
    tab.click("#choose-draw")
    until(lambda: tab.locator("#choose-drawn img").count() >= 1, 900)
    open_tab(tab, "Draw")
    tab.fill("#draw-prompts textarea", "a photo of a <gold-mug> on the moon")
    tab.click("#draw-draw")
    until(lambda: tab.locator("#draw-drawn img").count() >= 4, 900)
    tab.locator("#draw-drawn button img").first.click()
    tab.wait_for_timeout(1000)
    tab.keyboard.press("Escape")
    open_tab(tab, "Edit")
    tab.set_input_files("#edit-canvas input[type=file]", str(MUG / "1.png"))
    open_tab(tab, "Compare")
    box = tab.locator("#compare-words input")
    for label in ("early: ", "gold-mug, step 20", "gold-mug: "):
        box.blur()
        box.click()
        tab.get_by_role("option").filter(has_text=label).first.click()
    box.blur()
    tab.click("#compare-compare")
    until(lambda: tab.locator("#compare-drawn img").count() >= 4, 900)
    open_tab(tab, "Library")
    tab.get_by_text("Refresh").click()
    tab.wait_for_timeout(1500)
    tab.locator("#library-layout").get_by_text("ComfyUI", exact=True).click()
    tab.click("#library-away")
    tab.wait_for_timeout(2000)


if __name__ == "__main__":
    main()
