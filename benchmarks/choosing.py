"""What choosing by the judge brings: how often the kept pictures are right, beside all of them.

    oneword microworld pictures --concept gold-mug --output-dir mug-pictures
    oneword train --train-data-dir mug-pictures --initializer-token mug --output-dir mug
    python benchmarks/choosing.py --concept mug --name gold-mug

Every edit prompt of microworld is drawn many times with a learned word (of a thing or of a style).
The oracle, which has no part in the ranking, says in which pictures it sees the concept and whether
the rest of the prompt was obeyed; then the judge keeps the best by each ranking.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from _common import record

from oneword.concepts import formats
from oneword.config.model import ModelConfig
from oneword.evaluation import world
from oneword.evaluation.choosing import RankBy, choose
from oneword.evaluation.features import load_judge
from oneword.evaluation.metrics import wilson_interval
from oneword.generation.generate import generate
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures
from oneword.models.loading import load_backbone
from oneword.prompts import EDIT_PROMPTS, fill


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draw candidates, keep the best by each ranking, and read both."""

    concept: Path
    """Concept file or run folder."""
    name: str
    """The held-out concept that it was learned from."""
    num_images: int = 16
    """Candidates of each prompt; the paper draws 16."""
    keep: int = 4
    """Of them."""
    seed: int = 0
    """First seed."""
    json: Path | None = None
    """File for the counts."""


def main() -> None:
    """Draw, rank, read, print."""
    arguments = tyro.cli(Arguments)
    backbone, held_out = load_backbone(ModelConfig()), concepts.get(arguments.name)
    oracle, judge = weights.load_oracle(), load_judge(None, backbone)
    word = formats.load_concept(arguments.concept)
    token = word.placeholder_token
    templates = EDIT_PROMPTS["microworld"][word.learnable_property]
    drawing = generate(
        backbone,
        [fill(t, token) for t in templates],
        range(arguments.seed, arguments.seed + arguments.num_images),
        concepts=[word],
        batch_size=16,
    )
    read = oracle.read(drawing.pixels)
    head, value = ("concept", held_out.name) if held_out.thing else ("style", held_out.style)
    seen = [picture[head] == value for picture in read]
    obeyed = [
        all(picture[name] == asked for name, asked in world.asked(templates[i]).items())
        for i, picture in zip(
            (i for i in range(len(templates)) for _ in range(arguments.num_images)),
            read,
            strict=True,
        )
    ]
    pictures = from_uint8(concept_pictures(held_out, size=backbone.resolution))
    every = tuple(range(len(read)))
    kept: dict[str, tuple[int, ...]] = {"all drawn": every}
    kinds: tuple[tuple[RankBy, float], ...] = (
        ("image", 0.0), ("text", 0.0), ("mean", 0.0), ("mean", 0.2),
    )  # fmt: skip
    for rank_by, diversity in kinds:
        choice = choose(
            drawing,
            judge,
            keep=arguments.keep,
            rank_by=rank_by,
            references={token: pictures},
            diversity=diversity,
        )
        name = f"kept by {rank_by}" + (f", diversity {diversity:g}" if diversity else "")
        kept[name] = choice.kept
    counts: dict[str, dict[str, int]] = {}
    print("| | pictures | concept seen | rest obeyed | both |\n|---|---|---|---|---|")
    for name, own in kept.items():
        hits: dict[Literal["seen", "obeyed", "both"], int] = {
            "seen": sum(seen[i] for i in own),
            "obeyed": sum(obeyed[i] for i in own),
            "both": sum(seen[i] and obeyed[i] for i in own),
        }
        counts[name] = {"num": len(own), **hits}
        cells = [_share(count, len(own)) for count in hits.values()]
        print(f"| {name} | {len(own)} | " + " | ".join(cells) + " |")
    print(
        f"\n{arguments.name}, {len(templates)} prompts, {arguments.keep} of "
        f"{arguments.num_images} kept of each, seeds from {arguments.seed}, read by the oracle; "
        "shares with 95 % intervals (Wilson)."
    )
    record(arguments.json, model="microworld", counts=counts)


def _share(hits: int, num: int) -> str:
    low, high = wilson_interval(hits, num)
    return f"{hits / num:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
