"""The paper's claims about its comparisons, and whether this study's numbers support them.

Every comparison is paired: differences of runs of the same concept and seed, their mean over
concepts with its interval (``statistics.Estimate``). "Holds" and "does not hold" need an interval
entirely on one side; otherwise the verdict is "undecided". A claim with several parts lists them
with their verdicts: it holds if every part holds, and does not hold if one part does not. If the
paper calls two setups comparable, a difference may not be worse than a share of the way from the
prompt-only row to the training pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from oneword.study import statistics
from oneword.study.plan import BASE, BIPARTITE, CAPTIONS, GUIDED, PAPER, REFERENCES, VARIED
from oneword.study.statistics import (
    BOTH,
    BOTH_SEEN,
    EDITED,
    IMAGE,
    SECONDS,
    SEEN,
    SHAPE,
    TEXT,
    Estimate,
    Row,
    Runs,
)


Verdict = Literal["holds", "does not hold", "undecided"]
MARGIN = 0.2
"""Largest difference of comparable setups, as a share of the way from prompt-only to image-only."""
LOW_GUIDANCE = 2.0
"""Scales up to this one count as low (in the paper: about 2), those of 5 and more as high."""
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
    """Further parts, which decide nothing."""
    missing: str = ""
    """What the study lacks to judge the claim."""

    @property
    def numbers(self) -> str:
        """All parts in one line, or what is missing."""
        told = [f"{part.text}: {part.verdict}" for part in self.parts]
        told += [f"beside it, {part.text}: {part.verdict}" for part in self.beside]
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
    judge = _Judge(rows, setups, guidance_scale)
    found = [
        judge.reconstruction(),
        judge.one_word_suffices(),
        judge.one_word_edits_better(),
        judge.regularized(),
        judge.rate("low-lr", "A lower learning rate is easier to edit and less faithful.", 1),
        judge.rate("high-lr", "A higher learning rate is more faithful and harder to edit.", -1),
        judge.curve(),
        judge.captions(),
        judge.set_size(),
        judge.pivotal_shape(),
        judge.pivotal_collapse(),
        judge.bipartite(),
    ]
    if not {*setups}.isdisjoint(VARIED):
        found.append(judge.details())
    if not {*setups}.isdisjoint(GUIDED):
        found += [judge.palavra(), judge.text_and_pictures(), judge.together(), judge.dearer()]
    return found


class _Judge:
    def __init__(self, rows: Sequence[Row], setups: Sequence[str], scale: float) -> None:
        self.rows, self.setups, self.scale = rows, setups, scale

    def runs(
        self, setup: str, metric: str, *, scale: float | None = None, set_size: int | None = None
    ) -> Runs:
        own = statistics.select(
            self.rows, setup=setup, guidance_scale=scale or self.scale, set_size=set_size
        )
        return statistics.values(own, metric)

    @property
    def learned(self) -> list[str]:
        """The setups of the paper's comparison that learn, with any settings."""
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
            return Part(f"{metric}: needs {' and '.join(missing)}", "undecided")
        difference = statistics.paired(*runs)
        return _sign(f"{metric}, {setup} less {other}", difference)

    def comparable(self, setup: str, other: str) -> Part:
        """Whether ``setup`` reconstructs no worse than ``other``, by the margin."""
        name, margin = f"{IMAGE}, {setup} less {other}", self.margin()
        if margin is None:
            return Part(f"{name}: needs image-only and prompt-only", "undecided")
        difference = _mean(statistics.paired(self.runs(setup, IMAGE), self.runs(other, IMAGE)))
        if difference is None:
            return Part(f"{name}: needs two concepts or more", "undecided")
        verdict = _above(difference, -margin)
        return Part(f"{name} {_shown(difference)}, may be down to {-margin:.3f}", verdict)

    # --- claims

    def reconstruction(self) -> Finding:
        parts = [self.comparable(setup, "image-only") for setup in self.learned]
        verdicts = [part.verdict for part in parts]
        most = len(verdicts) / 2
        verdict: Verdict = "undecided"
        for side in ("holds", "does not hold"):
            if verdicts.count(side) > most:
                verdict = side
        return Finding(
            "Many setups reconstruct about as well as random pictures of the training set.",
            "section 5.3, first observation",
            verdict,
            tuple(parts),
            missing="" if parts else _NOT_RUN,
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
        first, second = (setup, BASE)[::sign]
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
        where, name = "section 5.3, third observation", "correlation of image and text similarity"
        over = statistics.correlation(scores)
        if over is None or math.isnan(over.low):
            missing = f"{name} over setups: needs four of them and two concepts or more"
            return _finding(claim, where, [Part(missing, "undecided")])
        part = Part(f"{name} over the setups' means {_shown(over)}", _below(over, 0.0))
        within = _mean(found)
        if within is None:
            return _finding(claim, where, [part])
        text = f"{name} over setups within each concept and seed {_shown(within)}"
        return _finding(claim, where, [part], beside=[Part(text, _below(within, 0.0))])

    def captions(self) -> Finding:
        parts = [
            self.above(BASE, setup, metric)
            for setup in ("captions-short", "captions-long")
            for metric in (IMAGE, TEXT)
        ] + [self.above("captions-short", "captions-long", TEXT)]
        return _finding(
            "People's descriptions reconstruct worse and are harder to edit than the word; long "
            "ones are hardest to edit.",
            "section 5.3, fourth observation",
            parts,
        )

    def set_size(self) -> Finding:
        sizes = sorted(
            {r["set_size"] for r in self.rows if r.get("set_size") and r["setup"] == BASE}
        )
        where = "appendix B, figure 12"
        claim = (
            "About five pictures are best: fewer reconstruct worse, more are harder to edit and "
            "gain little."
        )
        if SET_SIZE not in sizes or sizes[0] == SET_SIZE or sizes[-1] == SET_SIZE:
            missing = "Needs --set-sizes below, of and above 5."
            return Finding(claim, where, "undecided", missing=missing)

        def change(metric: str, size: int, other: int) -> Runs:
            return statistics.paired(
                self.runs(BASE, metric, set_size=size), self.runs(BASE, metric, set_size=other)
            )

        few, many = sizes[0], sizes[-1]
        parts = [
            _sign(f"{IMAGE}, {SET_SIZE} pictures less {few}", change(IMAGE, SET_SIZE, few)),
            _sign(f"{TEXT}, {SET_SIZE} pictures less {many}", change(TEXT, SET_SIZE, many)),
        ]
        margin, gain = self.margin(), change(IMAGE, many, SET_SIZE)
        mean = _mean(gain)
        if margin is not None and mean is not None:
            verdict = _below(mean, margin)
            text = f"{IMAGE}, {many} pictures less {SET_SIZE} {_shown(mean)}, may be {margin:.3f}"
            parts.append(Part(text, verdict))
        else:
            parts.append(Part(f"{IMAGE}, {many} pictures less {SET_SIZE}: too few concepts",
                               "undecided"))  # fmt: skip
        return _finding(claim, where, parts)

    def pivotal_shape(self) -> Finding:
        has_shape = bool(self.runs(BASE, SHAPE))
        part = self.above("pivotal", BASE, SHAPE if has_shape else IMAGE)
        return _finding("Pivotal tuning captures the shape better.", "appendix A", [part])

    def pivotal_collapse(self) -> Finding:
        """Text similarity at the highest scale minus at the lowest, compared with the word's."""
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
        text = f"what guidance {high:g} adds to {TEXT} over {low:g}, {BASE} less pivotal"
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
            own = statistics.select(self.rows, setup=BIPARTITE, guidance_scale=scale)
            return statistics.values(own, statistics.STRUCTURE)

        parts = [
            _sign(
                f"structure kept, guidance {low:g} less {high:g}",
                statistics.paired(kept(low), kept(high)),
            ),
            _sign(
                f"{TEXT}, guidance {high:g} less {low:g}",
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
        seen = [
            self.above(BASE, other, SEEN)
            for other in (*CAPTIONS, *VARIED)
            if self.runs(BASE, SEEN) and self.runs(other, SEEN)
        ]
        claim = (
            "The word captures the thing's own details better than people's descriptions, and than "
            "a model that is shown a picture."
        )
        return _finding(claim, "section 4.1, figure 3", parts, beside=seen)

    def palavra(self) -> Finding:
        words = [name for name in GUIDED if name.startswith("palavra")]
        parts = [self.above(name, "image-only", TEXT) for name in words]
        parts += [self.above(BASE, name, IMAGE) for name in words]
        claim = (
            "Pictures of PALAVRA's word hold elements of the prompt, and do not capture the thing."
        )
        return _finding(claim, "section 4.2, figure 5", parts)

    def text_and_pictures(self) -> Finding:
        both = [name for name in GUIDED if not name.startswith("palavra")]
        parts = [self.above(name, f"palavra-{name}", EDITED) for name in both]
        parts += [self.above(BASE, name, TEXT) for name in both]
        claim = (
            "Guided by text and pictures together, pictures are nearer to the source than "
            "PALAVRA's, and do not follow new texts."
        )
        return _finding(claim, "section 4.2, figure 5", parts)

    def together(self) -> Finding:
        others = (*GUIDED, "variations")
        parts = [self.above(BASE, other, BOTH) for other in others]
        seen = [
            self.above(BASE, other, BOTH_SEEN)
            for other in others
            if self.runs(BASE, BOTH_SEEN) and self.runs(other, BOTH_SEEN)
        ]
        claim = "On thing and prompt together, the word is above every other way."
        return _finding(claim, "section 4.2, figure 5", [*parts, *seen])

    def dearer(self) -> Finding:
        parts = [self.above(other, BASE, SECONDS) for other in GUIDED]
        claim = "Ways that optimise each picture take longer to draw than the word does."
        return _finding(claim, "section 4.2", parts)

    def _scales(self, setup: str) -> tuple[float | None, float | None]:
        """The lowest of the low and the highest of the high scales that a setup was drawn with."""
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
        return Part(f"{text}: needs two concepts or more", "undecided")
    return Part(f"{text} {_shown(mean)}", _above(mean, 0.0))


def _finding(claim: str, where: str, parts: Sequence[Part], beside: Sequence[Part] = ()) -> Finding:
    """A claim holds if every part holds, and does not hold if one part does not."""
    verdicts = {part.verdict for part in parts}
    verdict: Verdict = (
        "does not hold"
        if "does not hold" in verdicts
        else "holds"
        if verdicts == {"holds"}
        else "undecided"
    )
    missing = "" if parts else _NOT_RUN
    return Finding(claim, where, verdict, tuple(parts), tuple(beside), missing)
