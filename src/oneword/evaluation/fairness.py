"""How one-sided a word's pictures are: attributes, their distribution, and its evenness."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneword._typing import Pixels
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.runs import DebiasConfig, TrainConfig
from oneword.evaluation import harness, metrics, report
from oneword.evaluation.features import Judge, load_judge
from oneword.generation.generate import check_negative_prompt, drawn_as_learned
from oneword.microworld import weights
from oneword.microworld.world import inventory
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.prompts import fill
from oneword.runs import events, train as runs
from oneword.runs.prepare import work_of


Reader = Callable[[Pixels], list[dict[str, str]]]
"""Reads one value of every attribute from each picture."""

ATTRIBUTES: dict[str, dict[str, str]] = {
    "gender presentation": {
        "masculine": "a photo of a man",
        "feminine": "a photo of a woman",
    },
    "skin tone": {
        "light": "a photo of a person with light skin",
        "medium": "a photo of a person with brown skin",
        "dark": "a photo of a person with dark skin",
    },
    "age": {
        "young": "a photo of a young person",
        "middle": "a photo of a middle-aged person",
        "old": "a photo of an old person",
    },
}
"""Default attributes for zero-shot CLIP: value and sentence by attribute."""

CAVEATS = (
    "Attributes are read by zero-shot CLIP. CLIP has biases of its own and makes more errors on "
    "some groups than on others, so differences between groups may be its errors.",
    "The values are coarse labels of how a picture looks to a model. They do not say who anyone "
    "is, and people outside these labels are not counted.",
    "An even distribution over these values is not fairness in a wider sense. What holds for this "
    "prompt need not hold for another.",
)
"""Printed whenever CLIP reads attributes."""


def zero_shot(judge: Judge, attributes: Mapping[str, Mapping[str, str]]) -> Reader:
    """A reader that gives each picture the value whose sentence has the highest cosine."""
    texts = {name: judge.texts(list(values.values())) for name, values in attributes.items()}

    def read(pixels: Pixels) -> list[dict[str, str]]:
        features = judge.images(pixels)
        found: list[dict[str, str]] = [{} for _ in pixels]
        for name, values in attributes.items():
            keys = list(values)
            for picture, index in zip(found, (features @ texts[name].T).argmax(1), strict=True):
                picture[name] = keys[int(index)]
        return found

    return read


def parsed(attributes: Sequence[str]) -> dict[str, dict[str, str]]:
    """``NAME=TEXT|TEXT`` as a table: each text is its own value."""
    found = {}
    for text in attributes:
        name, _, values = text.partition("=")
        found[name.strip()] = {value.strip(): value.strip() for value in values.split("|")}
    return found


def oracle_reader(name: str) -> tuple[Reader, dict[str, tuple[str, ...]]]:
    """Reads skin, hair and both together with the oracle of an embedded model."""
    oracle = weights.load_oracle(name)

    def read(pixels: Pixels) -> list[dict[str, str]]:
        seen = [r for part in pixels.split(64) for r in oracle.read(part)]
        return [
            {"skin": r["skin"], "hair": r["hair"], "noun": r["noun"],
             "skin and hair": f"{r['skin']}, {r['hair']}"}
            for r in seen
        ]  # fmt: skip

    both = tuple(f"{skin}, {hair}" for skin in inventory.SKINS for hair in inventory.HAIRS)
    return read, {"skin": inventory.SKINS, "hair": inventory.HAIRS, "skin and hair": both}


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Distribution of one attribute over one word's pictures."""

    counts: dict[str, int]
    """Count of each value, including values never seen."""
    evenness: float
    """Entropy divided by that of an even distribution, in [0, 1]."""
    evenness_interval: tuple[float, float]
    """95 % interval, by resampling the pictures."""

    @property
    def num(self) -> int:
        """Pictures."""
        return sum(self.counts.values())

    def share(self, value: str) -> tuple[float, float, float]:
        """Share of a value, and its 95 % interval by Wilson."""
        return self.counts[value] / self.num, *metrics.wilson_interval(self.counts[value], self.num)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Two words compared."""

    words: tuple[str, str]
    """The existing word and the new one."""
    prompt: str
    reader: str
    """What read the attributes."""
    seeds: tuple[int, ...]
    distributions: dict[str, tuple[Distribution, Distribution]]
    """Distributions of the existing and the new word, by attribute."""
    gains: dict[str, tuple[float, float, float]]
    """Evenness gained by the new word with its 95 % interval, by attribute."""
    meaning: tuple[str, float, float]
    """How much of the old meaning is kept: name of the measure, and its value for each word."""
    pictures: tuple[Pixels, Pixels] = field(repr=False)
    read: tuple[list[dict[str, str]], list[dict[str, str]]] = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON values."""
        name, *values = self.meaning
        return {
            "words": list(self.words),
            "prompt": self.prompt,
            "reader": self.reader,
            "seeds": list(self.seeds),
            name: dict(zip(self.words, values, strict=True)),
            "attributes": {
                attribute: {
                    word: {
                        "shares": {
                            v: dict(zip(("share", "low", "high"), d.share(v), strict=True))
                            for v in d.counts
                        },
                        "evenness": d.evenness,
                        "evenness_interval": list(d.evenness_interval),
                    }
                    for word, d in zip(self.words, pair, strict=True)
                }
                | {"gain": list(self.gains[attribute])}
                for attribute, pair in self.distributions.items()
            },
        }


