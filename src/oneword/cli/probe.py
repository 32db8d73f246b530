"""``oneword models --probe``: what an unknown pipeline folder offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from oneword.cli import options
from oneword.cli.arguments import ModelsArguments
from oneword.config.model import ModelConfig
from oneword.models.probe import Probe, probe


def run(chosen: ModelsArguments, _words: Sequence[str]) -> int:
    """Print what is in a folder; 1 where a word cannot be sent through all of it."""
    folder = chosen.probe
    options.say(f"Loading {folder} ...")
    found = probe(ModelConfig(model=str(folder), dtype=chosen.dtype, device=chosen.device))
    print("\n".join(_lines(found)))
    options.write_json(chosen.json, asdict(found) | {"reaches": found.reaches})
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
            f"    a copied embedding works like its word: {said[one.stands_for]}",
            f"    a gradient reaches the embedding: {said[one.learns if tried else None]}",
        ]
    lines += [f"  no match of tokenizer and text encoder: {name}" for name in found.unpaired]
    lines += [f"  problem: {problem}" for problem in found.problems]
    if found.reaches:
        lines.append("  The generic way (hooked lookups, the pipeline's encode_prompt) works.")
    if found.family:
        lines.append(f"  `oneword train --model FOLDER` loads it as {found.family}.")
    else:
        lines.append(
            "  `oneword train` cannot load it: a file in src/oneword/models/families must first "
            "define how to call its denoiser."
        )
    return lines
