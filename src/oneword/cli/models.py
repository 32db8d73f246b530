"""``oneword models``: the families, and what was proven where."""

from __future__ import annotations

from collections.abc import Sequence

from oneword.catalog import FAMILIES, Family
from oneword.cli import options
from oneword.cli.arguments import ModelsArguments
from oneword.cli.screen import Console


def listed(family: Family) -> dict[str, str]:
    """What the table says of a family."""
    return {
        "family": family.name,
        "text_encoders": family.reads_in_words,
        "prediction_type": family.prediction_type,
        "draws": family.draws_in_words,
        "proven": family.proven,
        "examples": ", ".join(family.examples),
        "memory": family.memory,
        "edits": family.edits_in_words,
    }


def run(chosen: ModelsArguments, _words: Sequence[str]) -> int:
    """Print the table."""
    console = Console()
    families = [listed(family) for family in FAMILIES.values()]
    for family in families:
        console.print(f"[bold]{family['family']}[/bold]", highlight=False)
        for name, value in family.items():
            if name != "family":
                console.print(f"  {name.replace('_', ' ')}: {value}", highlight=False)
    options.write_json(chosen.json, families)
    return 0
