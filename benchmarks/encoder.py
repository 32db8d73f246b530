r"""What an encoder's words are worth beside learned ones, on microworld's held-out things, paired.

    python benchmarks/encoder.py --model microworld-nano --half development --json encoder.json

Each concept's word is found from the same five pictures with each seed in six ways: the initialiser
alone, the encoder alone, the encoder and 20 steps, the initialiser and 20 steps, the method with 60
steps, and the method with all of its steps. All are scored on the same fixed batch, and drawn with
the same sentences and seeds; the oracle says in how many pictures it sees the concept. Differences
are paired by concept: a mean over a concept's seeds first, then over concepts, with 95 % intervals
(Student's t). With ``--no-draw`` only the losses are compared.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from _common import record

from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation import harness, world
from oneword.evaluation.features import load_judge
from oneword.evaluation.metrics import mean_interval
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.world import held_out, learnable
from oneword.microworld.world.learnable import Learnable
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.training.job import Job, Result
from oneword.training.loop import invert_many


INITIALIZER, ENCODER, FEW, NOUN_FEW, SOME, WHOLE = (
    "initialiser", "encoder", "encoder + 20", "initialiser + 20", "one-word, 60", "one-word",
)  # fmt: skip
COMPARED = (
    (ENCODER, INITIALIZER), (FEW, ENCODER), (FEW, NOUN_FEW), (FEW, SOME), (FEW, WHOLE),
    (ENCODER, WHOLE),
)  # fmt: skip
"""Ways that are subtracted from each other."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Find words of held-out concepts with and without an encoder, and compare."""

    model: str = "microworld"
    """An embedded model, or the folder of one."""
    encoder: Path | None = None
    """Encoder of one's own; unset: the model's."""
    num_vectors: int = 1
    """Rows of each word."""
    half: held_out.Half = "test"
    """Which half: an encoder is tuned on "development", numbers are reported on "test"."""
    names: tuple[str, ...] = ()
    """Held-out concepts in place of the half's."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training, each with other pictures of the concept."""
    num_images: int = 8
    """Pictures per prompt."""
    draw: bool = True
    """Draw and read pictures, rather than compare losses alone."""
    most_steps: int | None = None
    """Most steps of any way, for a trial of this script; unset: as many as it is named for."""
    slots: int = 4
    """Concepts learned at once."""
    json: Path | None = None
    """File for all numbers."""


def main() -> None:
    """Find, score, print."""
    arguments = tyro.cli(Arguments)
    backbone = load_backbone(ModelConfig(model=arguments.model, device="cpu"))
    chosen = [
        concept
        for concept in learnable.learnable(weights.world(arguments.model)).values()
        if concept.name in arguments.names
        or (not arguments.names and concept.half == arguments.half)
    ]
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        found = {way: _learned(arguments, backbone, chosen, seed, way) for way in _settings()}
        for place, concept in enumerate(chosen):
            words = {way: results[place] for way, results in found.items()}
            rows.append(_row(arguments, backbone, concept, seed, words))
            print(f"{concept.name}, seed {seed}: {rows[-1]['loss']}", file=sys.stderr)
    text = _tables(rows, [key for key in ("loss", "seen", "text") if key in rows[0]])
    print(text)
    record(
        arguments.json,
        model=arguments.model,
        rows=rows,
        seconds_per_word=_seconds_per_word(arguments, backbone),
    )


def _settings() -> dict[str, dict[str, Any]]:
    """Settings of training of each way but the initialiser, which is where the method starts."""
    return {
        ENCODER: {"setup": "encoder"},
        FEW: {"initializer": "encoder", "max_train_steps": 20},
        NOUN_FEW: {"max_train_steps": 20},
        SOME: {"max_train_steps": 60},
        WHOLE: {},
    }


