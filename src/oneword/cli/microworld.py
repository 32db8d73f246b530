"""``oneword microworld``: make, measure and describe the embedded model."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oneword._files import check_writable, write_atomic, write_json_atomic
from oneword.cli import options, progress
from oneword.config import ConfigError, ModelConfig, SamplingConfig


HELP = """usage: oneword microworld {train,evaluate,pictures,card,explore} [options]

  train     run the recipe: draws pictures and trains every part, resumable, within --minutes
  evaluate  noun, colour, scene and style accuracy of generated pictures beside drawn ones
  pictures  draw one of the held-out concepts, to learn from or to score against
  card      how the embedded model was made and what it scores
  explore   contact sheets of the second world, whose model is in the making"""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Run the recipe that makes the embedded model; run it again to go on."""

    model: Literal["first", "microworld", "microworld-nano"] = "first"
    """What to make: "first" is the model that ships; the others, of the second world, are in the making."""
    output_dir: Path = Path("microworld-work")
    """Work folder: resumable states, finished parts, latents."""
    minutes: float = 60.0
    """Time budget of this call, minutes."""
    stages: tuple[str, ...] = ()
    """Stages to run, in order: vae clip judge reader (or oracle) latents denoiser; none: all."""
    from_scratch: bool = False
    """Ignore the landed weights; otherwise every finished stage starts from them."""
    device: str = "cpu"
    """torch device."""
    num_processes: int = 1
    """CPU processes of one thread each that share a batch."""
    seed: int = 0
    """Seed of the weights and of every batch."""
    denoiser_samples: int | None = None
    """Pictures that the denoiser sees in this stage, over the last third of which its rate falls; unset: the recipe's."""
    land: Path | None = None
    """Folder in which to put the finished model together afterwards."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Read generated pictures back and compare with the truth of their prompts."""

    model: str = "microworld"
    """The embedded model, or another one made by the recipe."""
    num_prompts: int = 200
    """Prompts, one picture each."""
    seed: int = 0
    """Seed of the prompts and pictures."""
    guidance_scale: float | None = None
    """Classifier-free guidance; unset: the model's default."""
    num_inference_steps: int | None = None
    """Denoising steps; unset: the model's default."""
    batch_size: int = 16
    """Pictures drawn at once."""
    json: Path | None = None
    """File for the numbers."""
    output_dir: Path | None = None
    """Folder for the contact sheets: generated and drawn."""
    save_to_card: bool = False
    """Write the scores into the embedded model's card."""


@dataclass(frozen=True, kw_only=True)
class PicturesArguments:
    """Draw a held-out concept, which the embedded model has never seen."""

    concept: str
    """Its name; a wrong one lists them all."""
    output_dir: Path
    """Folder for the pictures."""
    plain: bool = False
    """On plain backgrounds, for scoring, rather than in places, for training."""
    num_images: int = 4
    """Pictures to draw."""
    seed: int = 0
    """Seed of the pictures."""


@dataclass(frozen=True, kw_only=True)
class ExploreArguments:
    """Draw contact sheets of the second world: nouns, places, relations, held-out concepts."""

    output_dir: Path = Path("microworld-sheets")
    """Folder for the sheets."""
    seed: int = 0
    """Seed of colours and backgrounds."""


def run(arguments: Sequence[str]) -> int:
    """Run one of the sub-verbs."""
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        if error.name != "skia":
            raise
        raise ConfigError(
            "Drawing needs skia-python, which is not installed; run: pip install 'oneword[microworld]'"
        ) from error


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    if verb == "train":
        return _train(options.parse(TrainArguments, "microworld train", rest)[0])
    if verb == "evaluate":
        return _evaluate(options.parse(EvaluateArguments, "microworld evaluate", rest)[0])
    if verb == "card":
        from oneword.microworld.first import weights

        print(json.dumps(weights.card(), indent=1))
        return 0
    if verb == "pictures":
        return _pictures(options.parse(PicturesArguments, "microworld pictures", rest)[0])
    if verb == "explore":
        return _explore(options.parse(ExploreArguments, "microworld explore", rest)[0])
    raise ConfigError(
        f"The sub-verb must be train, pictures, evaluate, card or explore, got {verb!r}."
    )