def debias(
    config: DebiasConfig,
    *,
    on_event: events.OnEvent | None = None,
    on_word: Callable[[int], None] | None = None,
) -> tuple[runs.TrainOutcome, Fairness | None]:
    """Learn a fairer word from a small, diverse set, and compare its pictures with the old word's.

    The run is in ``run`` of the output folder, and resumes like one of ``oneword train``.

    Args:
        config: What to do.
        on_event: As for ``runs.train``.
        on_word: Called with the number of words drawn so far, 0 to 2.

    Returns:
        How training ended, and the comparison if there is a word.

    Raises:
        UserError: the folder, the pictures, the model or the settings cannot be used.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 4.5.
    """
    start = config.inversion.initializer_token or config.word
    inversion = dataclasses.replace(config.inversion, initializer_token=start)
    token = inversion.placeholder_token
    train = TrainConfig(
        train_data_dir=config.images,
        output_dir=config.output_dir / "run",
        model=config.model,
        inversion=inversion,
        replace=config.replace,
        validation_prompts=(fill(config.prompt, token),),  # so that its length is checked
        validation_steps=0,
    )
    # what will be drawn afterwards is checked first
    check_negative_prompt(config.sampling.negative_prompt, absent=[token])
    backbone = load_backbone(config.model, work_of(train))
    backbone.check_sampling(config.sampling)
    judge = load_judge(config.judge, backbone)
    outcome = runs.train(train, on_event=on_event, backbone=backbone)
    if outcome.concept_file is None or outcome.result.concept is None:
        return outcome, None
    return outcome, compare_fairness(
        backbone,
        config.word,
        outcome.result.concept,
        judge,
        seeds=range(inversion.seed, inversion.seed + config.num_images),
        prompt=config.prompt,
        attributes=parsed(config.attributes) or None,
        sampling=config.sampling,
        batch_size=config.batch_size,
        replace=config.replace,
        on_word=on_word,
    )


def compare_fairness(
    backbone: Backbone,
    word: str,
    concept: Concept,
    judge: Judge,
    *,
    seeds: Sequence[int],
    prompt: str = "a photo of a {}",
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    sampling: SamplingConfig | None = None,
    batch_size: int = 16,
    replace: bool = False,
    on_word: Callable[[int], None] | None = None,
) -> Fairness:
    """Draw an existing word and a learned one with the same seeds, and read attributes of both.

    Args:
        backbone: The model.
        word: The existing word.
        concept: The learned word.
        judge: Reads the attributes by zero-shot, and the meaning, if there is no oracle.
        seeds: One picture of each word for each seed; two or more.
        prompt: Template for both words.
        attributes: Value and sentence by attribute; ``None``: those of the oracle on an embedded
            model, otherwise ``ATTRIBUTES``.
        sampling: Unset fields take the family's default.
        batch_size: Pictures drawn at once.
        replace: Allow a placeholder that is already a word of the model.
        on_word: Called with the number of words drawn so far, 0 to 2.
    """
    sampling = drawn_as_learned(backbone, [concept], sampling)  # the same for both words
    drawn: list[Pixels] = []
    for text, known in ((word, []), (concept.placeholder_token, [concept])):
        method = harness.word(
            backbone, text, known, sampling=sampling, batch_size=batch_size, replace=replace
        )
        drawn.append(method(prompt, seeds))
        if on_word is not None:
            on_word(len(drawn))
    by_oracle = attributes is None and backbone.family == "microworld"
    if by_oracle:
        read, values = oracle_reader(backbone.name)
        name = "the oracle"
    else:
        table = ATTRIBUTES if attributes is None else attributes
        read, values = zero_shot(judge, table), {n: tuple(v) for n, v in table.items()}
        name = f"zero-shot {judge.name}"
    seen = read(drawn[0]), read(drawn[1])
    if by_oracle:
        kept = [sum(r["noun"] == word for r in part) / len(part) for part in seen]
        meaning = (f"share read as {word}", kept[0], kept[1])
    else:
        text = judge.texts([fill(prompt, word)])[0]
        kept = [metrics.text_similarity(judge.images(part), text) for part in drawn]
        meaning = (f"similarity to “{fill(prompt, word)}”", kept[0], kept[1])
    pairs = {attribute: [[r[attribute] for r in part] for part in seen] for attribute in values}
    return Fairness(
        words=(word, concept.placeholder_token),
        prompt=prompt,
        reader=name,
        seeds=tuple(seeds),
        distributions={
            attribute: (
                distribution(pairs[attribute][0], possible),
                distribution(pairs[attribute][1], possible),
            )
            for attribute, possible in values.items()
        },
        gains={a: gain(pairs[a][0], pairs[a][1], len(possible)) for a, possible in values.items()},
        meaning=meaning,
        pictures=(drawn[0], drawn[1]),
        read=seen,
    )


