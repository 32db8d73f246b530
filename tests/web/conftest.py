"""A page that is served, and a browser that looks at it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from browsing import CHROMIUM, FLAGS, PATIENCE_MS
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.model import ModelConfig
from oneword.config.web import WebConfig
from waiting import health, until


pytest.importorskip("gradio")
from oneword.web.server import serving


MUG = Path(__file__).parents[2] / "src/oneword/microworld/pictures/gold-mug"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page on microworld-nano, its model loaded."""
    config = WebConfig(
        workspace=tmp_path_factory.mktemp("web") / "workspace",
        model=ModelConfig(model="microworld-nano", device="cpu"),
        port=0,
        browser=False,
        max_upload_mb=2,
        max_pictures=8,
    )
    with serving(config) as one:
        until(lambda: health(one)["status"] == "ok")
        yield one


@pytest.fixture(scope="module")
def browser():
    """Chromium; without it the test is skipped, but where ``ONEWORD_BROWSER`` asks for it."""
    if CHROMIUM is None:
        assert not os.environ.get("ONEWORD_BROWSER"), "chromium must be installed, got none"
        pytest.skip("needs chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def visitor(browser):
    """Somebody whose browser keeps the page's scripts from tab to tab."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def tab(served, visitor):
    """A new tab of the visitor's."""
    page = on_page(visitor, served)
    yield page
    page.close()


@pytest.fixture
def first_tab(served, browser):
    """That of a visitor who was never here."""
    page = on_page(browser.new_context(), served)
    yield page
    page.context.close()


def on_page(context, served):
    """A tab on the page, with every request that it makes in ``requested``."""
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.set_default_timeout(PATIENCE_MS)
    page.requested = []
    page.problems = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(served.url)
    page.wait_for_selector("#teach-files")
    return page


@pytest.fixture
def mugs():
    """Five pictures of a mug that the model never saw."""
    return sorted(map(str, MUG.glob("*.png")))


@pytest.fixture
def noise(tmp_path):
    """A picture that shows nothing."""
    path = tmp_path / "noise.png"
    Image.effect_noise((80, 60), 90).convert("RGB").save(path)
    return str(path)


@pytest.fixture
def put():
    """Puts a word into a folder of words, as if it had been learned there; gives its file."""

    def put(words, token):
        file = words / token.strip("<>") / formats.LEARNED
        rows = {"clip": torch.full((1, 48), 0.1)}  # of microworld-nano
        formats.save_concept(Concept(placeholder_token=token, rows=rows), file)
        return file

    return put
