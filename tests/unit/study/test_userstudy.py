"""The user study: its forms, people's answers, and what they say."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import itertools
import json
import math
import random
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import integrate, stats

from oneword.cli.main import main
from oneword.config.scoring import StudyConfig, UserStudyConfig
from oneword.errors import ConfigError
from oneword.images import from_uint8
from oneword.prompts import context, descriptions
from oneword.study import grid, work
from oneword.study.plan import Study
from oneword.study.prompt_sets import PROMPT_SETS
from oneword.study.userstudy import answers, captions, forms, kept, pages, report, results
from oneword.study.userstudy.items import UserStudyError, gather


MODELS = ("one-word", "two-words", "high-lr", "low-lr", "captions-short")
KINDS = ("photo", "background", "style", "composition")  # of the set "paper"
CONCEPTS = ("cat", "mug")
SIDE = 24


def colour(model, concept, kind, picture):
    """Of what a model drew: far from all others."""
    return (50 * model + 10, 60 * kind + 10, 50 * picture + 80 * concept + 5)


def training_colour(concept, picture):
    return (250, 250 - 30 * picture, 120 * concept)


def plain(rgb):
    return np.full((SIDE, SIDE, 3), rgb, dtype=np.uint8)


def fake_study(tmp_path, *, models=MODELS, seeds=(0,), training=6):
    """A study whose jobs are done, with pictures of one colour each and scores made up."""
    photos = tmp_path / "photos"
    for number, concept in enumerate(CONCEPTS):
        (photos / concept).mkdir(parents=True, exist_ok=True)
        for i in range(training):
            Image.fromarray(plain(training_colour(number, i))).save(photos / concept / f"{i}.png")
    study = Study(StudyConfig(
        output_dir=tmp_path / "study", concepts=(str(photos),), setups=models, seeds=seeds,
        num_images_per_prompt=3,
    ))  # fmt: skip
    grid.claim(study).release()
    for spec in study.specs:
        model, concept = models.index(spec.setup), CONCEPTS.index(spec.concept)
        subject = study.subjects[spec.concept]
        rows = [
            {
                "concept": spec.concept, "setup": spec.setup, "seed": spec.seed, "set_size": None,
                "kind": kind, "prompt": template, "guidance_scale": 5.0, "draw_time_s": 1.0,
                "image_similarity": 0.9 - 0.1 * model, "text_similarity": 0.1 + 0.05 * model,
            }
            for template, kind in study.templates(subject).items()
        ]  # fmt: skip
        work.write_rows(study.folder, spec, rows)
        drawn = [
            from_uint8(np.stack([plain(colour(model, concept, kind, i)) for i in range(3)]))
            for kind in range(len(KINDS))
        ]
        if spec.setup == "image-only":  # which keeps the training pictures alone
            drawn = drawn[:1]
        work.write_gallery(work.gallery_file(study.folder, spec), drawn)
        if study.arm(spec).trains:
            record = work.run_folder(study.folder, spec) / "config.json"
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"config": {"train_data_dir": str(subject.source)}}))
    return study.folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fake_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def items(study):
    return gather(study)


def config(study, tmp_path, **fields):
    small = {"study": study, "output_dir": tmp_path / "forms", "per_form": 4, "forms": 3}
    return UserStudyConfig(**small | fields)


@pytest.fixture
def key(items, study, tmp_path):
    return forms.plan(items, config(study, tmp_path))


def middle(jpeg):
    image = Image.open(io.BytesIO(jpeg))
    return image.getpixel((image.width // 2, image.height // 2))


def near(seen, wanted):
    return np.abs(np.subtract(seen, wanted)).max() <= 12


def answered(key, form, rank, *, respondent=0, participant=""):
    """A person's answers, as the page writes them; checks are passed.

    ``rank(page)`` gives the ranks of the places.
    """
    given = []
    for number, page in enumerate(key.forms[form], start=1):
        ranks = list(rank(page))
        if page.check is not None:
            place, right = page.check
            other = ranks.index(right)
            ranks[other], ranks[place - 1] = ranks[place - 1], right
        given.append({"page": number, "ranks": ranks})
    return coded({
        "kit": 1, "questionnaire": key.questionnaire, "form": form, "participant": participant,
        "respondent": f"{respondent:016x}", "consent": True, "seconds": 60, "pages": given,
    })  # fmt: skip


def coded(found):
    head = [found[n] for n in ("questionnaire", "form", "participant", "respondent")]
    ranks = [",".join(map(str, one["ranks"])) for one in found["pages"]]
    return found | {"code": pages.completion_code([*head, *ranks])}


def in_order(order):
    """Ranks of somebody who likes the models in this order, wherever they stand."""

    def rank(page):
        liked = sorted(page.shown, key=lambda m: order.index(m) if m else -1)
        return [liked.index(m) + 1 for m in page.shown]

    return rank


def collected(key, *documents):
    return answers.collect(key, [(f"{i}.json", one) for i, one in enumerate(documents)])


# --- what is asked


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a photo of {} on the beach", "A photo on the beach"),
        ("a photo of a {} on the moon", "A photo on the moon"),
        ("an oil painting of {}", "An oil painting"),
        ("Elmo holding a {}", "Elmo holding something"),
        ("a cat in the style of {}", "A cat"),
        ("a {} in the jungle", "Something in the jungle"),
        ("a purple {}", "A purple something"),
        ("a photo of a {} mask", "A photo of a mask"),
        ("{} made of lego", "Something made of lego"),
        ("a {} backpack", "A backpack"),
        ("a mouse using {} as a boat", "A mouse using something as a boat"),
    ],
)
def test_a_prompt_without_its_word_is_a_text_that_people_can_read(template, text):
    assert context(template) == text


def test_no_published_prompt_loses_its_sense():
    for sets in PROMPT_SETS.values():
        for own in sets.values():
            for template in own.kinds:
                text = context(template)
                assert not re.search(
                    r"[{}]|  |\b(a|an|the|of|in)$|\b(a|an|of) (in|on|with)\b", text
                )
                assert text[0].isupper()


def test_an_item_is_one_picture_of_each_model_for_the_same_prompt_and_seed(items):
    assert len(items) == 2 * 3 * 3  # concepts, kinds without the photo, pictures
    for item in items:
        assert set(item.results) == set(MODELS)
        concept, kind = CONCEPTS.index(item.concept), KINDS.index(item.kind)
        for model, data in item.results.items():
            assert near(middle(data), colour(MODELS.index(model), concept, kind, item.picture))
        for i, data in enumerate(item.training):
            assert near(middle(data), training_colour(concept, i))
        assert item.image_similarity["two-words"] == pytest.approx(0.8)
        assert item.text_similarity["two-words"] == pytest.approx(0.15)


def test_what_is_asked_for_is_shown(study):
    found = gather(study, ("low-lr", "one-word", "high-lr"), ("mug",), ("style", "photo"))
    assert [*found[0].results] == ["low-lr", "one-word", "high-lr"]
    assert {item.concept for item in found} == {"mug"}
    assert {item.kind for item in found} == {"photo", "style"}


def test_training_pictures_are_no_models(tmp_path):
    folder = fake_study(tmp_path, models=(*MODELS[:3], "image-only"))
    assert set(gather(folder)[0].results) == set(MODELS[:3])


def test_a_study_that_was_moved_has_its_own_pictures_still(tmp_path):
    folder = fake_study(tmp_path)
    shutil.copytree(tmp_path / "photos" / "cat", folder / "concepts" / "cat")
    shutil.copytree(tmp_path / "photos" / "mug", folder / "concepts" / "mug")
    shutil.rmtree(tmp_path / "photos")
    assert len(gather(folder.rename(tmp_path / "moved"))) == 18


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"models": ("one-word", "pivotal", "neon")}, "got pivotal, neon; there are captions-"),
        ({"models": ("one-word", "two-words", "image-only")}, "got image-only; there are"),
        ({"concepts": ("dog",)}, "concepts must be of the study .* got dog; there are cat, mug"),
        ({"kinds": ("colour",)}, "kinds must be of background, .* got 'colour'"),
        (
            {"kinds": ("plain",)},
            "must have pictures of the same concept, seed and prompt, got none",
        ),
    ],
)
def test_what_a_study_has_not_is_said(study, asked, text):
    with pytest.raises(UserStudyError, match=text):
        gather(study, **asked)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(UserStudyError, match="must be a folder written by `oneword study`"):
        gather(tmp_path)
    folder = fake_study(tmp_path)
    shutil.rmtree(folder / "pictures")
    with pytest.raises(UserStudyError, match="must contain pictures, got none in"):
        gather(folder)


def test_two_models_are_too_few_and_untrained_ones_have_no_pictures(tmp_path):
    folder = fake_study(tmp_path, models=MODELS[:2])
    with pytest.raises(UserStudyError, match="models must be 3 to 9 setups, got 2 in"):
        gather(folder)
    other = fake_study(
        tmp_path / "other", models=("prompt-only", "captions-short", "captions-long")
    )
    with pytest.raises(UserStudyError, match="Cannot find the training pictures of cat because"):
        gather(other)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"models": ("a", "b")}, "models must be 3 to 9 setups, got 2"),
        ({"models": ("a", "b", "a")}, "models must name each setup once"),
        ({"per_form": 0}, "per_form must be 1 to 50, got 0"),
        ({"forms": 1001}, "forms must be 1 to 1000, got 1001"),
        ({"checks": 4}, "checks must be 0 to 3, got 4"),
    ],
)
def test_settings_are_checked(fields, text):
    with pytest.raises(ConfigError, match=text):
        UserStudyConfig(**fields)


# --- forms


def parts_of(name, text):
    """What a form's page shows: training and results, as colours, and the text."""
    found = []
    for section in re.split(r'<section class="page"', text)[1:]:
        above, _, below = section.partition('<div class="choices"')

        def colours(part):
            uris = re.findall(r"data:image/jpeg;base64,([^\"]*)", part)
            return [middle(base64.b64decode(uri)) for uri in uris]

        found.append((colours(above), colours(below), html.unescape(above)))
    return found


