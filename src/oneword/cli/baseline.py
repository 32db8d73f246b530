"""``oneword baseline``: the methods that the paper compares with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from oneword._devices import pick_device, pick_dtype
from oneword._files import check_writable, read_bytes
from oneword._typing import Pixels
from oneword.cli import options, screen
from oneword.cli.arguments import ClipDiffusionArguments
from oneword.concepts.named import flat, read_words
from oneword.config.commands import command_for
from oneword.generation import clip_diffusion, generate as generation
from oneword.generation.clip_diffusion import Denoiser, LatentDenoiser
from oneword.generation.from_config import fitted
from oneword.generation.generate import Drawing
from oneword.generation.guide import Guide
from oneword.images import MAX_BYTES
from oneword.models.clip_pairs import judge_source
from oneword.models.loading import load_backbone
from oneword.models.unconditional import load_unconditional


def run(chosen: Any, words: Sequence[str]) -> int:
    """Run the sub-verb whose arguments these are."""
    _FOLLOW[type(chosen)](chosen, words)
    return 0


def _clip_diffusion(chosen: ClipDiffusionArguments, _words: Sequence[str]) -> None:
    check_writable(chosen.output_dir)
    concepts = flat(read_words(chosen.concepts))
    model = chosen.model.model if chosen.checkpoint is None else None
    guide = load_guide(chosen, model)
    denoiser = _denoiser(chosen)
    side = denoiser.resolution
    init = None if chosen.init_image is None else fitted(chosen.init_image, side, side)
    towards = _pictures(chosen.image_prompts, side)
    with screen.warnings_said(), screen.counting("drawing") as show:
        drawing = clip_diffusion.draw(
            denoiser,
            guide,
            chosen,
            concepts=concepts,
            init=init,
            image_prompts=towards,
            on_picture=show,
        )
    finish(drawing, "baseline clip-diffusion", chosen)


def _denoiser(chosen: ClipDiffusionArguments) -> Denoiser:
    """The model that draws."""
    if chosen.checkpoint is None:
        backbone = load_backbone(chosen.model)
        if backbone.memory:
            options.say(backbone.memory)
        return LatentDenoiser(backbone)
    device = pick_device(chosen.model.device)
    dtype = pick_dtype(chosen.model.dtype, device, str(chosen.checkpoint))
    return load_unconditional(chosen.checkpoint, device, dtype)


def _pictures(paths: Sequence[Path], side: int) -> Pixels | None:
    """Pictures' middles, as large as what is drawn."""
    return torch.cat([fitted(path, side, side) for path in paths]) if paths else None


def load_guide(chosen: Any, model: str | None) -> Guide:
    """The guide that options ask for; both it and the judge that will score are said.

    Args:
        chosen: Options with ``guide``, ``judge``, ``allow_same_clip`` and ``model``.
        model: Name of the model that draws; ``None``: it is no model of ours.
    """
    guide = Guide.load(
        chosen.guide,
        model,
        device=pick_device(chosen.model.device),
        judge=chosen.judge,
        allow_same_clip=chosen.allow_same_clip,
    )
    judge = judge_source(chosen.judge, model or "")
    options.say(f"Guide: {guide.source}. Judge: {judge} (scores only, does not guide).")
    return guide


def finish(drawing: Drawing, verb: str, chosen: Any) -> None:
    """Write pictures with how they were made, list them, and say where they are.

    Args:
        drawing: The pictures.
        verb: With its sub-verb.
        chosen: The options, with ``output_dir`` and ``json``.
    """
    drawing = _told_how(drawing, verb, chosen)
    files = generation.save_drawing(drawing, chosen.output_dir)
    found = [{"file": str(f)} | drawing.metadata(i) for i, f in enumerate(files[:-1])]
    options.write_json(chosen.json, found)
    options.tell(f"{len(found)} pictures in {chosen.output_dir}; contact sheet: {files[-1]}.")


_NOT_OF_A_PICTURE = ("seed", "num_images_per_prompt", "batch_size", "output_dir", "json")


def _told_how(drawing: Drawing, verb: str, chosen: Any) -> Drawing:
    """Each picture with the command that makes it again, and the sum of what it starts from."""
    usual = {f.name: f.default for f in dataclasses.fields(chosen) if f.name in _NOT_OF_A_PICTURE}
    starts = {
        f"{name}_sha256": hashlib.sha256(read_bytes(path, most=MAX_BYTES)).hexdigest()
        for name in ("init_image",)
        if (path := getattr(chosen, name, None)) is not None
    }
    facts = []
    for prompt, seed in zip(drawing.prompts, drawing.seeds, strict=True):
        one = dataclasses.replace(chosen, **usual, prompts=(prompt,), seeds=(str(seed),))
        facts.append(starts | {"command": command_for(verb, one, "prompts")})
    return drawing.told(facts)


_FOLLOW: dict[type[Any], Callable[[Any, Sequence[str]], None]] = {
    ClipDiffusionArguments: _clip_diffusion,
}
