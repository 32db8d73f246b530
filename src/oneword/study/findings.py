"""The paper's claims about its comparisons, and whether this study's numbers support them.

Every comparison is paired: differences of runs of the same concept and seed, their mean over
concepts with its interval (``statistics.Estimate``). "Holds" and "does not hold" need an interval
entirely on one side; otherwise the verdict is "undecided", with the number of concepts that would
decide it. A claim with several parts lists them with their verdicts: it holds if every part holds,
and does not hold if one part does not. If the paper calls two setups comparable, a difference may
not be worse than a share of the way from the prompt-only row to the training pictures (``MARGIN``).

Similarity is measured by a CLIP. Where an oracle reads the pictures, it judges every such claim
too, by the same comparisons of its own shares (``statistics.ORACLE``), and gives its own verdict.

With so many comparisons, some would be decided by chance. So each verdict is followed by the one
after Holm's correction over all deciding comparisons of both readers, which needs a corrected p
below ``LEVEL``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from oneword.study import statistics
from oneword.study.plan import BASE, BIPARTITE, CAPTIONS, GUIDED, PAPER, REFERENCES, VARIED
from oneword.study.statistics import (
    BOTH,
    EDITED,
    IMAGE,
    SECONDS,
    SHAPE,
    TEXT,
    Estimate,
    Row,
    Runs,
)


Verdict = Literal["holds", "does not hold", "undecided"]
LEVEL = 0.05
"""Significance level of the intervals and of the corrected p."""
MARGIN = 0.2
"""Largest difference of comparable setups, as a share of the way from prompt-only to image-only.

The paper says "comparable" and "little gain" without a number, so this one is ours. It is a share,
not a difference of cosines, so that it means the same for every judge and for the oracle. At a
fifth, a setup that is no worse keeps four fifths of all that pictures of the thing can add; a
smaller margin would be within the differences between training pictures. It was fixed here before
any rows were made. Claims of more or less have no margin: any difference counts.
"""
LOW_GUIDANCE = 2.0
"""Scales up to this one count as low (about 2 in the paper), scales of 5 and more as high."""
HIGH_GUIDANCE = 5.0
SET_SIZE = 5
"""Number of pictures that the paper finds best."""
_HOLD = ("hold", "holds")
_MULTI = ("two-words", "three-words", "progressive")


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison of a claim."""

    text: str
    verdict: Verdict
    p: float | None = None
    """Two-sided p of the difference against its bound; ``None``: nothing was compared."""
    holm: float | None = None
    """The same, corrected for all comparisons; ``None``: this part does not decide the claim."""
    needed: int | None = None
    """Number of concepts like these that would decide it; ``None``: decided, or far too many."""

    @property
    def corrected(self) -> Verdict:
        """The verdict after the correction."""
        decided = self.holm is not None and self.holm < LEVEL
        return self.verdict if decided else "undecided"

    @property
    def numbers(self) -> str:
        """What was found, with p, and how many concepts would decide it."""
        told = self.text
        if self.p is not None:
            told += f"; p {_p(self.p)}" + ("" if self.holm is None else f", Holm {_p(self.holm)}")
            if self.verdict == "undecided":
                told += "; " + (
                    "no number of concepts up to 10,000 would decide it"
                    if self.needed is None
                    else f"about {self.needed:,} concepts would decide it"
                )
        return told


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim of the paper, judged."""

    claim: str
    where: str
    """Place in the paper."""
    verdict: Verdict
    parts: tuple[Part, ...] = ()
    """The parts that decide; empty if none was run."""
    beside: tuple[Part, ...] = ()
    """Further parts, for information only."""
    missing: str = ""
    """What the study lacks to judge the claim."""
    oracle: tuple[Part, ...] = ()
    """The same comparisons by the oracle; empty if there is none."""
    most: bool = False
    """Whether most parts are enough for it to hold; else all must."""
    corrected: Verdict = "undecided"
    """After Holm's correction."""
    by_oracle: Verdict | None = None
    by_oracle_corrected: Verdict | None = None

    @property
    def numbers(self) -> str:
        """All parts in one line, or what is missing."""
        told = [f"{part.text}: {part.verdict}" for part in self.parts]
        told += [f"by the oracle, {part.text}: {part.verdict}" for part in self.oracle]
        told += [f"for information, {part.text}: {part.verdict}" for part in self.beside]
        return f"{'; '.join(told)}." if told else self.missing

    @property
    def summary(self) -> str:
        """The verdict, and for a claim with several parts how many of them hold."""
        if len(self.parts) < 2:
            return self.verdict
        held = sum(part.verdict == "holds" for part in self.parts)
        return f"{self.verdict} ({held} of {len(self.parts)} parts {_HOLD[held == 1]})"


