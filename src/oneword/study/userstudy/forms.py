"""Both questionnaires: what each form shows, in which order, with which checks, and the key."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from oneword._files import check_writable, hold, read_json, visible, write_atomic
from oneword.config.scoring import UserStudyConfig
from oneword.images import jpeg_uri
from oneword.study.userstudy import pages
from oneword.study.userstudy.items import NUM_TRAINING, Item, UserStudyError, gather


Questionnaire = Literal["likeness", "match"]
LIKENESS, MATCH = "likeness", "match"
QUESTIONNAIRES: tuple[Questionnaire, ...] = (LIKENESS, MATCH)
"""By likeness to the training pictures, and by match to a text."""
KEY, TASKS = "key.json", "tasks.csv"
PAPERS_RESPONSES = 600
"""Of each questionnaire: Gal et al. 2022, arXiv:2208.01618, section 5.4."""
_MAX_KEY = 2**28  # bytes
_QUESTIONS: dict[Questionnaire, dict[str, str]] = {
    LIKENESS: {
        "title": "Which pictures are alike?",
        "question": "Rank the results by how alike they are to the pictures above.",
        "best": "one most alike",
        "worst": "one least alike",
    },
    MATCH: {
        "title": "Which pictures match a text?",
        "question": "Rank the results by how well they match the text.",
        "best": "best match",
        "worst": "poorest match",
    },
}
_TASKS: dict[Questionnaire, str] = {
    LIKENESS: "On each page you see some pictures of one thing or style, and below them {results} "
    "results. Rank the results by how alike they are to those pictures.",
    MATCH: "On each page you see a short text, and below it {results} results. Rank the results "
    "by how well they match the text.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one page shows, and what stands behind it."""

    concept: str
    seed: int
    kind: str
    prompt: str
    context: str
    picture: int
    training: list[int]
    """Indices of the training pictures that are shown, in their folder's order."""
    shown: list[str | None]
    """The model at each position; ``None`` for the picture of a check."""
    check: list[int] | None = None
    """The position of a picture and the rank that it must get, both from 1."""
    note: str = ""
    """An additional sentence on the page."""
    scores: dict[str, float] = field(default_factory=dict)
    """CLIP score of each model: to the training pictures, or to the text."""
    odd: list[Any] = field(default_factory=list)
    """Of a check by match: concept, seed, kind, picture and model of the picture of another text.
    By likeness the odd picture is the first training picture that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The key for reading the answers; people who fill in a form must not see it."""

    questionnaire: str
    """Names these forms, by what is in them."""
    models: list[str]
    seed: int
    consent: list[str]
    forms: dict[str, list[Page]]
    """Pages by the form's name, such as "match-007"."""


_KEY = {
    "questionnaire": str,
    "models": [str],
    "seed": int,
    "consent": [str],
    "forms": {
        str: [
            {
                "concept": str, "seed": int, "kind": str, "prompt": str, "context": str,
                "picture": int, "training": [int], "shown": [(str, type(None))],
                "check": (list, type(None)), "note": str, "scores": {str: float},
                "odd": list,
            }
        ]
    },
}  # fmt: skip


def make(config: UserStudyConfig) -> Key:
    """Write both questionnaires: their forms, ``key.json`` and ``tasks.csv``.

    The same seed and study make the same files.

    Raises:
        UserStudyError: the study lacks something that is requested, or the folder has other forms.
        OutputError: the folder cannot be written.
        InUseError: another process writes there.
    """
    consent = pages.consent_text(config.consent)
    items = gather(config.study, config.models, config.concepts, config.kinds)
    key = plan(items, config, consent)
    write(key, items, config.output_dir, url=config.url)
    return key


