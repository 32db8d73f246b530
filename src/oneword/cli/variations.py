"""``oneword baseline variations`` and ``projector``: pictures varied, not learned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from oneword._files import check_writable, hold, read_bytes
from oneword.cli import options, reports, screen
from oneword.cli.arguments import ProjectorArguments, VariationsArguments
from oneword.config.variations import ProjectorConfig
from oneword.errors import ConfigError
from oneword.generation import variations
from oneword.generation.generate import save_drawing
from oneword.generation.variations import Wishes
from oneword.images import MAX_BYTES, from_uint8, read_folder, read_image
from oneword.microworld import weights
from oneword.microworld.world.drawn import world_pictures
from oneword.models.guide import Guide
from oneword.models.loading import load_backbone
from oneword.runs.events import interrupted
from oneword.training import projector


def run(chosen: Any, words: Sequence[str]) -> int:
    """Run the sub-verb whose arguments these are."""
    _FOLLOW[type(chosen)](chosen, words)
    return 0


_DRAWN = ("guidance_scale", "num_inference_steps", "noise_level", "revision")


def _variations(chosen: VariationsArguments, _words: Sequence[str]) -> None:
    check_writable(chosen.output_dir)
    pictures = {path.name: read_image(path) for path in chosen.pictures}
    if len(pictures) < len(chosen.pictures):
        raise ConfigError(
            "pictures must have different file names, got one twice: "
            f"{', '.join(path.name for path in chosen.pictures)}; rename one."
        )
    wishes = Wishes(
        **{name: getattr(chosen, name) for name in _DRAWN},
        dtype=chosen.dtype,
        device=chosen.device,
        safety_checker=chosen.safety_checker,
        batch_size=chosen.batch_size,
    )
    model = variations.load(chosen.model, wishes)
    with screen.warnings_said(), screen.counting("varying") as show:
        drawing = variations.vary(
            model, pictures, chosen.drawn_seeds, prompt=chosen.prompt, on_picture=show
        )
    given = [(n, v) for n in _DRAWN if (v := getattr(chosen, n)) is not None]
    given += [("prompt", chosen.prompt)] if chosen.prompt is not None else []
    more: list[Any] = [f"--{name.replace('_', '-')}={value}" for name, value in given]
    more += ["--no-safety-checker"] * (not chosen.safety_checker)
    files = [path for path in chosen.pictures for _ in chosen.drawn_seeds]
    hashes = {
        path: hashlib.sha256(read_bytes(path, most=MAX_BYTES)).hexdigest()
        for path in chosen.pictures
    }
    facts = [
        {
            "picture_sha256": hashes[path],
            "command": reports.command(
                "baseline variations", path, "--model", chosen.model, *more,
                "--candidates", 1, "--seed", seed,
            ),
        }
        for path, seed in zip(files, drawing.seeds, strict=True)
    ]  # fmt: skip
    drawing = drawing.told(facts)
    *saved, sheet = save_drawing(drawing, chosen.output_dir)
    found = [{"file": str(file)} | drawing.metadata(i) for i, file in enumerate(saved)]
    options.write_json(chosen.json, found)
    options.tell(f"{len(saved)} variations by {model.name} in {chosen.output_dir}; sheet: {sheet}.")


def _projector(chosen: ProjectorArguments, _words: Sequence[str]) -> None:
    config = options.settings(ProjectorConfig, chosen)
    deadline = options.Deadline(chosen.minutes)
    check_writable(config.output_dir)
    backbone = load_backbone(config.model)
    guide = Guide.load(
        config.guide,
        backbone.name,
        device=backbone.device,
        judge=config.judge,
        allow_same_clip=config.allow_same_clip,
    )
    side = backbone.resolution
    if config.train_data_dir is None:
        options.say(f"Drawing {config.num_pictures} pictures ...")
        world = weights.world(config.model.model)
        pixels = from_uint8(world_pictures(config.num_pictures, config.seed, side, world))
    else:
        pixels = read_folder(config.train_data_dir, resolution=side, masks=False).pixels
    try:
        with hold(config.output_dir), screen.display() as shown, interrupted():

            def show(done: int, total: int, loss: float) -> None:
                shown.bar("training the projector", total).show(done, f"loss {loss:.4f}")
                deadline.check()

            trained = projector.train(backbone, guide, pixels, config, on_step=show)
    except options.TimeUp:
        options.tell(deadline.said)
        return
    options.tell(
        f"Loss on the fixed batch: {trained.first_loss:.4f} before, {trained.loss:.4f} after "
        f"{trained.steps} steps. Projector: {config.output_dir / projector.FILE}. To draw: "
        f"oneword baseline variations PICTURE --model {config.output_dir}."
    )


_FOLLOW: dict[type[Any], Callable[[Any, Sequence[str]], None]] = {
    VariationsArguments: _variations,
    ProjectorArguments: _projector,
}
