"""``oneword microworld``: make, measure and describe the embedded model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from oneword._files import check_writable, write_atomic, write_json_atomic
from oneword.cli import options, progress
from oneword.cli.things import ThingsArguments, things
from oneword.config import ConfigError, ModelConfig, SamplingConfig


if TYPE_CHECKING:
    from PIL import Image

    from oneword.evaluation.world import WorldScores
    from oneword.microworld.sheets import Rows

HELP = """usage: oneword microworld {sample,explore,things,pictures,people,evaluate,card,train} [options]

  sample    draw prompts and say what the oracle reads from each picture
  explore   contact sheets of nouns, places and relations in all styles, drawn beside generated
  things    list what the world can draw, search it, make a sheet of it
  pictures  draw one of the held-out concepts, to learn from or to score against
  people    draw a profession without the world's bias: a set for `oneword debias`
  evaluate  how many prompts are obeyed, attribute by attribute, beside drawings of the same
  card      how an embedded model was made and what it scores
  train     run the recipe: draws pictures and trains every part, resumable, within --minutes"""

Embedded = Literal["microworld", "microworld-nano"]


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Run the recipe that makes the embedded model; run it again to go on."""

    model: Embedded = "microworld"
    """What to make."""
    output_dir: Path = Path("microworld-work")
    """Work folder: resumable states, finished parts, latents."""
    minutes: float = 60.0
    """Time budget of this call, minutes."""
    stages: tuple[str, ...] = ()
    """Stages to run, in order: vae clip judge oracle latents denoiser; none: all."""
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
    oracle_samples: int | None = None
    """Pictures for which the oracle is trained on from its landed weights; unset: it is taken as it is."""
    land: Path | None = None
    """Folder in which to put the finished model together afterwards."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Read generated pictures back and compare with the truth of their prompts."""

    model: Embedded = "microworld"
    """Which embedded model."""
    num_prompts: int = 500
    """Prompts that never occurred in training, one picture each."""
    num_people: int = 100
    """Pictures of each profession whose appearance the world biases."""
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
    num_images: int = 5
    """Pictures to draw."""
    seed: int = 0
    """Seed of the pictures."""


@dataclass(frozen=True, kw_only=True)
class PeopleArguments:
    """Draw a profession with every skin and hair equally often, a small diverse set to learn from."""

    profession: tyro.conf.Positional[str]
    """One of doctor, nurse, baker, farmer, builder, teacher."""
    output_dir: Path
    """Folder for the pictures."""
    num_images: int = 12
    """Pictures to draw; a multiple of six is even."""
    seed: int = 0
    """Seed of the pictures."""


@dataclass(frozen=True, kw_only=True)
class SampleArguments:
    """Draw prompts and say what the oracle reads from each picture."""

    prompts: tyro.conf.Positional[tuple[str, ...]]
    """Sentences of the embedded model's world, such as "a photo of a red mug on the beach"."""
    model: Embedded = "microworld"
    """Which embedded model."""
    output_dir: Path = Path("microworld-sample")
    """Folder for the pictures."""
    num_images_per_prompt: int = 4
    """Pictures of each prompt."""
    seed: int = 0
    """Seed of the first picture; the next ones follow."""


@dataclass(frozen=True, kw_only=True)
class ExploreArguments:
    """Make contact sheets: nouns, places, relations drawn beside generated; held-out concepts."""

    model: Embedded = "microworld"
    """Which embedded model."""
    output_dir: Path = Path("microworld-sheets")
    """Folder for the sheets."""
    seed: int = 0
    """Seed of colours, backgrounds and pictures."""
    generated: bool = True
    """Put generated pictures under the drawn ones."""


@dataclass(frozen=True, kw_only=True)
class CardArguments:
    """Print how an embedded model was made and what it scores, as JSON."""

    model: Embedded = "microworld"
    """Which embedded model."""


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
    verbs: dict[str, tuple[Any, Callable[[Any], int]]] = {
        "sample": (SampleArguments, _sample),
        "explore": (ExploreArguments, _explore),
        "things": (ThingsArguments, things),
        "pictures": (PicturesArguments, _pictures),
        "people": (PeopleArguments, _people),
        "evaluate": (EvaluateArguments, _evaluate),
        "card": (CardArguments, _card),
        "train": (TrainArguments, _train),
    }
    verb, rest = arguments[0], arguments[1:]
    if verb not in verbs:
        raise ConfigError(f"The sub-verb must be one of {', '.join(verbs)}, got {verb!r}.")
    kind, follow = verbs[verb]
    return follow(options.parse(kind, f"microworld {verb}", rest)[0])


def _card(arguments: CardArguments) -> int:
    from oneword.microworld import weights

    print(json.dumps(weights.card(arguments.model), indent=1))
    return 0