def test_a_form_shows_what_its_key_says(study, tmp_path):
    chosen = config(study, tmp_path)
    key = forms.make(chosen)
    assert forms.load(chosen.output_dir) == key
    assert [*key.forms] == [f"{w}-00{n}" for w in ("likeness", "match") for n in (1, 2, 3)]
    for name, own in key.forms.items():
        text = (chosen.output_dir / f"{name}.html").read_text()
        shown = parts_of(name, text)
        assert len(shown) == len(own) == 5
        for page, (above, below, told) in zip(own, shown, strict=True):
            concept, kind = CONCEPTS.index(page.concept), KINDS.index(page.kind)
            if name.startswith("likeness"):
                assert len(above) == 4
                for place, seen in zip(page.training, above, strict=True):
                    assert near(seen, training_colour(concept, place))
            else:
                assert above == []
                assert page.context in told
            for place, (model, seen) in enumerate(zip(page.shown, below, strict=True), start=1):
                if model is not None:
                    drawn = colour(MODELS.index(model), concept, kind, page.picture)
                    assert near(seen, drawn)
                    continue
                assert page.check is not None
                assert page.check[0] == place
                if name.startswith("likeness"):
                    assert page.check[1] == 1
                    assert seen == above[0]
                    continue
                assert page.check[1] == 5
                other, _, its_kind, picture, its_model = page.odd
                assert other != page.concept
                assert near(seen, colour(MODELS.index(its_model), CONCEPTS.index(other),
                                         KINDS.index(its_kind), picture))  # fmt: skip
                assert page.note in told
                assert "shows another thing" in page.note
        assert sum(page.check is not None for page in own) == 1