def _train(arguments: TrainArguments) -> int:
    first = arguments.model == "first"
    name = "oneword.microworld.first.recipe" if first else "oneword.microworld.recipe"
    recipe: Any = importlib.import_module(name)
    model = {} if first else {"model": arguments.model}
    made = recipe.Recipe(seed=arguments.seed, **model)
    unknown = set(arguments.stages) - set(recipe.STAGES)
    if unknown:
        raise ConfigError(
            f"stages must be among {', '.join(recipe.STAGES)}, got {', '.join(sorted(unknown))}."
        )
    if arguments.denoiser_samples is not None:
        denoiser = dataclasses.replace(made.denoiser, num_samples=arguments.denoiser_samples)
        made = dataclasses.replace(made, denoiser=denoiser)
    complete = recipe.train(
        arguments.output_dir,
        recipe=made,
        stages=arguments.stages or recipe.STAGES,
        minutes=arguments.minutes,
        device=arguments.device,
        num_processes=arguments.num_processes,
        from_scratch=arguments.from_scratch,
        on_progress=_report,
    )
    if arguments.land is not None:
        recipe.land(arguments.output_dir, arguments.land, made)
        options.say(f"The model lies in {arguments.land}.")
    if not complete:
        options.say("Time is up; the same command goes on from here.")
    return 0


def _report(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    speed = metrics.get("steps_per_s", 0.0)
    left = f"  {(total - done) / speed / 60:.0f} min left" if speed else ""
    options.say(f"{stage}: {done}/{total}  {numbers}{left}")


def _evaluate(arguments: EvaluateArguments) -> int:
    from rich.console import Console
    from rich.table import Table

    from oneword.backbones.base import load
    from oneword.evaluation import world
    from oneword.images import contact_sheet, save_png
    from oneword.microworld.first import weights

    if arguments.num_prompts < 1 or arguments.batch_size < 1:
        raise ConfigError(
            f"num_prompts and batch_size must be 1 or more, got {arguments.num_prompts} and "
            f"{arguments.batch_size}."
        )
    if arguments.output_dir is not None:
        check_writable(arguments.output_dir)
    backbone = load(ModelConfig(model=arguments.model))
    with progress.counting("drawing") as show:
        scores = world.evaluate_world(
            backbone,
            num_prompts=arguments.num_prompts,
            seed=arguments.seed,
            sampling=SamplingConfig(
                guidance_scale=arguments.guidance_scale,
                num_inference_steps=arguments.num_inference_steps,
            ),
            batch_size=arguments.batch_size,
            on_picture=show,
        )
    table = Table(title=f"Attributes read from {arguments.num_prompts} pictures")
    for head in ("", "generated", "drawn (ceiling)"):
        table.add_column(head, justify="left" if not head else "right")
    for name, numbers in scores.plain().items():
        table.add_row(name, f"{numbers['value']:.1%}", f"{numbers['ceiling']:.1%}")
    Console().print(table)
    if arguments.json is not None:
        write_json_atomic(arguments.json, scores.plain())
    if arguments.save_to_card:
        how = {"num_prompts": arguments.num_prompts, "seed": arguments.seed}
        weights.add_scores(scores.plain() | how)
    if arguments.output_dir is not None:
        for name in ("generated", "drawn"):
            sheet = contact_sheet(getattr(scores, name)[:64], columns=8)
            save_png(sheet, arguments.output_dir / f"{name}.png")
        prompts = "".join(f"{prompt}\n" for prompt in scores.prompts)
        write_atomic(arguments.output_dir / "prompts.txt", prompts.encode())
        options.say(f"Contact sheets in {arguments.output_dir}.")
    return 0


def _pictures(arguments: PicturesArguments) -> int:
    from oneword.images import from_uint8, save_png, to_images
    from oneword.microworld.first import concepts

    concept = concepts.get(arguments.concept)
    draw = concepts.concept_plain if arguments.plain else concepts.concept_pictures
    check_writable(arguments.output_dir)
    drawn = draw(concept, num=arguments.num_images, seed=arguments.seed)
    for i, image in enumerate(to_images(from_uint8(drawn)), start=1):
        save_png(image, arguments.output_dir / f"{i}.png")
    options.say(f"{arguments.num_images} pictures of {concept.name} in {arguments.output_dir}.")
    return 0


def _explore(arguments: ExploreArguments) -> int:
    import numpy as np

    from oneword.images import contact_sheet, from_uint8, save_png
    from oneword.microworld import drawing, sheets

    check_writable(arguments.output_dir)
    found = {
        name: {label: [p.scene for p in prompts] for label, prompts in rows.items()}
        for name, rows in sheets.world(arguments.seed).items()
    } | {"held-out": sheets.held_out(seed=arguments.seed)}
    with progress.counting("drawing sheets") as show:
        for i, (name, rows) in enumerate(found.items()):
            drawn = [drawing.render(scene) for row in rows.values() for scene in row]
            columns = len(next(iter(rows.values())))
            sheet = contact_sheet(from_uint8(np.stack(drawn)), columns=columns, row_labels=[*rows])
            save_png(sheet, arguments.output_dir / f"{name}.png")
            show(i + 1, len(found))
    print(f"{len(found)} sheets in {arguments.output_dir}: {', '.join(found)}.")
    return 0
