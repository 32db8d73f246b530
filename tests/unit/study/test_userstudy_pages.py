"""The questionnaires in a real browser, from file://, by keyboard and by mouse."""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from oneword.config.scoring import UserStudyConfig
from oneword.images import jpeg_bytes
from oneword.prompts import descriptions
from oneword.study.userstudy import answers, captions, forms
from oneword.study.userstudy.items import Item


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 60_000  # of a machine that does much else
MODELS = ("one-word", "two-words", "high-lr", "low-lr", "pivotal")


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


@pytest.fixture
def tab(browser):
    """A phone's page, with all that it asks for and all that goes wrong in it."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.requested, page.problems = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda line: page.problems.append(line.text) if line.type == "error" else 0)
    yield page
    context.close()


def picture(*rgb):
    return jpeg_bytes(Image.fromarray(np.full((64, 64, 3), rgb, dtype=np.uint8)), 92)


@pytest.fixture
def key(tmp_path):
    """Two pages and a check of each questionnaire, written."""
    items = [
        Item(
            concept=concept, seed=0, kind=kind, prompt=prompt, picture=0,
            results={m: picture(50 * i, 90 * n, 120) for i, m in enumerate(MODELS)},
            training=[picture(250, 40 * i, 120 * n) for i in range(5)],
            image_similarity=dict.fromkeys(MODELS), text_similarity=dict.fromkeys(MODELS),
        )
        for n, concept in enumerate(("cat", "mug"))
        for kind, prompt in (("style", "an oil painting of {} with <b>&</b>"),
                             ("background", "a photo of {} on the moon"))
    ]  # fmt: skip
    key = forms.plan(items, UserStudyConfig(per_form=2, forms=1), ["Agree?"])
    forms.write(key, items, tmp_path / "forms")
    return key


def fits(tab):
    """Nothing sticks out of the screen."""
    return tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def downloaded(tab, press):
    with tab.expect_download() as waited:
        press()
    with open(waited.value.path(), encoding="utf-8") as file:
        return waited.value.suggested_filename, json.load(file)


def test_a_form_is_filled_in_by_mouse_and_its_answers_are_read(key, tab, tmp_path):
    tab.goto((tmp_path / "forms" / "likeness-001.html").as_uri() + "?PROLIFIC_PID=abc123")
    tab.click("#begin")
    assert "Tick the box" in tab.inner_text("#start .said")
    tab.check("#agree")
    assert tab.input_value("#participant") == "abc123"
    tab.click("#begin")
    wanted = [[3, 1, 2, 5, 4], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
    for number, page in enumerate(key.forms["likeness-001"]):
        if page.check is not None:
            place, rank = page.check
            at = wanted[number].index(rank)
            wanted[number][at], wanted[number][place - 1] = wanted[number][place - 1], rank
    for number, ranks in enumerate(wanted, start=1):
        here = tab.locator(f"section[data-page='{number}']")
        assert here.is_visible()
        assert fits(tab)
        choices = here.locator(".choice")
        assert choices.count() == 5
        here.locator(".next").click()
        assert here.locator(".said").inner_text() == "Give every picture a rank first: 5 left."
        for place in (0, 1, 1):  # a slip, taken back
            choices.nth(place).click()
        pressed = [choices.nth(place).get_attribute("aria-pressed") for place in (0, 1)]
        assert pressed == ["true", "false"]
        choices.nth(0).click()
        for place in np.argsort(ranks):
            choices.nth(int(place)).click()
        for place, rank in enumerate(ranks):
            name = f"{'ABCDE'[place]}: rank {rank} of 5"
            assert choices.nth(place).inner_text().strip() == name
        here.locator(".next").click()
    name, found = downloaded(tab, lambda: tab.click("#download"))
    assert name == f"likeness-001-{found['respondent']}.json"
    assert found["code"] == tab.inner_text("#code")
    assert json.loads(tab.input_value("#answers")) == found
    assert [one["ranks"] for one in found["pages"]] == wanted
    read = answers.examine(key, found)
    assert (read.participant, read.failed_checks, len(read.rankings)) == ("abc123", 0, 2)
    assert tab.problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in tab.requested)


def test_a_form_is_filled_in_by_keyboard_alone(key, tab, tmp_path):
    tab.goto((tmp_path / "forms" / "match-001.html").as_uri())
    for _ in range(20):  # from the top to the box
        if tab.evaluate("document.activeElement.id") == "agree":
            break
        tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    texts = []
    for page in key.forms["match-001"]:
        shown = tab.locator(".page:visible")
        texts.append(shown.locator(".text").inner_text())
        assert tab.evaluate("document.activeElement.tagName") == "H2"
        assert texts[-1] == page.context
        for place in range(5):
            tab.keyboard.press("Tab")
            assert tab.evaluate("document.activeElement.dataset.name") == "ABCDE"[place]
            tab.keyboard.press("Space")
        for _ in range(3):  # Back, Take all ranks away, Next
            tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
    assert "An oil painting with <b>&</b>" in texts  # as text
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    _, found = downloaded(tab, lambda: tab.keyboard.press("Enter"))
    assert [one["ranks"] for one in found["pages"]] == [[1, 2, 3, 4, 5]] * 3
    assert answers.examine(key, found).form == "match-001"
    assert tab.problems == []


def test_going_back_keeps_the_ranks_and_changes_the_code(key, tab, tmp_path):
    tab.goto((tmp_path / "forms" / "match-001.html").as_uri())
    tab.check("#agree")
    tab.fill("#participant", "<img src=x>")
    tab.click("#begin")
    assert "must be letters" in tab.inner_text("#start .said")
    tab.fill("#participant", "")
    tab.click("#begin")
    for _ in range(3):
        here = tab.locator(".page:visible")
        for place in range(5):
            here.locator(".choice").nth(place).click()
        here.locator(".next").click()
    first = tab.inner_text("#code")
    tab.click("#end-back")
    here = tab.locator(".page:visible")
    assert here.get_attribute("data-page") == "3"
    assert here.locator(".choice[aria-pressed=true]").count() == 5
    here.locator(".again").click()
    assert here.locator(".choice[aria-pressed=true]").count() == 0
    for place in range(5):
        here.locator(".choice").nth(4 - place).click()
    here.locator(".next").click()
    assert tab.inner_text("#code") != first
    _, found = downloaded(tab, lambda: tab.click("#download"))
    assert [one["ranks"] for one in found["pages"]][2] == [5, 4, 3, 2, 1]
    answers.examine(key, found)


def test_descriptions_are_counted_as_they_are_written(tab, tmp_path):
    folder = tmp_path / "my <cat>"
    folder.mkdir()
    for i in range(4):
        Image.open(io.BytesIO(picture(60 * i, 0, 0))).save(folder / f"{i}.png")
    tab.goto(captions.make(folder, tmp_path, each=5).as_uri())
    tab.check("#agree")
    tab.click("#begin")
    tab.fill("#short-1", "  a   grey\ncat ")
    assert tab.inner_text("#short-1-words") == "3 of 12 words"
    tab.fill("#short-2", "w " * 13)
    assert tab.inner_text("#short-2-words") == "13 of 12 words, too many"
    assert tab.get_attribute("#short-2", "aria-invalid") == "true"
    tab.click(".page .next")
    assert tab.inner_text(".page .said") == "Short description 2 must have 1 to 12 words."
    assert tab.evaluate("document.activeElement.id") == "short-2"
    for i in range(1, 6):
        tab.fill(f"#short-{i}", f"a “grey” cat <b> | {i}")
        tab.fill(f"#long-{i}", "ein Kätzchen 猫 " + "w " * 27)
    assert fits(tab)
    tab.click(".page .next")
    _, found = downloaded(tab, lambda: tab.click("#download"))
    path = captions.take(folder, [("a.json", found)])
    assert json.loads(path.read_text()).keys() == {"short", "long"}
    read = descriptions.read(folder)
    assert read.short == tuple(f"a “grey” cat <b> | {i}" for i in range(1, 6))
    # what was downloaded is itself such a file
    (folder / "descriptions.json").write_text(json.dumps(found))
    assert descriptions.read(folder) == read
    assert tab.problems == []