def test_a_form_tells_nothing_of_the_models_and_asks_nothing_of_the_net(study, tmp_path):
    chosen = config(study, tmp_path, forms=1)
    forms.make(chosen)
    for path in chosen.output_dir.glob("*.html"):
        text = path.read_text()
        known = re.sub(r"base64,[^\"]*|checked|checkbox|spellcheck", "", text)
        for secret in (*MODELS, "check", "mug", "concept", "seed"):
            assert secret not in known
        tags = re.sub("<script>.*</script>", "", text, flags=re.DOTALL)
        loaded = re.findall(r"""\b(?:src|href)\s*=\s*["']?([^"'> ]+)|url\(([^)]+)\)""", tags)
        assert loaded
        assert all((a or b).startswith(("data:", "#")) for a, b in loaded)
        assert "default-src 'none'; img-src data:;" in text
        assert not re.search(r"https?:|fetch\(|import\(|XMLHttp|WebSocket", known)


def test_the_same_seed_makes_the_same_forms(study, tmp_path):
    def made(name, seed):
        forms.make(config(study, tmp_path, output_dir=tmp_path / name, seed=seed))
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = made("a", 0)
    assert made("b", 0) == first
    assert made("a", 0) == first  # and over themselves
    other = made("c", 1)
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first if name != "tasks.csv")


def test_forms_are_not_written_over_others(study, tmp_path):
    chosen = config(study, tmp_path)
    forms.make(chosen)
    with pytest.raises(UserStudyError, match="has other forms, whose answers need their key"):
        forms.make(dataclasses.replace(chosen, seed=1))
    (chosen.output_dir / "key.json").unlink()
    with pytest.raises(UserStudyError, match=r"has forms without their key\.json"):
        forms.make(chosen)


def test_every_item_is_shown_as_often_as_every_other_and_once_a_form(items, study, tmp_path):
    key = forms.plan(items, config(study, tmp_path, per_form=7, forms=20))
    uses = {}
    for number in range(1, 21):
        shown = {}
        for what in forms.QUESTIONNAIRES:
            own = [p for p in key.forms[f"{what}-{number:03d}"] if p.check is None]
            shown[what] = [(p.concept, p.kind, p.picture) for p in own]
            assert len(set(shown[what])) == len(own) == 7
            for one in shown[what]:
                uses[what, one] = uses.get((what, one), 0) + 1
        assert set(shown["likeness"]) == set(shown["match"])
    assert len(uses) == 2 * len(items)
    assert set(uses.values()) == {140 // 18, 140 // 18 + 1}
    # each model stands at each place about as often: 140 pages, 5 places
    at = np.zeros((5, 5))
    for name, own in key.forms.items():
        for page in own:
            if name.startswith("match") and page.check is None:
                at[range(5), [MODELS.index(m) for m in page.shown]] += 1
    assert stats.chisquare(at.ravel()).pvalue > 0.001


def test_a_form_cannot_ask_for_more_than_there_is(items, study, tmp_path):
    with pytest.raises(UserStudyError, match=r"at most 18, .* got 19"):
        forms.plan(items, config(study, tmp_path, per_form=19))
    alone = [item for item in items if item.kind == "style"]
    with pytest.raises(UserStudyError, match="because there are pictures of only one text"):
        forms.plan(alone, config(study, tmp_path))
    forms.plan(alone, config(study, tmp_path, checks=0))


def test_the_arithmetic_of_the_papers_responses_is_told(items, study, tmp_path):
    key = forms.plan(items, config(study, tmp_path, per_form=10, forms=60))
    told = forms.arithmetic(key)
    assert "60 forms x 10 pages = 600 responses per questionnaire, 1200 for both" in told
    assert "18 different pages, each shown about 33.3 times" in told
    assert "The paper's 600 responses per questionnaire take 60 forms of 10." in told
    key = forms.plan(items, config(study, tmp_path, per_form=7, forms=2))
    assert "600 responses per questionnaire take 86 forms of 7" in forms.arithmetic(
        key
    )  # 85 are 595


def test_tasks_are_a_line_for_each_form(study, tmp_path):
    chosen = config(study, tmp_path, url="https://example.org/study/")
    forms.make(chosen)
    lines = list(csv.DictReader((chosen.output_dir / "tasks.csv").read_text().splitlines()))
    assert len(lines) == 6
    assert lines[0] == {
        "form": "likeness-001", "questionnaire": "likeness", "pages": "5",
        "url": "https://example.org/study/likeness-001.html",
    }  # fmt: skip


def test_html_in_texts_is_text(study, items, tmp_path):
    consent = tmp_path / "consent.txt"
    consent.write_text("I <b>agree</b> & more</script>\n\n<img src=x onerror=alert(1)>")
    chosen = config(study, tmp_path, consent=consent)
    hostile = [
        dataclasses.replace(item, prompt=f"a <script>alert({item.picture})</script> of {{}}")
        for item in items
    ]
    key = forms.plan(hostile, chosen, pages.consent_text(consent))
    text = forms.page(key, items, "match-001")
    assert text.count("<script") == text.count("</script") == 1
    assert "<img src=x" not in text
    assert "<b>" not in text
    assert "I &lt;b&gt;agree&lt;/b&gt; &amp; more&lt;/script&gt;" in text
    assert "&lt;script&gt;alert(" in text
    consent.write_text(" \n")
    with pytest.raises(UserStudyError, match="consent must contain text, got none"):
        pages.consent_text(consent)
    with pytest.raises(UserStudyError, match="consent must be a readable text file, got"):
        pages.consent_text(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key["forms"].pop("match-001") and key["forms"].update(x=[]),
        lambda key: key["forms"]["match-001"][0]["shown"].pop(),
        lambda key: key["forms"]["match-001"][0]["shown"].__setitem__(0, "another"),
        lambda key: key["forms"]["match-001"][0].update(check=[9, 1]),
        lambda key: key["forms"]["match-001"][0].update(scores={"another": 1.0}),
        lambda key: key.update(models="abc"),
        lambda key: key.pop("questionnaire"),
    ],
)
def test_a_damaged_key_is_refused(key, tmp_path, change):
    document = dataclasses.asdict(key)
    change(document)
    (tmp_path / "key.json").write_text(json.dumps(document))
    with pytest.raises(
        UserStudyError, match=r"must contain the key\.json written by `oneword userstudy"
    ):
        forms.load(tmp_path)
    with pytest.raises(UserStudyError, match=r"must contain the key\.json"):
        forms.load(tmp_path / "nowhere")


