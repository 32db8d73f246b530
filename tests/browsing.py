"""A browser that looks at the page."""

from __future__ import annotations

import shutil


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 180_000  # of a machine that does much else


def open_tab(page, name):
    """Go to a tab of the page, which on a narrow one is in a menu."""
    own = page.get_by_role("tab", name=name, exact=True)
    if own.count() == 0 or not own.first.is_visible():
        page.locator(".overflow-menu > button").click()
        own = page.locator(".overflow-dropdown button").get_by_text(name, exact=True)
    own.first.click()
