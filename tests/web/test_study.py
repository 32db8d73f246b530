"""A user study's forms on the server: who reaches them, what is taken, and how it is read again."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from oneword.cli.main import main
from oneword.config.model import ModelConfig
from oneword.config.scoring import UserStudyConfig
from oneword.config.web import WebConfig
from oneword.errors import ConfigError
from oneword.images import jpeg_bytes
from oneword.study.userstudy import answers, captions, forms, kept, pages
from oneword.study.userstudy.items import Item, UserStudyError
from waiting import until


pytest.importorskip("gradio")
from oneword.web.forms import MOST_BYTES, Forms
from oneword.web.server import serving


pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
MODELS = ("one-word", "two-words", "high-lr")
NANO = ModelConfig(model="microworld-nano", device="cpu")


def picture(*rgb):
    return jpeg_bytes(Image.fromarray(np.full((24, 24, 3), rgb, dtype=np.uint8)), 92)


def write_forms(folder):
    """Two forms of one page and a check each."""
    items = [
        Item(
            concept=concept, seed=0, kind="background", prompt=f"a photo of {{}} on the {place}",
            picture=0,
            results={m: picture(50 * i, 90 * n, 120) for i, m in enumerate(MODELS)},
            training=[picture(250, 40 * i, 120 * n) for i in range(5)],
            image_similarity=dict.fromkeys(MODELS), text_similarity=dict.fromkeys(MODELS),
        )
        for n, (concept, place) in enumerate((("cat", "moon"), ("mug", "beach")))
    ]  # fmt: skip
    key = forms.plan(items, UserStudyConfig(per_form=1, forms=1), ["Agree?"])
    forms.write(key, items, folder)
    return key


def answered(key, form, respondent="0" * 16, participant="", **change):
    """What a page sends: the checks passed, the rest as it stands."""
    given = []
    for number, page in enumerate(key.forms[form], start=1):
        ranks = [*range(1, len(page.shown) + 1)]
        if page.check is not None:
            place, rank = page.check
            other = ranks.index(rank)
            ranks[other], ranks[place - 1] = ranks[place - 1], rank
        given.append({"page": number, "ranks": ranks})
    ranks = [",".join(map(str, one["ranks"])) for one in given]
    code = pages.completion_code([key.questionnaire, form, participant, respondent, *ranks])
    return {
        "kit": 1, "questionnaire": key.questionnaire, "form": form, "participant": participant,
        "respondent": respondent, "consent": True, "seconds": 60, "pages": given, "code": code,
    } | change  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory, mugs_folder):
    """A page behind a password, one of whose two studies is open; the study's key."""
    root = tmp_path_factory.mktemp("study") / "workspace"
    key = write_forms(root / "studies" / "first")
    write_forms(root / "studies" / "closed")
    captions.make(mugs_folder, root / "studies" / "first", each=1)
    config = WebConfig(
        workspace=root, model=NANO, port=0, browser=False, auth="me:secret", studies=("first",)
    )
    with serving(config) as one:
        yield one, key


@pytest.fixture(scope="module")
def mugs_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "mug"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(picture(200, 40 * number, 0))
    return folder


@pytest.fixture
def answers_file(opened):
    """Where the answers go; empty at the beginning of each test."""
    path = opened[0].studies["first"].answers
    path.unlink(missing_ok=True)
    return path