# --- answers


def test_answers_are_read_back_to_the_models(key):
    found = collected(key, answered(key, "match-002", in_order(MODELS), participant="P1"))
    (one,) = found.responses
    assert (one.questionnaire, one.person, one.failed_checks) == ("match", "P1", 0)
    assert len(one.rankings) == 4
    for ranking in one.rankings:
        assert ranking.ranks == {model: i for i, model in enumerate(MODELS, start=1)}
        for model, place in ranking.places.items():
            assert ranking.page.shown[place - 1] == model


def swapped(found, page):
    ranks = found["pages"][page]["ranks"]
    ranks[0], ranks[1] = ranks[1], ranks[0]
    return found


def test_what_does_not_count_is_counted_and_left_out(key):
    """The fourth check of the kit: rankings that are none, duplicates, gaps, failed checks."""

    def fresh(number, form="match-001", **fields):
        return answered(key, form, in_order(MODELS), respondent=number, **fields)

    no_ranking, gap, changed, other, failed = (fresh(i) for i in range(10, 15))
    no_ranking["pages"][2]["ranks"] = [1, 1, 2, 3, 4]
    gap["pages"].pop(1)
    swapped(changed, 0)
    other["questionnaire"] = "0" * 16
    for number, page in enumerate(key.forms["match-001"]):
        if page.check is not None:
            ranks = failed["pages"][number]["ranks"]
            ranks[:] = [6 - rank for rank in ranks]
    found = collected(
        key, fresh(1), fresh(1), fresh(2, participant="A"), fresh(3, participant="A"),
        fresh(3, "match-002", participant="A"), coded(no_ranking), coded(gap), changed,
        coded(other), coded(failed), coded(failed), fresh(4) | {"consent": False}, "text",
        answers.AnswerError("unreadable", "no JSON"),
    )  # fmt: skip
    assert [(one.respondent[-1], one.form) for one in found.responses] == [
        ("1", "match-001"), ("2", "match-001"), ("3", "match-002"),
    ]  # fmt: skip
    assert found.counts == {
        "unreadable": 2, "of another questionnaire": 1, "without consent": 1, "incomplete": 1,
        "not a ranking": 1, "changed afterwards": 1, "duplicate": 3, "failed attention check": 1,
    }  # fmt: skip
    assert len(found.responses) + len(found.left_out) == 14


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kit": 2}, "unreadable"), ({"kit": True}, "unreadable"), ({"form": 1}, "unreadable"),
        ({"form": "../key"}, "of another questionnaire"),
        ({"form": "match-009"}, "of another questionnaire"),
        ({"participant": "=cmd()"}, "unreadable"), ({"participant": "a" * 65}, "unreadable"),
        ({"participant": "<b>"}, "unreadable"), ({"participant": "a\n"}, "unreadable"),
        ({"participant": "Z"}, "changed afterwards"), ({"respondent": ""}, "unreadable"),
        ({"respondent": "f" * 16}, "changed afterwards"), ({"code": "x"}, "unreadable"),
        ({"code": "00000000"}, "changed afterwards"), ({"seconds": -1}, "unreadable"),
        ({"seconds": math.nan}, "unreadable"), ({"pages": []}, "incomplete"),
        ({"pages": [{"page": 1, "ranks": [1.5]}]}, "unreadable"),
        ({"pages": {"1": 2}}, "unreadable"), ({"consent": "yes"}, "unreadable"),
        ({"consent": False}, "without consent"),
    ],
)  # fmt: skip
def test_nothing_of_an_answer_is_trusted(key, change, reason):
    found = answered(key, "match-001", in_order(MODELS)) | change
    with pytest.raises(answers.AnswerError) as caught:
        answers.examine(key, found)
    assert caught.value.reason == reason


@pytest.mark.parametrize("ranks", [[1, 2, 3, 4], [1, 2, 3, 4, 6], [0, 1, 2, 3, 4], [1] * 5, []])
def test_only_a_ranking_is_one(key, ranks):
    found = answered(key, "likeness-001", in_order(MODELS))
    found["pages"][0]["ranks"] = ranks
    with pytest.raises(answers.AnswerError, match="ranks 1 to 5 once each"):
        answers.examine(key, coded(found))