def findings(rows: Sequence[Row], setups: Sequence[str], guidance_scale: float) -> list[Finding]:
    """Judge every claim for which there are rows.

    Args:
        rows: Rows of all jobs.
        setups: Labels of the study's setups.
        guidance_scale: The protocol's scale.

    Source:
        Gal et al. 2022, arXiv:2208.01618, section 5.3 and appendices A and B; where other people's
        systems are among the setups, sections 4.1 and 4.2.
    """
    found = _claims(_Judge(rows, setups, guidance_scale))
    read = _claims(_Judge(rows, setups, guidance_scale, statistics.ORACLE))
    return _corrected([_beside_oracle(*pair) for pair in zip(found, read, strict=True)])


def _claims(judge: _Judge) -> list[Finding]:
    """All claims as one reader decides them."""
    found = [
        judge.reconstruction(),
        judge.one_word_suffices(),
        judge.one_word_edits_better(),
        judge.regularized(),
        judge.rate(
            "low-lr", "A lower learning rate makes the word easier to edit and less faithful.", 1
        ),
        judge.rate(
            "high-lr", "A higher learning rate makes the word more faithful and harder to edit.", -1
        ),
        judge.curve(),
        judge.captions(),
        judge.set_size(),
        judge.pivotal_shape(),
        judge.pivotal_collapse(),
        judge.bipartite(),
    ]
    if not {*judge.setups}.isdisjoint(VARIED):
        found.append(judge.details())
    if not {*judge.setups}.isdisjoint(GUIDED):
        found += [judge.palavra(), judge.text_and_pictures(), judge.together(), judge.dearer()]
    return found


def _beside_oracle(found: Finding, read: Finding) -> Finding:
    """A claim with the oracle's comparisons, where it has its own scores to compare."""
    own = {part.text for part in (*found.parts, *found.beside)}
    parts = tuple(part for part in read.parts if part.p is not None and part.text not in own)
    return replace(found, oracle=parts)


def _corrected(found: Sequence[Finding]) -> list[Finding]:
    """Correct all deciding comparisons for their number, and draw the verdicts from them."""
    decide = [part for one in found for part in (*one.parts, *one.oracle) if part.p is not None]
    pairs = zip(decide, statistics.holm([part.p for part in decide if part.p is not None]),
                strict=True)  # fmt: skip
    by_part = {id(part): replace(part, holm=p) for part, p in pairs}
    done = []
    for one in found:
        parts, oracle = (
            tuple(by_part.get(id(p), p) for p in own) for own in (one.parts, one.oracle)
        )
        own = _together([part.corrected for part in parts], most=one.most)
        verdicts = [
            _together([getattr(part, name) for part in oracle], most=one.most) if oracle else None
            for name in ("verdict", "corrected")
        ]
        done.append(replace(
            one, parts=parts, oracle=oracle, corrected=own, by_oracle=verdicts[0],
            by_oracle_corrected=verdicts[1],
        ))  # fmt: skip
    return done


