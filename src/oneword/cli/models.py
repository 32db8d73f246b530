"""``oneword models``: the families, what was proven where, and what an unknown folder offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oneword.catalog import FAMILIES, Family
from oneword.cli import options


if TYPE_CHECKING:
    from oneword.models.probe import Probe


@dataclass(frozen=True, kw_only=True)
class ModelsArguments:
    """List the model families, or probe a pipeline folder of any family."""

    probe: Path | None = None
    """Folder of any diffusers text-to-image pipeline: which text encoders and embedding tables it has, and whether a word reaches them through the pipeline's own encode_prompt."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type in which the probed folder is loaded; auto: bf16 on CUDA, fp32 elsewhere."""
    device: str = "cpu"
    """Where it is loaded: "auto" (CUDA, then MPS, then CPU) or a torch device."""
    json: Path | None = None
    """File for the table, or for what the probe found."""


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


def run(arguments: Sequence[str]) -> int:
    """Print the table, or what is in a folder."""
    from rich.console import Console

    chosen, _ = options.parse(ModelsArguments, "models", arguments)
    if chosen.probe is not None:
        return _probe(chosen, chosen.probe)
    console = Console()
    families = [listed(family) for family in FAMILIES.values()]
    for family in families:
        console.print(f"[bold]{family['family']}[/bold]", highlight=False)
        for name, value in family.items():
            if name != "family":
                console.print(f"  {name.replace('_', ' ')}: {value}", highlight=False)
    if chosen.json is not None:
        from oneword._files import write_json_atomic

        write_json_atomic(chosen.json, families)
    return 0


def _probe(chosen: ModelsArguments, folder: Path) -> int:
    """Print what is in a folder; 1 where a word cannot be sent through all of it."""
    from oneword.config.model import ModelConfig
    from oneword.models.probe import probe

    options.say(f"Loading {folder} ...")
    found = probe(ModelConfig(model=str(folder), dtype=chosen.dtype, device=chosen.device))
    print("\n".join(_lines(found)))
    if chosen.json is not None:
        from oneword._files import write_json_atomic

        write_json_atomic(chosen.json, asdict(found) | {"reaches": found.reaches})
    return 0 if found.reaches else 1


def _lines(found: Probe) -> list[str]:
    said = {True: "yes", False: "no", None: "not tried"}
    lines = [f"{found.pipeline}, " + (f"family {found.family}" if found.family else "no family")]
    for one in found.encoders:
        rows, width = one.table
        tried = not (one.stands_for is None and found.problems)
        lines += [
            f"  {one.text_encoder}: {one.kind}, with {one.tokenizer} of {one.num_tokens} tokens",
            f"    embedding table: {rows} rows of {width}, read by {', '.join(one.lookups)}",
            f"    a row copied from a word conditions like it: {said[one.stands_for]}",
            f"    a gradient returns to the row: {said[one.learns if tried else None]}",
        ]
    lines += [f"  not a pair of tokenizer and text encoder: {name}" for name in found.unpaired]
    lines += [f"  in the way: {problem}" for problem in found.problems]
    if found.reaches:
        lines.append(
            "  The generic road (hooked lookups, the pipeline's encode_prompt) reaches it."
        )
    if found.family:
        lines.append(f"  `oneword train --model FOLDER` loads it as {found.family}.")
    else:
        lines.append(
            "  `oneword train` does not load it: a file in src/oneword/models/families must say first "
            "how its denoiser is called."
        )
    return lines