def asked(served, path, body=None, kind="application/json"):
    """Status and text of an answer to somebody without the password."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{served.url}{path}", data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    "path",
    [
        "/study", "/study/", "/study/first", "/study/first/", "/study/first/key.json",
        "/study/first/tasks.csv", "/study/first/answers.sqlite", "/study/first/match-002.html",
        "/study/first/../closed/match-001.html", "/study/first/%2e%2e/closed/match-001.html",
        "/study/first/..%2fclosed%2fmatch-001.html", "/study/closed/match-001.html",
        "/study/closed/key.json", "/study/%2e%2e/words", "/study/first/match-001.html/key.json",
    ],
)  # fmt: skip
def test_only_the_forms_of_an_open_study_are_there_without_the_password(opened, path):
    code, text = asked(opened[0], path)
    assert code in (401, 404)
    assert "questionnaire" not in text


def test_the_page_itself_still_asks_for_the_password(opened):
    for path in ("/gradio_api/info", "/config"):
        assert asked(opened[0], path)[0] == 401
    assert asked(opened[0], "/gradio_api/call/draw", {"data": []})[0] == 401


def test_a_form_is_that_of_the_file_and_can_send_to_its_own_server_alone(opened):
    served, _ = opened
    for name in ("likeness-001", "match-001", "captions-mug"):
        code, text = asked(served, f"/study/first/{name}.html")
        assert code == 200
        file = (served.page.workspace.studies / "first" / f"{name}.html").read_text()
        assert text == pages.served(file)
        assert "default-src 'none'; connect-src 'self'; img-src data:" in text


def test_answers_are_kept_and_read_as_those_of_files(opened, answers_file, tmp_path, capsys):
    served, key = opened
    for form in key.forms:
        for person in "abc":
            sent = answered(key, form, respondent=person * 16, participant=f"p-{person}")
            code, text = asked(served, f"/study/first/{form}.html", sent)
            assert (code, json.loads(text)["taken"]) == (200, True)
            (tmp_path / f"{form}-{person * 16}.json").write_text(json.dumps(sent))
    read = ["userstudy", "read", "--forms", str(answers_file.parent)]
    found = []
    for number, given in enumerate((answers_file, tmp_path)):
        out = tmp_path / f"results-{number}"
        assert main([*read, str(given), "--output-dir", str(out)]) == 0
        assert "6 of 6 forms count; left out: none." in capsys.readouterr().out
        found.append((out / "rankings.csv").read_text().splitlines())
    assert sorted(found[0]) == sorted(found[1])


def test_descriptions_are_kept_and_read_by_captions(opened, answers_file, mugs_folder, tmp_path):
    served, _ = opened
    for number in range(5):
        texts = [f"a red thing {number}", f"a red thing with a handle, number {number}"]
        head = {"questionnaire": "captions", "form": "mug", "participant": "",
                "respondent": f"{number:016x}"}  # fmt: skip
        sent = head | {
            "kit": 1, "consent": True, "seconds": 9, "short": texts[:1], "long": texts[1:],
            "code": pages.completion_code([*head.values(), *texts]),
        }  # fmt: skip
        assert asked(served, "/study/first/captions-mug.html", sent)[0] == 200
    long = sent | {"short": ["word " * 13]}
    code, text = asked(served, "/study/first/captions-mug.html", long)
    assert code == 422
    assert "12" in json.loads(text)["text"]
    mine = shutil.copytree(mugs_folder, tmp_path / "mug")
    assert main(["userstudy", "captions", str(mine), "--answers", str(answers_file)]) == 0
    assert len(json.loads((mine / "descriptions.json").read_text())["short"]) == 5


def test_the_same_person_is_taken_once(opened, answers_file):
    served, key = opened
    place = "/study/first/match-001.html"
    first = answered(key, "match-001", participant="ann")
    assert json.loads(asked(served, place, first)[1])["text"] == "Your answers have been received."
    # the answer was lost on its way, and the page sends once more
    code, text = asked(served, place, first)
    assert (code, json.loads(text)["taken"]) == (200, True)
    for other in (
        answered(key, "match-001", participant="ann", respondent="1" * 16),
        answered(key, "match-001", participant="bob"),  # the same page, another name
        first | {"seconds": 61},
    ):
        code, text = asked(served, place, other)
        assert code == 409
        assert "has already filled in match-001" in json.loads(text)["text"]
        assert not json.loads(text)["again"]
    assert asked(served, "/study/first/likeness-001.html", answered(
        key, "likeness-001", participant="ann"))[0] == 200  # fmt: skip
    assert len(kept.rows(answers_file, most=MOST_BYTES)) == 2


def test_what_is_no_answer_to_the_form_is_refused_in_a_sentence(opened, answers_file):
    served, key = opened
    place, good = "/study/first/match-001.html", answered(key, "match-001")
    for sent, code, words in (
        (b"{", 422, "The answers must be JSON"),
        (b"\xff\xfe\x00", 422, "must be"),
        (b"[" * 10_000, 422, "nested too deeply"),
        (b" " * (MOST_BYTES + 1), 413, f"at most {MOST_BYTES} bytes"),
        ([], 422, "it must be an object"),
        (good | {"consent": False}, 422, "must have agreed"),
        (good | {"code": "00000000"}, 422, "must be that of the answers"),
        (good | {"pages": good["pages"][:1]}, 422, "must be of pages 1 to 2"),
        (good | {"participant": "<script>"}, 422, "participant must be as the page writes it"),
        (answered(key, "likeness-001"), 422, "must be to match-001, got those to likeness-001"),
    ):
        found, text = asked(served, place, sent)
        assert found == code, text
        assert words in json.loads(text)["text"]
    assert asked(served, place, json.dumps(good).encode(), kind="text/plain")[0] == 413
    code, text = asked(served, "/study/first/match-009.html", good)
    assert (code, json.loads(text)["text"]) == (404, "This form does not exist; check the link.")
    assert not answers_file.exists()


def test_answers_that_cannot_be_written_are_not_said_to_have_arrived(opened, answers_file):
    served, key = opened
    answers_file.mkdir()
    code, text = asked(served, "/study/first/match-001.html", answered(key, "match-001"))
    answers_file.rmdir()
    assert (code, json.loads(text)["taken"], json.loads(text)["again"]) == (503, False, True)
    assert "Cannot write answers.sqlite because" in json.loads(text)["text"]


def test_a_folder_without_forms_is_no_study(tmp_path):
    with pytest.raises(UserStudyError, match="must hold forms, got none"):
        Forms(tmp_path)
    with pytest.raises(ConfigError, match="studies must be names of folders"):
        WebConfig(studies=("../other",))


@pytest.fixture
def phone(browser):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    yield page
    context.close()


def fill_in(phone, address, key):
    """Rank every page of the form match-001 from left to right, its check as it must be."""
    phone.goto(address)
    assert "sends your answers to the server" in phone.inner_text("#start")
    assert "sends nothing anywhere" not in phone.inner_text("#start")
    phone.check("#agree")
    phone.click("#begin")
    for page in key.forms["match-001"]:
        choices = phone.locator(".page:visible .choice")
        order = [*range(len(page.shown))]
        if page.check is not None:
            place, rank = page.check
            order.remove(place - 1)
            order.insert(rank - 1, place - 1)
        for place in order:
            choices.nth(place).click()
        phone.locator(".page:visible .next").click()


def test_a_form_is_filled_in_and_sent(opened, answers_file, phone):
    served, key = opened
    address = f"{served.url}/study/first/match-001.html?PROLIFIC_PID=ann"
    fill_in(phone, address, key)
    until(lambda: phone.inner_text("#sent") == "Your answers have been received.")
    assert not phone.locator("#download").is_visible()
    assert not phone.locator("#end-back").is_visible()
    ((_, content),) = answers.read_files([answers_file])
    assert answers.examine(key, content).participant == "ann"
    assert answers.examine(key, content).failed_checks == 0
    assert phone.inner_text("#code") == content["code"]
    fill_in(phone, address, key)  # once more
    until(lambda: "ann has already filled in match-001" in phone.inner_text("#sent"))
    assert not phone.locator("#code").is_visible()
    assert phone.problems == []


def test_answers_are_not_lost_where_the_server_does_not_take_them(opened, answers_file, phone):
    served, key = opened
    answers_file.mkdir()
    fill_in(phone, f"{served.url}/study/first/match-001.html", key)
    until(lambda: "Cannot write" in phone.inner_text("#sent"))
    assert not phone.locator("#code").is_visible()
    with phone.expect_download() as waited:
        phone.click("#download")
    with open(waited.value.path(), encoding="utf-8") as file:
        assert answers.examine(key, json.load(file)).failed_checks == 0
    answers_file.rmdir()
    phone.click("#send")
    until(lambda: phone.inner_text("#sent") == "Your answers have been received.")
    assert len(answers.read_files([answers_file])) == 1