def _train(arguments: TrainArguments) -> int:
    from oneword.microworld import recipe
    from oneword.microworld.workshop import STAGES, recipe_for

    made = recipe_for(arguments.model, seed=arguments.seed)
    unknown = set(arguments.stages) - set(STAGES)
    if unknown:
        raise ConfigError(
            f"stages must be among {', '.join(STAGES)}, got {', '.join(sorted(unknown))}."
        )
    if arguments.denoiser_samples is not None:
        denoiser = dataclasses.replace(made.denoiser, num_samples=arguments.denoiser_samples)
        made = dataclasses.replace(made, denoiser=denoiser)
    if arguments.oracle_samples is not None:
        oracle = dataclasses.replace(made.oracle, num_samples=arguments.oracle_samples)
        made = dataclasses.replace(made, oracle=oracle)
    complete = recipe.train(
        arguments.output_dir,
        recipe=made,
        stages=arguments.stages or STAGES,
        minutes=arguments.minutes,
        device=arguments.device,
        num_processes=arguments.num_processes,
        from_scratch=arguments.from_scratch,
        further_oracle=arguments.oracle_samples is not None,
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
    left = progress.time_left((total - done) / speed if speed else None)
    options.say(f"{stage}: {done}/{total}  {numbers}  {left}".rstrip())


def _evaluate(arguments: EvaluateArguments) -> int:
    from oneword.backbones.base import load
    from oneword.evaluation import world
    from oneword.images import contact_sheet, save_png
    from oneword.microworld import weights

    if min(arguments.num_prompts, arguments.batch_size) < 1 or arguments.num_people < 0:
        raise ConfigError(
            "num_prompts and batch_size must be 1 or more and num_people 0 or more, got "
            f"{arguments.num_prompts}, {arguments.batch_size} and {arguments.num_people}."
        )
    if arguments.output_dir is not None:
        check_writable(arguments.output_dir)
    backbone = load(ModelConfig(model=arguments.model))
    with progress.counting("drawing") as show:
        scores = world.evaluate_world(
            backbone,
            num_prompts=arguments.num_prompts,
            num_people=arguments.num_people,
            seed=arguments.seed,
            sampling=SamplingConfig(
                guidance_scale=arguments.guidance_scale,
                num_inference_steps=arguments.num_inference_steps,
            ),
            batch_size=arguments.batch_size,
            on_picture=show,
        )
    _show(scores)
    found = scores.plain()
    if arguments.json is not None:
        write_json_atomic(arguments.json, found)
    if arguments.save_to_card:
        how = {"num_prompts": arguments.num_prompts, "seed": arguments.seed}
        weights.add_scores(found | how, arguments.model)
    if arguments.output_dir is not None:
        for name in ("generated", "drawn"):
            sheet = contact_sheet(getattr(scores, name)[:64], columns=8)
            save_png(sheet, arguments.output_dir / f"{name}.png")
        prompts = "".join(f"{prompt}\n" for prompt in scores.prompts)
        write_atomic(arguments.output_dir / "prompts.txt", prompts.encode())
        options.say(f"Contact sheets in {arguments.output_dir}.")
    return 0


def _show(scores: WorldScores) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"What the oracle reads from pictures of {len(scores.prompts)} prompts")
    for head in ("", "prompts", "generated", "drawn", "wanted"):
        table.add_column(head, justify="left" if not head else "right")
    found = scores.plain()
    appearance = found.pop("appearance")
    for name, row in found.items():
        shares = [f"{row[key]:.1%}" for key in ("value", "ceiling")]
        bar = f"{row['bar']:.0%}" if "bar" in row else ""
        table.add_row(name, str(row["num"]), *shares, bar)
    console = Console()
    console.print(table)
    for profession, row in appearance.items():
        console.print(
            f"{profession}: usual appearance in {row['generated']:.0%} of generated pictures, "
            f"{row['drawn']:.0%} of drawn ones, {row['world']:.0%} in the world",
            highlight=False,
        )


def _sample(arguments: SampleArguments) -> int:
    from oneword import generation
    from oneword.backbones.base import load
    from oneword.microworld import weights

    if not arguments.prompts or arguments.num_images_per_prompt < 1:
        raise ConfigError(
            "There must be a prompt and num_images_per_prompt must be 1 or more, got "
            f"{len(arguments.prompts)} and {arguments.num_images_per_prompt}."
        )
    check_writable(arguments.output_dir)
    seeds = [arguments.seed + i for i in range(arguments.num_images_per_prompt)]
    with progress.counting("drawing") as show:
        drawing = generation.generate(
            load(ModelConfig(model=arguments.model)), arguments.prompts, seeds, on_picture=show
        )
    files = generation.save(drawing, arguments.output_dir)
    read = weights.load_oracle(arguments.model).read(drawing.pixels)
    for path, found in zip(files, read, strict=False):
        print(f"{path.name}: {_in_words(found)}")
    print(f"{len(read)} pictures in {arguments.output_dir}; all of them: {files[-1]}")
    return 0