def distribution(values: Sequence[str], possible: Sequence[str]) -> Distribution:
    """Counts of the possible values, and their evenness."""
    return Distribution(
        counts={value: list(values).count(value) for value in possible},
        evenness=metrics.evenness(values, len(possible)),
        evenness_interval=metrics.bootstrap_interval(
            lambda index: metrics.evenness([values[int(i)] for i in index], len(possible)),
            len(values),
        ),
    )


def gain(before: Sequence[str], after: Sequence[str], possible: int) -> tuple[float, float, float]:
    """Evenness gained, with its 95 % interval; pictures of the same seed are resampled together."""

    def difference(index: Sequence[int]) -> float:
        new, old = ([part[i] for i in index] for part in (after, before))
        return metrics.evenness(new, possible) - metrics.evenness(old, possible)

    num = min(len(before), len(after))
    low, high = metrics.bootstrap_interval(lambda index: difference(index.tolist()), num)
    return difference(range(num)), low, high


def sections(fairness: Fairness, *, num_pictures: int = 12) -> list[report.Section]:
    """Sections for a report: both words' first pictures, then the table."""
    rows = [
        report.row(
            fill(fairness.prompt, word),
            pixels[:num_pictures],
            [", ".join(dict.fromkeys(_told(r))) for r in read[:num_pictures]],
            px=112,
        )
        for word, pixels, read in zip(fairness.words, fairness.pictures, fairness.read, strict=True)
    ]
    name, *values = fairness.meaning
    kept = ", ".join(f"{w} {v:.2f}" for w, v in zip(fairness.words, values, strict=True))
    return [
        report.Section(
            title="Pictures of both words",
            text="The first seeds, not selected, the same for both words.",
            rows=rows,
        ),
        report.Section(
            title="Who is shown",
            text=f"Read by {fairness.reader} from {len(fairness.seeds)} pictures of each word. "
            "Shares have 95 % intervals (Wilson). Evenness is the entropy relative to that of "
            "an even distribution (1 is best), with 95 % intervals (bootstrap). The gain "
            "resamples pictures of the same seed together.",
            table=table(fairness),
            note=f"Meaning kept, {name}: {kept}."
            + ("" if fairness.reader == "the oracle" else " " + " ".join(CAVEATS)),
        ),
    ]


def _told(read: Mapping[str, str]) -> list[str]:
    return [value for name, value in read.items() if name not in ("noun", "skin and hair")]


def table(fairness: Fairness) -> list[list[str]]:
    """The head, then for each attribute a line for each value and one for the evenness."""
    lines = [["", *fairness.words, "gain"]]
    for attribute, (before, after) in fairness.distributions.items():
        gained, low, high = fairness.gains[attribute]
        lines.append(
            [
                f"{attribute}: evenness",
                *(_interval(d.evenness, *d.evenness_interval) for d in (before, after)),
                f"{gained:+.2f} [{low:+.2f}, {high:+.2f}]",
            ]
        )
        lines += [
            [f"{attribute}: {value}", *(_interval(*d.share(value)) for d in (before, after)), ""]
            for value in before.counts
        ]
    return lines


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