def test_pages_twice_or_in_another_order_are_incomplete(key):
    for order in ([0, 0, 2, 3, 4], [1, 0, 2, 3, 4], [0, 1, 2, 3, 4, 4]):
        found = answered(key, "likeness-001", in_order(MODELS))
        found["pages"] = [found["pages"][i] for i in order]
        with pytest.raises(answers.AnswerError, match="pages 1 to 5 once each"):
            answers.examine(key, coded(found))


def test_files_are_read_as_what_comes_from_outside(key, tmp_path):
    folder = tmp_path / "answers"
    folder.mkdir()
    good = answered(key, "match-001", in_order(MODELS))
    (folder / "a.json").write_text(json.dumps(good))
    (folder / "b.json").write_text("{")
    (folder / "c.json").write_bytes(b"[" * 10**6)
    (folder / "d.json").write_bytes(b" " * (answers.MAX_BYTES + 1))
    (folder / "e.json").mkdir()
    (folder / "notes.txt").write_text("no answers")
    given = answers.read_files([folder, folder / "a.json"])
    assert [name for name, _ in given] == ["a.json", "b.json", "c.json", "d.json", "e.json"]
    assert answers.collect(key, given).counts == {"unreadable": 4}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserStudyError, match="must be JSON files, folders of them, or"):
        answers.read_files([tmp_path / "empty"])


def test_answers_that_a_server_took_are_read_as_files_are(key, tmp_path):
    path = tmp_path / "answers.sqlite"
    given = [
        answered(key, name, in_order(MODELS), respondent=i) for i, name in enumerate(key.forms)
    ]
    for one in given:
        own = {"form": one["form"], "person": one["respondent"], "respondent": one["respondent"]}
        assert kept.put(path, **own, content=json.dumps(one))
        assert not kept.put(path, **own, content=json.dumps(one))  # sent again, and kept once
        with pytest.raises(
            kept.TwiceError, match=r"already filled in .*: the first answers are kept"
        ):
            kept.put(path, **own | {"respondent": "f" * 16}, content="{}")
        with pytest.raises(
            kept.TwiceError, match=r"already filled in .*: the first answers are kept"
        ):
            kept.put(path, **own | {"person": "somebody"}, content="{}")
    kept.put(path, form="match-001", person="b", respondent="b", content="{")
    kept.put(path, form="match-001", person="c", respondent="c", content="[" * 10**6)
    long = json.dumps("x" * (answers.MAX_BYTES + 1))
    kept.put(path, form="match-001", person="d", respondent="d", content=long)
    assert [content for _, content in answers.read_files([path])[: len(given)]] == given
    both = answers.collect(key, answers.read_files([path]))
    assert [one.name for one in both.responses] == [
        f"{one['form']}-{one['respondent']}.json" for one in given
    ]
    assert both.counts == {"unreadable": 3}


def test_a_form_takes_so_many_answers_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 2)
    path = tmp_path / "answers.sqlite"
    for person in "ab":
        kept.put(path, form="match-001", person=person, respondent=person, content="{}")
    with pytest.raises(kept.TwiceError, match="already has its 2 answers"):
        kept.put(path, form="match-001", person="c", respondent="c", content="{}")
    assert kept.put(path, form="match-002", person="c", respondent="c", content="{}")


def test_a_database_that_cannot_be_used_is_said(key, tmp_path):
    with pytest.raises(UserStudyError, match=r"Cannot write answers\.sqlite because"):
        kept.put(
            tmp_path / "gone" / "answers.sqlite", form="", person="", respondent="", content=""
        )
    path = tmp_path / "other.sqlite"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    found = answers.collect(key, answers.read_files([path]))
    assert found.counts == {"unreadable": 1}
    assert "a file written by `oneword web`" in found.left_out[0].text


def test_a_page_of_another_version_cannot_be_served(study, tmp_path):
    forms.make(config(study, tmp_path, forms=1))
    text = (tmp_path / "forms" / "match-001.html").read_text()
    there = pages.served(text)
    assert "fetch(" in there
    assert "fetch(" not in text
    for broken in (text.replace("data-answers=", "data-other="), text + "</body>", "<html>", there):
        with pytest.raises(UserStudyError, match="because another version wrote it"):
            pages.served(broken)


def test_the_code_is_a_crc_of_what_was_answered():
    assert pages.completion_code(["123456789"]) == "CBF43926"  # the standard's check value
    assert pages.completion_code(["a", "b"]) != pages.completion_code(["a", "c"])


# --- what they say


PLANTED = (1.2, 2.0, 3.0, 3.8, 5.0)


def planted(rng):
    """A ranking of five whose mean ranks are those."""
    swap = rng.choices((None, 0, 1, 2), (0.4, 0.2, 0.2, 0.2))[0]
    order = list(MODELS)
    if swap is not None:
        order[swap], order[swap + 1] = order[swap + 1], order[swap]
    return order


def test_planted_mean_ranks_lie_within_their_intervals(items, study, tmp_path):
    """The first check of the kit: in 93 of 100 seeds at least."""
    key = forms.plan(items, config(study, tmp_path, per_form=3, forms=1, checks=0))
    hits = np.zeros(5)
    for seed in range(100):
        rng = random.Random(seed)
        documents = [
            answered(key, "match-001", lambda page: in_order(planted(rng))(page), respondent=n)  # noqa: B023
            for n in range(40)
        ]
        found = collected(key, *documents)
        assert found.left_out == []
        ranks = results.outcome(found.responses, MODELS).ranks
        for i, (model, true) in enumerate(zip(MODELS, PLANTED, strict=True)):
            hits[i] += abs(ranks[model].value - true) <= ranks[model].half_width + 1e-12
    assert hits.min() >= 93


