"""What a million words a day costs: arithmetic from a measured cost per sample.

    python benchmarks/concepts_per_hour.py --json concepts_per_hour.json
    python benchmarks/scale.py --measured concepts_per_hour.json --samples 1200

The measured rows take the cheapest number of slots of that file. The predicted rows are operations
over speed: those of a step (`benchmarks/roofline.py` counts them), a card's dense bf16 ceiling, and
the share of it that is reached, which is an assumption until that benchmark has run on the card.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import json
from dataclasses import dataclass
from pathlib import Path

import tyro


_DAY_S = 86_400
_WORDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Print the table."""

    measured: Path | None = None
    """JSON of concepts_per_hour.py."""
    processes: int = 2
    """Processes of one thread each that the measured machine runs beside each other."""
    samples: int = 1200
    """Samples that a word takes in the measured rows."""
    price_per_hour: float = 0.08
    """Of the measured machine, in your money."""
    card_price_per_hour: float = 2.5
    """Of the card of the predicted rows."""
    ceiling_tflops: float = 800.0
    """The card's dense bf16 ceiling."""
    share: float = 0.4
    """Part of the ceiling that a step reaches."""


PREDICTED = {
    "LDM at 256 px, the paper's 40,000 samples": (0.36, 40_000),
    "SD 1.5 at 512 px, diffusers' 12,000 samples": (1.67, 12_000),
    "SD 1.5 at 512 px, 1,200 samples": (1.67, 1_200),
}
"""TFLOP of a sample's step, text encoder left out, and samples of a word."""


def main() -> None:
    """Multiply, print."""
    arguments = tyro.cli(Arguments)
    rows = []
    if arguments.measured is not None:
        found = json.loads(arguments.measured.read_text())
        caching_s, sample_s, slots = min(
            (
                (sum(t[0] for t in times) / len(times), sum(t[1] for t in times) / len(times), n)
                for n, times in found["times"].items()
            ),
            key=lambda entry: entry[0] + arguments.samples * entry[1],
        )
        word_s = (caching_s + arguments.samples * sample_s) / arguments.processes
        text = f"measured: microworld on {found['machine']}, {arguments.samples} samples, "
        text += f"{slots} slots, {arguments.processes} processes"
        rows.append((text, word_s, arguments.price_per_hour))
    for name, (tflop, samples) in PREDICTED.items():
        word_s = samples * tflop / (arguments.ceiling_tflops * arguments.share)
        text = (
            f"predicted: {name}, at {arguments.share:.0%} of {arguments.ceiling_tflops:g} TFLOP/s"
        )
        rows.append((text, word_s, arguments.card_price_per_hour))
    print(
        "| | a word, machine s | words a day per machine | machines for a million a day | "
        "a word | a million |\n|---|---|---|---|---|---|"
    )
    for text, word_s, price in rows:
        cost = word_s / 3600 * price
        print(
            f"| {text} | {word_s:.3g} | {_DAY_S / word_s:,.0f} | {_WORDS * word_s / _DAY_S:,.0f} | "
            f"{cost:.3g} | {_WORDS * cost:,.0f} |"
        )


if __name__ == "__main__":
    main()