def write(key: Key, items: Sequence[Item], folder: Path, *, url: str | None = None) -> None:
    """Write the forms of a key, the key itself and the list of tasks.

    Args:
        key: As ``plan`` made it.
        items: What it was made of.
        folder: Where to.
        url: Address at which people will find the folder.

    Raises:
        UserStudyError: the folder holds other forms.
        OutputError: it cannot be written.
        InUseError: another process writes there.
    """
    check_writable(folder)
    with hold(folder):
        if (folder / KEY).is_file():
            if load(folder).questionnaire != key.questionnaire:
                raise UserStudyError(
                    f"Cannot write to {folder} because it has other forms, whose answers need "
                    "their key; pass another --output-dir."
                )
        elif any(path.suffix == ".html" and _is_form(path.stem) for path in visible(folder)):
            raise UserStudyError(
                f"Cannot write to {folder} because it has forms without their {KEY}; pass another "
                "--output-dir."
            )
        write_atomic(folder / KEY, (json.dumps(asdict(key), indent=1) + "\n").encode())
        write_atomic(folder / TASKS, _tasks(key, url).encode())
        for name in key.forms:
            write_atomic(folder / f"{name}.html", page(key, items, name).encode())


def plan(items: Sequence[Item], config: UserStudyConfig, consent: Sequence[str] = ()) -> Key:
    """Choose what each form shows.

    Every item is shown about as often as every other. Both questionnaires of a number show the same
    items; the order of the pages and of the results is drawn again for each.

    Raises:
        UserStudyError: a form asks for more than there is.
    """
    models = list(items[0].results)
    if config.per_form > len(items):
        raise UserStudyError(
            f"per_form must be at most {len(items)}, the number of different pages that "
            f"{config.study} can fill, got {config.per_form}."
        )
    rng = random.Random(config.seed)
    uses: Counter[int] = Counter()
    forms: dict[str, list[Page]] = {}
    for number in range(1, config.forms + 1):
        order = sorted(range(len(items)), key=lambda i: (uses[i], rng.random()))
        chosen = order[: config.per_form]
        uses.update(chosen)
        for what in QUESTIONNAIRES:
            mixed = rng.sample(chosen, len(chosen))
            found = [_page(items[i], what, rng) for i in mixed]
            for _ in range(config.checks):
                check = _check(items, what, rng)
                found.insert(rng.randint(0, len(found)), check)
            forms[f"{what}-{number:03d}"] = found
    digest = hashlib.sha256()
    digest.update(json.dumps([models, config.seed, [*consent]]).encode())
    digest.update(json.dumps([asdict(page) for form in forms.values() for page in form]).encode())
    for item in items:
        for data in (*item.results.values(), *item.training):
            digest.update(data)
    forms = {name: forms[name] for name in sorted(forms)}
    return Key(
        questionnaire=digest.hexdigest()[:16],
        models=models,
        seed=config.seed,
        consent=list(consent),
        forms=forms,
    )


def _page(item: Item, what: Questionnaire, rng: random.Random) -> Page:
    num = min(NUM_TRAINING, len(item.training))
    scores = item.image_similarity if what == LIKENESS else item.text_similarity
    return Page(
        concept=item.concept,
        seed=item.seed,
        kind=item.kind,
        prompt=item.prompt,
        context=item.context,
        picture=item.picture,
        training=rng.sample(range(len(item.training)), num),
        shown=rng.sample([*item.results], len(item.results)),
        scores={m: score for m, score in scores.items() if score is not None},
    )


def _check(items: Sequence[Item], what: Questionnaire, rng: random.Random) -> Page:
    """A page of which it is known where one of its pictures belongs."""
    page = _page(rng.choice(items), what, rng)
    place = rng.randrange(len(page.shown))
    shown = [None if i == place else model for i, model in enumerate(page.shown)]
    rank, note, odd = 1, "", []
    if what == MATCH:
        other = _other(items, page, rng)
        thing = "shows another thing and " if other.concept != page.concept else ""
        rank = len(shown)
        note = (
            f"One of these pictures {thing}was drawn for another text: “{other.context}”. Give it "
            "the last rank."
        )
        model = rng.choice([*other.results])
        odd = [other.concept, other.seed, other.kind, other.picture, model]
    return replace(page, shown=shown, check=[place + 1, rank], note=note, odd=odd)


def _other(items: Sequence[Item], page: Page, rng: random.Random) -> Item:
    """Something drawn for another text, of another concept if there is one."""
    found = [item for item in items if item.context != page.context]
    found = [item for item in found if item.concept != page.concept] or found
    if not found:
        raise UserStudyError(
            "Cannot make attention checks because there are pictures of only one text; ask for "
            "more kinds of prompts, or pass --checks 0."
        )
    return rng.choice(found)