def people(key, num, seed=0, form="match-001"):
    rng = random.Random(seed)
    return [
        answered(key, form, lambda page: in_order(planted(rng))(page), respondent=n)
        for n in range(num)
    ]


def test_four_times_the_people_halve_the_interval(key):
    """The second check: the same answers four times over, against Student's closed form."""
    few = people(key, 40)
    many = [
        coded(one | {"respondent": f"{n}{one['respondent'][1:]}"}) for one in few for n in "0123"
    ]
    small, large = (
        results.outcome(collected(key, *own).responses, MODELS).ranks for own in (few, many)
    )
    for model in MODELS[:4]:
        assert large[model].value == pytest.approx(small[model].value, abs=1e-12)
        ratio = large[model].half_width / small[model].half_width
        points = [stats.t.ppf(0.975, n - 1) for n in (40, 160)]
        assert ratio == pytest.approx(points[1] / points[0] * math.sqrt(39 / 159), rel=2e-3)
        assert ratio == pytest.approx(0.5, abs=0.02)
    rows = [[r.ranks["one-word"] for r in one.rankings] for one in collected(key, *few).responses]
    own = np.mean(rows, axis=1)
    half = stats.t.ppf(0.975, 39) * np.std(own, ddof=1) / math.sqrt(40)
    assert small["one-word"].half_width == pytest.approx(half, rel=2e-3)
    assert small["one-word"].value == pytest.approx(np.mean(own), abs=1e-12)


def test_the_order_on_the_page_changes_no_mean_rank(items, study, tmp_path):
    """The third check."""
    for seed in (0, 1):
        key = forms.plan(items, config(study, tmp_path, seed=seed))
        every = [answered(key, f"match-00{n}", in_order(MODELS), respondent=n) for n in (1, 2, 3)]
        found = results.outcome(collected(key, *every).responses, MODELS)
        for model, rank in zip(MODELS, range(1, 6), strict=True):
            assert found.ranks[model].value == pytest.approx(rank, abs=1e-12)
    # people who only see places, with every order of the results once: no model is preferred
    page = next(page for page in key.forms["match-001"] if page.check is None)
    orders = [dataclasses.replace(page, shown=[*o]) for o in itertools.permutations(MODELS)]
    whole = dataclasses.replace(key, forms={"match-001": orders})
    found = results.outcome(
        collected(whole, answered(whole, "match-001", lambda page: (1, 2, 3, 4, 5))).responses,
        MODELS,
    )
    for model in MODELS:
        assert found.ranks[model].value == pytest.approx(3, abs=1e-12)
    assert found.places == pytest.approx([1, 2, 3, 4, 5], abs=1e-12)  # and the report tells it


def test_a_person_counts_once(items, study, tmp_path):
    """Who fills in two forms is one person, with the mean of all their pages."""
    key = forms.plan(items, config(study, tmp_path))
    back = in_order(MODELS[::-1])
    given = [
        answered(key, "match-001", in_order(MODELS), respondent=1, participant="A"),
        answered(key, "match-002", back, respondent=2, participant="A"),
        answered(key, "match-001", back, respondent=3),
    ]
    found = results.outcome(collected(key, *given).responses, MODELS)
    assert (found.people, found.rankings) == (2, 12)
    assert found.ranks["one-word"].value == pytest.approx((3 + 5) / 2)
    assert found.first["one-word"].value == pytest.approx(0.25)


def test_friedman_and_kendall_are_their_closed_forms():
    ranks = np.array([random.Random(i).sample(range(1, 6), 5) for i in range(7)], dtype=float)
    chi, p = results.friedman(ranks)
    total, (n, k) = ranks.sum(axis=0), ranks.shape
    assert chi == pytest.approx(12 / (n * k * (k + 1)) * (total**2).sum() - 3 * n * (k + 1))
    assert p == pytest.approx(stats.chi2.sf(chi, k - 1))
    spread = ((total - total.mean()) ** 2).sum()
    assert results.kendalls_w(ranks) == pytest.approx(12 * spread / (n**2 * (k**3 - k)))
    assert results.kendalls_w(np.tile(ranks[:1], (4, 1))) == pytest.approx(1.0)
    halves = np.array([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]], dtype=float)
    assert results.kendalls_w(halves) == pytest.approx(0.0)
    assert results.friedman(ranks[:1]) is None
    assert results.friedman(np.full((5, 5), 3.0)) is None
    assert results.friedman(ranks[:, :2]) is None


def studentized(q, k):
    """P that the range of k normal values exceeds q, by its integral."""

    def at(z):
        return k * stats.norm.pdf(z) * (stats.norm.cdf(z) - stats.norm.cdf(z - q)) ** (k - 1)

    return 1 - integrate.quad(at, -12, 12 + q)[0]


def test_nemenyi_is_the_range_of_normal_values():
    """Against its integral, against values drawn at random, and against Demsar's table."""
    values = np.array([random.Random(i).sample(range(1, 6), 5) for i in range(9)], dtype=float)
    values[:6] = np.sort(values[:6], axis=1)
    found = results.nemenyi(values)
    assert len(found) == 10
    means, rng = values.mean(axis=0), np.random.default_rng(0)
    ranges = np.ptp(rng.standard_normal((200_000, 5)), axis=1)
    for (i, j), p in found.items():
        q = abs(means[i] - means[j]) / math.sqrt(5 * 6 / (12 * 9))
        assert p == pytest.approx(studentized(q, 5), abs=1e-6)
        assert p == pytest.approx(np.mean(ranges > q), abs=0.005)
    for k, critical in ((3, 2.343), (5, 2.728), (9, 3.102)):  # table 5 a, alpha 0.05
        assert studentized(critical * math.sqrt(2), k) == pytest.approx(0.05, abs=2e-4)
        # two models whose mean ranks lie a critical difference apart
        n = 400
        apart = critical * math.sqrt(k * (k + 1) / (6 * n))
        base = np.tile(np.arange(k, dtype=float), (n, 1))
        order = results.nemenyi(base)
        assert order[0, 1] == pytest.approx(
            studentized(math.sqrt(12 * n / (k * (k + 1))), k), abs=1e-6
        )
        assert studentized(apart / math.sqrt(k * (k + 1) / (12 * n)), k) == pytest.approx(
            0.05, abs=2e-4
        )


