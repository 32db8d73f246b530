r"""How well PALAVRA's maps and words do on an embedded model's guide.

    python benchmarks/palavra.py --model microworld --half test --json palavra.json

Stage A: how often a row from unseen pictures of a noun reads as that noun. Stage B: how early
unseen pictures of held-out concepts are found among drawings of their noun, by the noun alone, by
noun and word as the maps begin it, and as it is after its steps; gains are paired, over concepts,
with 95 % intervals.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from _common import record

from oneword.concepts.concept import Concept
from oneword.config.palavra import Mode, PalavraTrainConfig
from oneword.evaluation.metrics import mean_interval
from oneword.evaluation.retrieval import BOTH, NOUN, WORD, retrieval
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.world import held_out, learnable
from oneword.microworld.world.drawn import noun_pictures
from oneword.microworld.world.learnable import Learnable
from oneword.models.guide import Guide
from oneword.runs import palavra as runs
from oneword.training.palavra.maps import Maps, Reader, picture_features, reading
from oneword.training.palavra.word import begun, learn


_UNSEEN = 1000  # first seed of pictures that no word learns from


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Learn maps and words, and look for pictures with them."""

    model: str = "microworld"
    """Whose guide: an embedded model, or the folder of one."""
    output_dir: Path = Path("palavra-maps")
    """Folder of the maps; they go on if they are there."""
    epochs: int | None = None
    """Of the maps; unset: the default."""
    learning_rate: float | None = None
    """Of the maps; unset: the default."""
    num_pictures: int = 100
    """Of each noun."""
    half: held_out.Half = "test"
    """Which held-out concepts: settings are chosen on "development", numbers are of "test"."""
    num_concepts: int = 8
    """Recombinations and characters, whose noun the world knows."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the pictures that each word is learned from."""
    num_others: int = 40
    """Drawings of its noun that each picture is found among."""
    mode: Mode = "coarse"
    """Of stage B."""
    coarse: str | None = None
    """Phrase that words are held apart from; unset: their noun."""
    max_train_steps: int = 30
    """Of stage B."""
    learning_rate_word: float = 1e-2
    """Of stage B."""
    json: Path | None = None
    """File for the numbers."""


def _word(
    reader: Reader, maps: Maps, concept: Learnable, seed: int, asked: Arguments
) -> tuple[Any, Any]:
    """The word's row as it begins and as it ends."""
    guide = reader.guide
    pixels = from_uint8(concept.pictures(5, seed, guide.size))
    sets = [picture_features(guide, pixels)]
    words = begun(maps, sets, guide.device)
    first = words.rows.clone()
    learn(
        reader, maps, sets, words, max_train_steps=asked.max_train_steps, mode=asked.mode,
        coarse=asked.coarse or concept.noun, learning_rate=asked.learning_rate_word,
        temperature=0.25,
    )  # fmt: skip
    return first, words.rows


def _found(guide: Guide, rows: Any, concept: Learnable, seed: int, num: int) -> Any:
    pixels = from_uint8(concept.pictures(5, _UNSEEN + seed, guide.size))
    assert concept.noun is not None
    others = from_uint8(noun_pictures(concept.noun, num, seed, guide.size))
    word = Concept(placeholder_token="<word>", rows={guide.tower: rows})
    features = picture_features(guide, pixels), picture_features(guide, others)
    return retrieval(guide, word, *features, noun=concept.noun)


def main(asked: Arguments) -> None:
    """Print and write the numbers."""
    started = time.monotonic()
    config = PalavraTrainConfig(
        clip=asked.model, output_dir=asked.output_dir, epochs=asked.epochs,
        num_pictures=asked.num_pictures, learning_rate=asked.learning_rate, device="cpu",
    )  # fmt: skip
    trained = runs.train_maps(config)
    seconds = time.monotonic() - started
    for row in trained.maps.history:
        print({name: round(value, 4) for name, value in row.items()})
    print(f"stage A: {seconds:.0f} s")
    guide = runs.load_clip(asked.model, device="cpu")
    chosen = [
        concept
        for concept in learnable.learnable(weights.world(asked.model)).values()
        if concept.family in ("recombination", "character") and concept.half == asked.half
    ][: asked.num_concepts]
    rows: list[dict[str, Any]] = []
    for concept in chosen:
        for seed in asked.seeds:
            with reading(guide) as reader:
                begins, ends = _word(reader, trained.maps, concept, seed, asked)
            first, last = (
                _found(guide, own, concept, seed, asked.num_others) for own in (begins, ends)
            )
            rows.append(
                {"concept": concept.name, "seed": seed, "noun": first.mrr(NOUN),
                 "begun": first.mrr(BOTH), "learned": last.mrr(BOTH), "alone": last.mrr(WORD)}
            )  # fmt: skip
            print(rows[-1])
    found: dict[str, Any] = {"stage_a_s": seconds, "history": trained.maps.history, "rows": rows}
    for name in ("noun", "begun", "learned", "alone"):
        found[name] = sum(row[name] for row in rows) / len(rows)
    pairs = (("begun", "noun"), ("learned", "noun"), ("learned", "begun"), ("alone", "noun"))
    for name, base in pairs:
        gains = [
            sum(r[name] - r[base] for r in rows if r["concept"] == c.name) / len(asked.seeds)
            for c in chosen
        ]
        mean = mean_interval(gains)
        found[f"{name} over {base}"] = {"value": mean.value, "half_width": mean.half_width}
        print(f"{name} over {base}: {mean}")
    record(asked.json, model=asked.model, **found)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