class _Judge:
    """One reader: the scores by their names, or other scores in their place.

    Args:
        rows: Rows of all jobs.
        setups: Labels of the study's setups.
        scale: The protocol's guidance scale.
        read: Scores to use in place of others, by name.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        setups: Sequence[str],
        scale: float,
        read: Mapping[str, str] | None = None,
    ) -> None:
        self.rows, self.setups, self.scale = rows, setups, scale
        self.read = read or {}

    def name(self, metric: str) -> str:
        """The score that this reader uses for ``metric``."""
        return self.read.get(metric, metric)

    def label(self, setup: str) -> str:
        """A setup's label in the study: its name or, if that was not run, its only variant."""
        variants = [own for own in self.setups if own.startswith(f"{setup}:")]
        return variants[0] if setup not in self.setups and len(variants) == 1 else setup

    def runs(
        self, setup: str, metric: str, *, scale: float | None = None, set_size: int | None = None
    ) -> Runs:
        own = statistics.select(
            self.rows, setup=setup, guidance_scale=scale or self.scale, set_size=set_size
        )
        return statistics.values(own, self.name(metric))

    @property
    def learned(self) -> list[str]:
        """Setups of the paper's comparison that learn a word, with any settings."""
        return [s for s in self.setups if s.partition(":")[0] in PAPER and s not in REFERENCES]

    def margin(self) -> float | None:
        """Largest difference of comparable image similarities."""
        gap = _mean(
            statistics.paired(self.runs("image-only", IMAGE), self.runs("prompt-only", IMAGE))
        )
        return MARGIN * gap.value if gap is not None and gap.value > 0 else None

    # --- parts of claims

    def above(self, setup: str, other: str, metric: str, **where: int) -> Part:
        """Whether ``setup`` scores higher than ``other``."""
        runs = [self.runs(name, metric, **where) for name in (setup, other)]
        missing = [n for n, own in zip((setup, other), runs, strict=True) if not own]
        if missing:
            return Part(f"{self.name(metric)}: needs {' and '.join(missing)}", "undecided")
        difference = statistics.paired(*runs)
        return _sign(f"{self.name(metric)}, {setup} minus {other}", difference)

    def comparable(self, setup: str, other: str) -> Part:
        """Whether ``setup`` reconstructs no worse than ``other``, by the margin."""
        name, margin = f"{self.name(IMAGE)}, {setup} minus {other}", self.margin()
        if margin is None:
            return Part(f"{name}: needs image-only and prompt-only", "undecided")
        difference = _mean(statistics.paired(self.runs(setup, IMAGE), self.runs(other, IMAGE)))
        if difference is None:
            return Part(f"{name}: needs at least two concepts", "undecided")
        text = f"{name} {_shown(difference)}, must be above {-margin:.3f}"
        return _part(text, difference, -margin, _above)

    # --- claims

    def reconstruction(self) -> Finding:
        parts = [self.comparable(setup, "image-only") for setup in self.learned]
        return _finding(
            "Many setups reconstruct about as well as random pictures of the training set.",
            "section 5.3, first observation",
            parts,
            most=True,
        )

    def one_word_suffices(self) -> Finding:
        parts = [self.comparable(BASE, s) for s in _MULTI if s in self.setups]
        return _finding(
            "One word reconstructs as well as several.", "section 5.3, second observation", parts
        )

    def one_word_edits_better(self) -> Finding:
        parts = [self.above(BASE, s, TEXT) for s in _MULTI if s in self.setups]
        return _finding(
            "One word is easier to edit than several.", "section 5.3, second observation", parts
        )

    def regularized(self) -> Finding:
        parts = [self.above("regularized", BASE, TEXT), self.above(BASE, "regularized", IMAGE)]
        return _finding(
            "Held near its coarse descriptor, the word is easier to edit and less faithful.",
            "section 5.3, third observation",
            parts,
        )

    def rate(self, setup: str, claim: str, sign: int) -> Finding:
        first, second = (self.label(setup), BASE)[::sign]
        parts = [self.above(first, second, TEXT), self.above(second, first, IMAGE)]
        return _finding(claim, "section 5.3, third observation", parts)

    def curve(self) -> Finding:
        """Correlation of the two scores over setups: of their means, as in the paper's figure 10.

        The correlation within each concept and seed is also given; differences between concepts do
        not affect it, and noise pulls it towards 0.
        """
        scores = {s: (self.runs(s, IMAGE), self.runs(s, TEXT)) for s in self.learned}
        found: Runs = {}
        for concept, seeds in self.runs(BASE, IMAGE).items():
            for seed in seeds:
                pairs = [
                    (image[concept][seed], text[concept][seed])
                    for image, text in scores.values()
                    if seed in image.get(concept, {}) and seed in text.get(concept, {})
                ]
                if len(pairs) > 3 and min(np.std(pairs, axis=0)) > 0:
                    images, texts = zip(*pairs, strict=True)
                    correlation = float(np.corrcoef(images, texts)[0, 1])
                    found.setdefault(concept, {})[seed] = correlation
        claim = "The setups lie on a curve that trades reconstruction for editability."
        where = "section 5.3, third observation"
        name = f"correlation of {self.name(IMAGE)} and {self.name(TEXT)}"
        name = name.replace(f"{IMAGE} and {TEXT}", "image and text similarity")
        over = statistics.correlation(scores)
        if over is None or math.isnan(over.low):
            missing = f"{name} over setups: needs at least four setups and two concepts"
            return _finding(claim, where, [Part(missing, "undecided")])
        part = _part(f"{name} over the setups' means {_shown(over)}", over, 0.0, _below)
        within = _mean(found)
        if within is None:
            return _finding(claim, where, [part])
        text = f"{name} over setups within each concept and seed {_shown(within)}"
        return _finding(claim, where, [part], beside=[_part(text, within, 0.0, _below)])

    def captions(self) -> Finding:
        parts = [
            self.above(BASE, setup, metric)
            for setup in ("captions-short", "captions-long")
            for metric in (IMAGE, TEXT)
        ] + [self.above("captions-short", "captions-long", TEXT)]
        return _finding(
            "People's descriptions reconstruct worse and are harder to edit than the word; long "
            "ones are the hardest to edit.",
            "section 5.3, fourth observation",
            parts,
        )

    def set_size(self) -> Finding:
        sizes = sorted(
            {r["set_size"] for r in self.rows if r.get("set_size") and r["setup"] == BASE}
        )
        where = "appendix B, figure 12"
        claim = (
            "About five pictures are best: fewer reconstruct worse; more gain little and make the "
            "word harder to edit."
        )
        if SET_SIZE not in sizes or sizes[0] == SET_SIZE or sizes[-1] == SET_SIZE:
            missing = "Needs --set-sizes below 5, 5 itself and above 5."
            return Finding(claim, where, "undecided", missing=missing)

        def change(metric: str, size: int, other: int) -> Runs:
            return statistics.paired(
                self.runs(BASE, metric, set_size=size), self.runs(BASE, metric, set_size=other)
            )

        few, many = sizes[0], sizes[-1]
        image, text = self.name(IMAGE), self.name(TEXT)
        parts = [
            _sign(f"{image}, {SET_SIZE} pictures minus {few}", change(IMAGE, SET_SIZE, few)),
            _sign(f"{text}, {SET_SIZE} pictures minus {many}", change(TEXT, SET_SIZE, many)),
        ]
        margin, gain = self.margin(), change(IMAGE, many, SET_SIZE)
        mean = _mean(gain)
        if margin is not None and mean is not None:
            told = (
                f"{image}, {many} pictures minus {SET_SIZE} {_shown(mean)}, must be below "
                f"{margin:.3f}"
            )
            parts.append(_part(told, mean, margin, _below))
        else:
            parts.append(Part(f"{image}, {many} pictures minus {SET_SIZE}: too few concepts",
                               "undecided"))  # fmt: skip
        return _finding(claim, where, parts)

    def pivotal_shape(self) -> Finding:
        metric = SHAPE if self.runs(BASE, SHAPE) else IMAGE
        others = [label for label in self.setups if label.startswith("pivotal:")]
        return _finding(
            "Pivotal tuning captures the shape better.",
            "appendix A",
            [self.above("pivotal", BASE, metric)],
            beside=[self.above(label, BASE, metric) for label in others],
        )

    def pivotal_collapse(self) -> Finding:
        """Text similarity at the highest scale minus the lowest, compared with the word's."""
        low, high = self._scales("pivotal")
        claim = "After pivotal tuning, editing collapses at high guidance."
        if low is None or high is None:
            missing = _NEEDS_SWEEP.format("pivotal")
            return Finding(claim, "appendix A", "undecided", missing=missing)

        def gain(setup: str) -> Runs:
            return statistics.paired(
                self.runs(setup, TEXT, scale=high), self.runs(setup, TEXT, scale=low)
            )

        difference = statistics.paired(gain(BASE), gain("pivotal"))
        what = self.name(TEXT)
        text = f"gain in {what} from guidance {low:g} to {high:g}, {BASE} minus pivotal"
        return _finding(claim, "appendix A", [_sign(text, difference)])

    def bipartite(self) -> Finding:
        low, high = self._scales(BIPARTITE)
        claim = (
            "Bipartite inversion keeps the picture's structure at low guidance, where it ignores "
            "the text, and loses it at high guidance."
        )
        if low is None or high is None:
            missing = _NEEDS_SWEEP.format(BIPARTITE)
            return Finding(claim, "appendix A", "undecided", missing=missing)

        def kept(scale: float) -> Runs:
            return self.runs(BIPARTITE, statistics.STRUCTURE, scale=scale)

        parts = [
            _sign(
                f"structure kept, guidance {low:g} minus {high:g}",
                statistics.paired(kept(low), kept(high)),
            ),
            _sign(
                f"{self.name(TEXT)}, guidance {high:g} minus {low:g}",
                statistics.paired(
                    self.runs(BIPARTITE, TEXT, scale=high),
                    self.runs(BIPARTITE, TEXT, scale=low),
                ),
            ),
        ]
        return _finding(claim, "appendix A", parts)

    # --- figures 3 and 5

    def details(self) -> Finding:
        parts = [self.above(BASE, other, IMAGE) for other in (*CAPTIONS, *VARIED)]
        claim = (
            "The word captures the thing's details better than people's descriptions do, and "
            "better than a model that is shown a picture."
        )
        nearer = {"variations", "prompt-only"} <= {*self.setups}  # or they show no picture at all
        beside = [self.above("variations", "prompt-only", IMAGE)] if nearer else []
        return _finding(claim, "section 4.1, figure 3", parts, beside)

    def palavra(self) -> Finding:
        words = [name for name in GUIDED if name.startswith("palavra")]
        parts = [self.above(name, "image-only", TEXT) for name in words]
        parts += [self.above(BASE, name, IMAGE) for name in words]
        claim = (
            "Pictures drawn with PALAVRA's word contain elements of the prompt, but do not capture "
            "the thing."
        )
        return _finding(claim, "section 4.2, figure 5", parts)

    def text_and_pictures(self) -> Finding:
        both = [name for name in GUIDED if not name.startswith("palavra")]
        parts = [self.above(name, f"palavra-{name}", EDITED) for name in both]
        parts += [self.above(BASE, name, TEXT) for name in both]
        claim = (
            "Guided by text and pictures together, drawings are closer to the source than "
            "PALAVRA's, but do not follow new prompts."
        )
        return _finding(claim, "section 4.2, figure 5", parts)

    def together(self) -> Finding:
        parts = [self.above(BASE, other, BOTH) for other in (*GUIDED, "variations")]
        claim = "On thing and prompt combined, the word beats every other method."
        return _finding(claim, "section 4.2, figure 5", parts)

    def dearer(self) -> Finding:
        parts = [self.above(other, BASE, SECONDS) for other in GUIDED]
        claim = "Methods that optimise each picture take longer to draw than the word does."
        return _finding(claim, "section 4.2", parts)

    def _scales(self, setup: str) -> tuple[float | None, float | None]:
        """The lowest low scale and the highest high scale that a setup was drawn with."""
        found = {
            r["guidance_scale"]
            for r in self.rows
            if r["setup"] == setup and r.get("guidance_scale") is not None
        }
        low = min((s for s in found if s <= LOW_GUIDANCE), default=None)
        return low, max((s for s in found if s >= HIGH_GUIDANCE), default=None)