def test_ties_between_a_persons_means_are_ties():
    values = np.array([[1.5, 1.5, 3.0], [2.0, 2.0 + 1e-13, 2.0], [1.0, 2.0, 3.0]])
    chi, _ = results.friedman(values)
    expected = stats.friedmanchisquare([1.5, 2, 1], [1.5, 2, 2], [3, 2, 3]).statistic
    assert chi == pytest.approx(expected)


def test_clip_is_compared_with_people(items, study, tmp_path):
    """Image similarity falls and text similarity rises along the models, in the made-up rows."""
    key = forms.plan(items, config(study, tmp_path))
    rank = in_order(MODELS)
    found = {}
    for what in forms.QUESTIONNAIRES:
        given = [answered(key, f"{what}-00{n}", rank, respondent=n) for n in (1, 2, 3)]
        found[what] = results.outcome(collected(key, *given).responses, MODELS)
    assert found["likeness"].clip_on_pages.value == pytest.approx(1)
    assert found["match"].clip_on_pages.value == pytest.approx(-1)
    assert found["likeness"].clip.value == pytest.approx(1)
    assert found["match"].clip.value == pytest.approx(-1)
    assert found["likeness"].clip.num == 2  # concepts
    mixed = in_order(("two-words", "one-word", "high-lr", "low-lr", "captions-short"))
    given = [answered(key, "likeness-001", mixed)]
    one = results.outcome(collected(key, *given).responses, MODELS)
    assert one.clip_on_pages.value == pytest.approx(0.9)  # 1 - 6 * 2 / (5 * 24)
    assert one.clip.value == pytest.approx(np.corrcoef([1, 2, 3, 4, 5], [2, 1, 3, 4, 5])[0, 1])


def test_without_scores_there_is_no_correlation(items, study, tmp_path):
    bare = [dataclasses.replace(i, image_similarity=dict.fromkeys(MODELS)) for i in items]
    key = forms.plan(bare, config(study, tmp_path))
    found = collected(key, answered(key, "likeness-001", in_order(MODELS)))
    one = results.outcome(found.responses, MODELS)
    assert one.clip is None
    assert one.clip_on_pages is None


def test_agreement_on_the_same_page_needs_two_people(key):
    alone = collected(key, answered(key, "match-001", in_order(MODELS)))
    assert results.outcome(alone.responses, MODELS).same_page is None
    two = [answered(key, "match-001", in_order(MODELS[::s]), respondent=s + 1) for s in (1, -1)]
    assert results.outcome(collected(key, *two).responses, MODELS).same_page.value == 0
    same = [answered(key, "match-001", in_order(MODELS), respondent=n) for n in (1, 2)]
    found = results.outcome(collected(key, *same).responses, MODELS)
    assert found.same_page.value == pytest.approx(1)
    assert found.same_page.num == 4
    assert found.agreement == pytest.approx(1)


# --- the report


def test_the_report_has_figure_numbers_and_tables(key, tmp_path):
    given = [*people(key, 6), *people(key, 6, form="likeness-001")]
    given += [given[0], "nothing"]
    found = collected(key, *given)
    folder = tmp_path / "results"
    numbers = report.write(key, found, folder, command="oneword userstudy read x")
    assert json.loads((folder / "results.json").read_text())["outcomes"].keys() == {
        "likeness", "match",
    }  # fmt: skip
    assert numbers["left_out"] == {"unreadable": 1, "duplicate": 1}
    assert (numbers["answers"], numbers["counted"]) == (14, 12)
    text = (folder / "report.html").read_text()
    for told in ("Nemenyi", "Kendall", "Friedman", "oneword userstudy read x", "<svg", *MODELS):
        assert told in text
    assert (folder / "figure.svg").read_text() in text
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder / "rankings.csv").read_text().splitlines()))
    assert len(rows) == 12 * 4 * 5
    by_model = {m: [float(r["rank"]) for r in rows if r["model"] == m and "match" in r["form"]]
                for m in MODELS}  # fmt: skip
    for model, ranks in by_model.items():
        told = numbers["outcomes"]["match"]["mean_rank"][model]["value"]
        assert np.mean(ranks) == pytest.approx(told)
    done = list(csv.DictReader((folder / "completions.csv").read_text().splitlines()))
    assert len(done) == 14
    assert sum(line["counts"] == "yes" for line in done) == 12
    assert {line["why"] for line in done} == {"", "duplicate", "unreadable"}
    again = tmp_path / "again"
    report.write(key, found, again, command="oneword userstudy read x")
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_one_questionnaire_alone_has_no_plane(key, tmp_path):
    found = collected(key, *people(key, 2))
    report.write(key, found, tmp_path / "results", command="x")
    assert not (tmp_path / "results" / "figure.svg").exists()


def test_answers_none_of_which_count_are_an_error(key, tmp_path):
    other = answered(key, "match-001", in_order(MODELS)) | {"questionnaire": "0" * 16}
    with pytest.raises(
        UserStudyError, match=r"no answers count \(1 of another questionnaire\)\. The first: "
    ):
        report.write(key, collected(key, other), tmp_path / "results", command="x")
    assert not (tmp_path / "results").exists()


