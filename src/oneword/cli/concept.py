"""``oneword concept inspect``: what is inside concept files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneword.cli import options
from oneword.config import ConfigError, ModelConfig


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Say what concept files hold: word, rows, norms, nearest words, and how they were learned."""

    files: tuple[Path, ...]
    """Concept files or run folders."""
    nearest: int = 0
    """Existing words nearest to each row to list, which loads the model; 0: none."""
    model: ModelConfig = field(default_factory=ModelConfig)
    json: Path | None = None
    """File for the numbers."""


def run(arguments: Sequence[str]) -> int:
    """Run the sub-verb."""
    if not arguments or arguments[0] != "inspect":
        given = arguments[0] if arguments else "nothing"
        if given in ("-h", "--help"):
            print("usage: oneword concept inspect FILE [FILE ...] [--nearest N] [--json FILE]")
            return 0
        raise ConfigError(f"The sub-verb must be inspect, got {given}.")
    words = list(arguments[1:])
    files = []
    while words and not words[0].startswith("-"):
        files.append(words.pop(0))
    chosen, _ = options.parse(
        InspectArguments, "concept inspect", (["--files", *files] if files else []) + words
    )
    from rich.console import Console

    console = Console()
    found = []
    for path in chosen.files:
        facts = _facts(path, chosen)
        found.append(facts)
        console.print(f"[bold]{path}[/bold]", highlight=False)
        for name, value in facts.items():
            if name != "file":
                console.print(f"  {name}: {value}", highlight=False, markup=False)
    if chosen.json is not None:
        from oneword._files import write_json_atomic

        write_json_atomic(chosen.json, found)
    return 0


def _facts(path: Path, chosen: InspectArguments) -> dict[str, Any]:
    from oneword import formats

    concept = formats.load(path)
    provenance = concept.provenance
    facts: dict[str, Any] = {
        "file": str(path),
        "placeholder_token": concept.placeholder_token,
        "kind": concept.kind,
        "num_vectors": concept.num_vectors,
        "text_encoders": {name: list(rows.shape) for name, rows in concept.rows.items()},
        "row_norms": {
            name: [round(float(n), 4) for n in rows.norm(dim=1)]
            for name, rows in concept.rows.items()
        },
        "sha256": concept.sha256(),
    }
    for key in ("base_model", "family", "initializer_token", "steps", "loss", "scores"):
        if key in provenance:
            facts[key] = provenance[key]
    if chosen.nearest:
        from oneword.backbones import base

        backbone = base.load(chosen.model)
        facts["nearest"] = {
            name: backbone.vocabularies[name].nearest(rows, chosen.nearest)
            for name, rows in concept.rows.items()
            if name in backbone.vocabularies
        }
    return facts