_NEEDS_SWEEP = "Needs the setup {} and --guidance-scales of 2 or less and 5 or more."


_NOT_RUN = "Not run: none of its setups is in the study."


def _mean(runs: Runs) -> Estimate | None:
    """Mean with its interval; ``None`` if there is no interval."""
    found = statistics.estimate(runs)
    return None if found is None or math.isnan(found.low) else found


def _shown(mean: Estimate) -> str:
    return f"{mean.told('+.3f')} ({mean.num} concepts)"


def _above(mean: Estimate, bound: float) -> Verdict:
    """Whether the whole interval is above a bound."""
    return "holds" if mean.low > bound else "does not hold" if mean.high < bound else "undecided"


def _below(mean: Estimate, bound: float) -> Verdict:
    """Whether the whole interval is below a bound."""
    return "holds" if mean.high < bound else "does not hold" if mean.low > bound else "undecided"


def _sign(text: str, difference: Runs) -> Part:
    """Whether a difference is above 0."""
    mean = _mean(difference)
    if mean is None:
        return Part(f"{text}: needs at least two concepts", "undecided")
    return _part(f"{text} {_shown(mean)}", mean, 0.0, _above)


def _part(
    text: str, mean: Estimate, bound: float, judge: Callable[[Estimate, float], Verdict]
) -> Part:
    """A mean against a bound, judged by its interval."""
    verdict = judge(mean, bound)
    needed = statistics.concepts_needed(mean, bound) if verdict == "undecided" else None
    return Part(text, verdict, p=statistics.p_value(mean, bound), needed=needed)


def _finding(
    claim: str,
    where: str,
    parts: Sequence[Part],
    beside: Sequence[Part] = (),
    *,
    most: bool = False,
) -> Finding:
    verdict = _together([part.verdict for part in parts], most=most)
    missing = "" if parts else _NOT_RUN
    return Finding(claim, where, verdict, tuple(parts), tuple(beside), missing, most=most)


def _together(verdicts: Sequence[Verdict], *, most: bool) -> Verdict:
    """A claim holds if every part does, and does not if any does not; or it follows the most."""
    sides: tuple[Verdict, ...] = ("does not hold", "holds")
    if most:
        for side in sides:
            if 2 * verdicts.count(side) > len(verdicts):
                return side
        return "undecided"
    if "does not hold" in verdicts:
        return "does not hold"
    if {*verdicts} == {"holds"}:
        return "holds"
    return "undecided"