def _in_words(read: dict[str, str]) -> str:
    """What the oracle reads, without what does not apply."""
    from oneword.microworld.oracle import NONE
    from oneword.microworld.scenes import PROFESSIONS

    names = ["noun", "scene", "style", "relation"]
    names[1:1] = (
        ["skin", "hair"]
        if read["noun"] in PROFESSIONS
        else ["colour", "second_colour", "detail_colour", "pattern"]
    )
    if read["relation"] == "count":
        names.append("count")
    if read["second_noun"] != NONE:
        names.append("second_noun")
    if read["concept"] != NONE:
        names.append("concept")
    return ", ".join(f"{name.replace('_', ' ')} {read[name]}" for name in names)


def _pictures(arguments: PicturesArguments) -> int:
    from oneword import descriptions
    from oneword.descriptions import Descriptions
    from oneword.images import from_uint8, save_png, to_images
    from oneword.microworld import concepts

    concept = concepts.get(arguments.concept)
    draw = concepts.concept_plain if arguments.plain else concepts.concept_pictures
    check_writable(arguments.output_dir)
    drawn = draw(concept, num=arguments.num_images, seed=arguments.seed)
    for i, image in enumerate(to_images(from_uint8(drawn)), start=1):
        save_png(image, arguments.output_dir / f"{i}.png")
    if not arguments.plain:
        own = Descriptions(short=concept.captions_short, long=concept.captions_long)
        descriptions.write(own, arguments.output_dir)
    options.say(f"{arguments.num_images} pictures of {concept.name} in {arguments.output_dir}.")
    return 0


def _people(arguments: PeopleArguments) -> int:
    from PIL import Image

    from oneword.images import save_png
    from oneword.microworld import drawing, scenes

    if arguments.profession not in scenes.PROFESSIONS:
        raise ConfigError(
            f"The profession must be one of {', '.join(scenes.PROFESSIONS)}, got "
            f"{arguments.profession!r}."
        )
    check_writable(arguments.output_dir)
    found = scenes.diverse_people(arguments.profession, arguments.num_images, arguments.seed)
    for i, scene in enumerate(found, start=1):
        image = Image.fromarray(drawing.render(scene))
        save_png(image, arguments.output_dir / f"{i:02d}.png")
    options.say(f"{len(found)} pictures of a {arguments.profession} in {arguments.output_dir}.")
    return 0


def _explore(arguments: ExploreArguments) -> int:
    import numpy as np

    from oneword.images import contact_sheet, from_uint8, save_png, to_images
    from oneword.microworld import drawing, sheets
    from oneword.microworld.models import SIZES

    check_writable(arguments.output_dir)
    world = sheets.world(arguments.seed)
    size_px = SIZES[arguments.model].size_px
    generated = _generated(world, arguments) if arguments.generated else {}
    found = {
        name: {label: [p.scene for p in prompts] for label, prompts in rows.items()}
        for name, rows in world.items()
    } | {"held-out": sheets.held_out(seed=arguments.seed)}
    for name, rows in found.items():
        labels: list[str] = []
        pictures: list[Image.Image] = []
        for label, scenes in rows.items():
            drawn = np.stack([drawing.render(scene, size=size_px) for scene in scenes])
            labels.append(f"{label}, drawn" if name in generated else label)
            pictures += to_images(from_uint8(drawn))
            if name in generated:
                labels.append(f"{label}, generated")
                pictures += generated[name][label]
        columns = len(next(iter(rows.values())))
        sheet = contact_sheet(pictures, columns=columns, row_labels=labels)
        save_png(sheet, arguments.output_dir / f"{name}.png")
    print(f"{len(found)} sheets in {arguments.output_dir}: {', '.join(found)}.")
    return 0


def _generated(
    world: dict[str, Rows], arguments: ExploreArguments
) -> dict[str, dict[str, list[Image.Image]]]:
    """Generate a picture for every prompt of the sheets, by sheet and row."""
    from oneword.backbones.base import load
    from oneword.images import to_images

    backbone = load(ModelConfig(model=arguments.model))
    rows = [(name, label) for name, rows in world.items() for label in rows]
    found: dict[str, dict[str, list[Image.Image]]] = {name: {} for name in world}
    with progress.counting("generating rows") as show:
        for i, (name, label) in enumerate(rows):
            texts = [p.text for p in world[name][label]]
            seeds = [arguments.seed + j for j in range(len(texts))]
            found[name][label] = to_images(backbone.draw(texts, seeds))
            show(i + 1, len(rows))
    return found
