"""``oneword generate``: draw pictures with learned words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oneword.cli import options, progress
from oneword.config import ConfigError, GenerateConfig


if TYPE_CHECKING:
    from oneword.concept import Concept


@dataclass(frozen=True, kw_only=True)
class GenerateArguments(GenerateConfig):
    """Draw pictures: every prompt with every seed. Each PNG carries what made it."""

    json: Path | None = None
    """File for the list of pictures with their settings."""


def run(arguments: Sequence[str]) -> int:
    """Draw, and say where the pictures are."""
    chosen, notes = options.parse(GenerateArguments, "generate", arguments)
    for note in notes:
        options.say(note)
    from oneword import generation
    from oneword._files import check_writable, write_json_atomic
    from oneword.backbones.base import load
    from oneword.prompts import read_prompts

    prompts = [*chosen.prompts]
    if chosen.prompts_file is not None:
        prompts += read_prompts(chosen.prompts_file)
    if not prompts:
        raise ConfigError(
            "There must be a prompt, got none; pass for example --prompts 'a photo of a S*'."
        )
    check_writable(chosen.output_dir)
    concepts = [concept for path in chosen.concepts for concept in read_concepts(path)]
    backbone = load(chosen.model)
    seeds = range(chosen.seed, chosen.seed + chosen.num_images_per_prompt)
    with progress.counting("drawing") as show:
        drawing = generation.generate(
            backbone,
            prompts,
            list(seeds),
            concepts=concepts,
            sampling=chosen.sampling,
            batch_size=chosen.batch_size,
            replace=chosen.replace,
            on_picture=show,
        )
    files = generation.save(drawing, chosen.output_dir)
    if chosen.json is not None:
        pictures = [{"file": str(file)} | drawing.metadata(i) for i, file in enumerate(files[:-1])]
        write_json_atomic(chosen.json, pictures)
    print(f"{len(files) - 1} pictures in {chosen.output_dir}, all of them in {files[-1]}.")
    return 0


def read_concepts(path: Path) -> list[Concept]:
    """The concepts of a file or run folder; ``PATH=TOKEN`` gives its only word another name."""
    from oneword import formats

    renames = not path.exists() and "=" in str(path)
    return [read_concept(path)] if renames else formats.load_all(path)


def read_concept(path: Path) -> Concept:
    """The only concept of a file or run folder, as ``read_concepts``."""
    from oneword import formats

    if path.exists() or "=" not in str(path):
        return formats.load(path)
    name, _, token = str(path).rpartition("=")
    if not token or any(c.isspace() for c in token):
        raise ConfigError(
            f"--concepts takes PATH or PATH=TOKEN, the token without spaces, got {str(path)!r}."
        )
    return formats.load(Path(name), token)