# --- descriptions


def described(name, *, num=5, respondent=0, **change):
    found = {
        "kit": 1, "questionnaire": "captions", "form": name, "participant": "", "consent": True,
        "respondent": f"{respondent:016x}", "seconds": 10,
        "short": [f"a grey cat, {respondent} {i}" for i in range(num)],
        "long": ["word " * 29 + f"{respondent}{i}" for i in range(num)],
    } | change  # fmt: skip
    head = [found[n] for n in ("questionnaire", "form", "participant", "respondent")]
    return found | {"code": pages.completion_code([*head, *found["short"], *found["long"]])}


def test_descriptions_are_written_as_the_study_reads_them(study, tmp_path):
    folder = shutil.copytree(study.parent / "photos" / "cat", tmp_path / "cat")
    path = captions.take(folder, [("a.json", described("cat"))])
    assert json.loads(path.read_text()).keys() == {"short", "long"}
    found = descriptions.read(folder)
    assert found.short == tuple(described("cat")["short"])
    captions.take(folder, [("a.json", described("cat"))])  # the same again
    with pytest.raises(UserStudyError, match="has other descriptions; delete it"):
        captions.take(folder, [("a.json", described("cat", respondent=1))])


def test_several_people_describe_together(study, tmp_path):
    folder = shutil.copytree(study.parent / "photos" / "cat", tmp_path / "cat")
    given = [(f"{n}.json", described("cat", num=1, respondent=n)) for n in range(5)]
    with pytest.raises(UserStudyError, match="the same person has already answered"):
        captions.take(folder, [*given[:4], given[3]])
    with pytest.raises(descriptions.DescriptionError, match=r"must be 5 short captions .* got 4"):
        captions.take(folder, given[:4])
    assert not (folder / "descriptions.json").exists()
    captions.take(folder, given)
    assert len(descriptions.read(folder).long) == 5


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (described("mug"), "descriptions must be of cat, got those of 'mug'"),
        (described("cat", short=["w " * 13] * 5), "1 to 12 words, got 13"),
        (described("cat", long=["w " * 31] * 5), "1 to 30 words, got 31"),
        (described("cat", short=[" "] * 5), "1 to 12 words, got 0"),
        (described("cat") | {"code": "00000000"}, "completion code must be that of the answers"),
        (described("cat") | {"short": [1]}, "must have the form of this kit"),
        (described("cat") | {"short": ["\ud800"] * 5}, "must be text in UTF-8"),
        (described("cat", consent=False), "must have agreed"),
        ([], "must have the form of this kit"),
    ],
)
def test_descriptions_are_not_trusted(study, tmp_path, found, text):
    folder = shutil.copytree(study.parent / "photos" / "cat", tmp_path / "cat")
    with pytest.raises(UserStudyError, match=f"Cannot use a.json: .*{text}"):
        captions.take(folder, [("a.json", found)])
    assert not (folder / "descriptions.json").exists()


def test_a_page_for_descriptions_shows_four_pictures_and_the_limits(study, tmp_path):
    folder = study.parent / "photos" / "cat"
    text = captions.make(folder, tmp_path).read_text()
    assert text.count("data:image/jpeg") == 4
    assert text.count('<textarea id="short-') == text.count('<textarea id="long-') == 5
    assert 'data-most="12"' in text
    assert 'data-most="30"' in text
    for number in range(3):
        (tmp_path / "few").mkdir(exist_ok=True)
        shutil.copy(folder / f"{number}.png", tmp_path / "few")
    with pytest.raises(UserStudyError, match="must contain 4 or more pictures, got 3"):
        captions.make(tmp_path / "few", tmp_path)


# --- the command line


def test_the_three_commands(study, tmp_path, capsys):
    place = tmp_path / "forms"
    assert main(["userstudy", "make", "--study", str(study), "--out", str(place), "--per-form", "4",
                 "--forms", "2", "--models", *MODELS]) == 0  # fmt: skip
    assert "2 forms x 4 pages = 8 responses per" in capsys.readouterr().out
    key = forms.load(place)
    (tmp_path / "answers").mkdir()
    for name in key.forms:
        one = answered(key, name, in_order(MODELS), respondent=len(name))
        (tmp_path / "answers" / f"{name}.json").write_text(json.dumps(one))
    (tmp_path / "answers" / "bad.json").write_text('{"kit": "\\u001b[31m"}')
    read = ["userstudy", "read", str(tmp_path / "answers"), "--forms"]
    written = ["--out", str(tmp_path / "results"), "--json", str(tmp_path / "numbers.json")]
    assert main([*read, str(place), *written]) == 0
    told = capsys.readouterr()
    assert "4 of 5 forms count; left out: 1 unreadable." in told.out
    assert "\x1b[31m" not in told.err
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers == json.loads((tmp_path / "results" / "results.json").read_text())
    assert main([*read, str(tmp_path)]) == 2
    assert "must contain the key.json" in capsys.readouterr().err
    cat = shutil.copytree(study.parent / "photos" / "cat", tmp_path / "cat")
    assert main(["userstudy", "captions", str(cat), "--out", str(place)]) == 0
    assert (place / "captions-cat.html").is_file()
    (tmp_path / "a.json").write_text(json.dumps(described("cat")))
    assert main(["userstudy", "captions", str(cat), "--answers", str(tmp_path / "a.json")]) == 0
    assert descriptions.read(cat) is not None
    assert main(["userstudy"]) == 2
    assert "captions  write the page" in capsys.readouterr().out