def page(key: Key, items: Sequence[Item], name: str) -> str:
    """One form as HTML.

    Args:
        key: As ``plan`` made it.
        items: What it was made of.
        name: The form's, such as "match-007".
    """
    known = {(i.concept, i.seed, i.kind, i.picture): i for i in items}
    what: Questionnaire = LIKENESS if name.startswith(LIKENESS) else MATCH
    own, shown = key.forms[name], []
    for one in own:
        item = known[one.concept, one.seed, one.kind, one.picture]
        training = [item.training[i] for i in one.training]
        odd = training[0]
        if one.odd:
            *where, model = one.odd
            odd = known[tuple(where)].results[model]
        results = [odd if model is None else item.results[model] for model in one.shown]
        shown.append({
            "training": list(map(jpeg_uri, training)) if what == LIKENESS else [],
            "context": one.context,
            "note": one.note,
            "results": list(map(jpeg_uri, results)),
        })  # fmt: skip
    return pages.rendered(
        "rank.html",
        data={"questionnaire": key.questionnaire, "form": name},
        consent=key.consent,
        task=[
            _TASKS[what].format(results=len(key.models)),
            f"There are {len(own)} pages, which take about {_minutes(len(own))} minutes.",
        ],
        pages=shown,
        **_QUESTIONS[what],
    )


def _minutes(num_pages: int) -> int:
    """A guess: 25 s a page."""
    return max(1, math.ceil(num_pages * 25 / 60))


def _tasks(key: Key, url: str | None) -> str:
    """A line for each form, as MTurk and Prolific take batches of addresses."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["form", "questionnaire", "url", "pages"])
    place = f"{url.rstrip('/')}/" if url else ""
    for name, own in key.forms.items():
        table.writerow([name, name.partition("-")[0], f"{place}{name}.html", len(own)])
    return stream.getvalue()


def arithmetic(key: Key) -> str:
    """How many responses these forms give, and how many forms the paper's number takes."""
    num = sum(name.startswith(LIKENESS) for name in key.forms)
    own = next(iter(key.forms.values()))
    per_form = sum(page.check is None for page in own)
    different = {(p.concept, p.seed, p.kind, p.picture)
                 for form in key.forms.values() for p in form if p.check is None}  # fmt: skip
    needed = math.ceil(PAPERS_RESPONSES / per_form)
    return (
        f"{num} forms x {per_form} pages = {num * per_form} responses per questionnaire, "
        f"{2 * num * per_form} for both, if each form is filled in once. Each form has "
        f"{len(own) - per_form} more pages as attention checks. {len(different)} different pages, "
        f"each shown about {num * per_form / len(different):.3g} times. The paper's "
        f"{PAPERS_RESPONSES} responses per questionnaire take {needed} forms of {per_form}."
    )


def _is_form(name: str) -> bool:
    what, _, number = name.partition("-")
    return what in QUESTIONNAIRES and number.isdigit()


def load(folder: Path) -> Key:
    """Read the key of some forms.

    Raises:
        UserStudyError: there is none, or it is damaged.
    """
    must = f"The folder must contain the {KEY} written by `oneword userstudy make`"
    path = folder / KEY
    found: dict[str, Any] = read_json(path, _KEY, most=_MAX_KEY, must=must, error=UserStudyError)
    models = sorted(found["models"])
    wrong = UserStudyError(f"{must}, got {path}, which was changed.")
    forms: dict[str, list[Page]] = {}
    for name, own in found["forms"].items():
        if not _is_form(name) or not own:
            raise wrong
        forms[name] = [Page(**{f: page[f] for f in Page.__slots__}) for page in own]
        for page in forms[name]:
            there = sorted(model for model in page.shown if model is not None)
            check = page.check
            good = check is None or (
                len(check) == 2
                and all(isinstance(n, int) and 1 <= n <= len(models) for n in check)
                and len(there) == len(models) - 1
            )
            if len(page.shown) != len(models) or not good:
                raise wrong
            if (check is None and there != models) or not set(there) <= set(models):
                raise wrong
            if not set(page.scores) <= set(models):
                raise wrong
    return Key(
        questionnaire=found["questionnaire"],
        models=found["models"],
        seed=found["seed"],
        consent=found["consent"],
        forms=forms,
    )