def _job(arguments: Arguments, backbone: Backbone, concept: Learnable, seed: int, way: str) -> Job:
    own = dict(_settings()[way])
    if arguments.most_steps is not None:
        most = own.get("max_train_steps", arguments.most_steps)
        own |= {"max_train_steps": min(most, arguments.most_steps)} if way != ENCODER else {}
    encodes = "encoder" in own.values()
    config = InversionConfig(
        placeholder_token="S*",
        learnable_property="object" if not concept.is_style else "style",
        initializer_token=None if encodes else concept.noun,
        encoder=arguments.encoder if encodes else None,
        num_vectors=arguments.num_vectors,
        num_evaluation_samples=16,  # the same samples, however many steps there are
        seed=seed,
        **own,
    )
    pixels = from_uint8(concept.pictures(seed=seed, size=backbone.resolution))
    return Job(name=concept.name, pictures=pixels, config=config)


def _learned(
    arguments: Arguments,
    backbone: Backbone,
    chosen: Sequence[Learnable],
    seed: int,
    way: str,
) -> list[Result]:
    jobs = [_job(arguments, backbone, concept, seed, way) for concept in chosen]
    results = invert_many(backbone, jobs, slots=arguments.slots)
    for result in results:
        assert result.concept is not None, result.reason
    return results


def _row(
    arguments: Arguments,
    backbone: Backbone,
    concept: Learnable,
    seed: int,
    words: dict[str, Result],
) -> dict[str, Any]:
    losses = {way: min(loss for _, loss in result.losses) for way, result in words.items()}
    losses[INITIALIZER] = words[WHOLE].losses[0][1]
    row: dict[str, Any] = {
        "concept": concept.name,
        "family": concept.family,
        "seed": seed,
        "loss": losses,
        "steps": {way: result.steps for way, result in words.items()},
    }
    if not arguments.draw:
        return row
    judge, oracle = load_judge(None, backbone), weights.load_oracle(arguments.model)
    protocol = harness.protocol_for(
        backbone.family,
        learnable_property="object" if not concept.is_style else "style",
        seeds=range(1000 * seed, 1000 * seed + arguments.num_images),
    )
    whole = words[WHOLE].concept
    assert whole is not None
    started_from = concept.noun or whole.provenance["initializer_token"]  # that the loss found
    drawn: dict[str, tuple[str, list[Concept]]] = {INITIALIZER: (started_from, [])}
    for way, result in words.items():
        assert result.concept is not None
        drawn[way] = ("S*", [result.concept])
    found = harness.evaluate(
        {way: harness.word(backbone, text, own) for way, (text, own) in drawn.items()},
        words[WHOLE].job.pictures,
        judge,
        protocol,
    )
    seen = {}
    for way, pictures in found.pictures.items():
        read = {protocol.photo: oracle.read(pictures[protocol.photo])}
        seen[way] = world.seen_as(read, *concept.read_as)[protocol.photo]
    text = {way: found.scores[way].text_similarity for way in drawn}
    return row | {"seen": seen, "text": text, "judge": judge.name}


def _tables(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    """Of each measure every way's mean, then the paired differences."""
    names = list(dict.fromkeys(row["concept"] for row in rows))
    lines = []
    for key in keys:

        def by_concept(value: Callable[[dict[str, float]], float], key: str = key) -> list[float]:
            groups = [[row for row in rows if row["concept"] == name] for name in names]
            return [math.fsum(value(r[key]) for r in g) / len(g) for g in groups]

        lines += [f"{key}: {len(names)} concepts", ""]
        for way in (INITIALIZER, *_settings()):
            lines.append(f"  {way:<18} {mean_interval(by_concept(lambda r, w=way: r[w]))}")
        for one, other in COMPARED:
            found = by_concept(lambda r, a=one, b=other: r[a] - r[b])
            below = sum(value < 0 for value in found)
            lines.append(
                f"  {one} - {other}: {mean_interval(found)}, below 0 for {below} of {len(found)}"
            )
        lines.append("")
    return "\n".join(lines)


def _seconds_per_word(arguments: Arguments, backbone: Backbone) -> float:
    """From five pictures to the encoder's word, with its first scoring; the best of five."""
    concept = next(iter(learnable.learnable(weights.world(arguments.model)).values()))
    job = _job(arguments, backbone, concept, 0, ENCODER)
    found = []
    for _ in range(5):
        started = time.perf_counter()
        invert_many(backbone, [job], slots=1)
        found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    main()
