"""``oneword microworld``: make, measure and describe the embedded model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from oneword._files import check_writable, write_atomic
from oneword.cli import options, screen
from oneword.cli.arguments import (
    ExploreArguments,
    MicroworldCardArguments,
    MicroworldEvaluateArguments,
    SampleArguments,
)
from oneword.cli.screen import Console
from oneword.config.drawing import SamplingConfig
from oneword.config.model import CARD, EMBEDDED, ModelConfig, is_embedded
from oneword.errors import ConfigError
from oneword.evaluation.world import WorldScores, evaluate_world
from oneword.generation import generate as generation
from oneword.images import contact_sheet, from_uint8, save_png, to_images
from oneword.microworld import weights
from oneword.microworld.making.oracle import NONE
from oneword.microworld.making.wide_oracle import PARTS
from oneword.microworld.world import sheets
from oneword.microworld.world.inventory import PROFESSIONS
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.microworld.world.sheets import Rows
from oneword.models.loading import load_backbone


def run(chosen: Any, _words: Sequence[str]) -> int:
    """Run the sub-verb whose arguments these are."""
    if not is_embedded(str(chosen.model)):
        raise ConfigError(
            f"The embedded model must be {' or '.join(EMBEDDED)}, or the folder of one with a "
            f"{CARD}, got {chosen.model}."
        )
    return _FOLLOW[type(chosen)](chosen)


def _card(arguments: MicroworldCardArguments) -> int:
    found = {"prediction_type": weights.prediction_type(str(arguments.model))}
    print(json.dumps(found | weights.card(str(arguments.model)), indent=1))
    return 0


def _evaluate(arguments: MicroworldEvaluateArguments) -> int:
    if min(arguments.num_prompts, arguments.batch_size) < 1 or arguments.num_people < 0:
        raise ConfigError(
            "num_prompts and batch_size must be 1 or more and num_people 0 or more, got "
            f"{arguments.num_prompts}, {arguments.batch_size} and {arguments.num_people}."
        )
    if arguments.output_dir is not None:
        check_writable(arguments.output_dir)
    curve = _curve(arguments)
    backbone = load_backbone(ModelConfig(model=str(arguments.model)))
    with screen.counting("drawing") as show:
        scores = evaluate_world(
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
    if curve:
        _show_curve(
            [
                *curve,
                {
                    "samples": weights.card(str(arguments.model)).get("denoiser_samples", 0),
                    "scores": found,
                },
            ]
        )
    options.write_json(arguments.json, found)
    if arguments.save_to_card:
        how = {"num_prompts": arguments.num_prompts, "seed": arguments.seed}
        weights.add_scores(found | how, str(arguments.model), curve)
    if arguments.output_dir is not None:
        for name in ("generated", "drawn"):
            sheet = contact_sheet(getattr(scores, name)[:64], columns=8)
            save_png(sheet, arguments.output_dir / f"{name}.png")
        prompts = "".join(f"{prompt}\n" for prompt in scores.prompts)
        write_atomic(arguments.output_dir / "prompts.txt", prompts.encode())
        options.say(f"Contact sheets in {arguments.output_dir}.")
    return 0


def _curve(arguments: MicroworldEvaluateArguments) -> list[dict[str, Any]]:
    """Scores of the model after fewer samples, from the cards of its earlier folders."""
    own = weights.world(str(arguments.model))
    for name in arguments.earlier:
        if weights.card(name) and weights.world(name) != own:
            raise ConfigError(
                f"earlier must name models of the same world, {own}, got {name} of world "
                f"{weights.world(name)}."
            )
    return sorted(map(weights.scored_at, arguments.earlier), key=lambda row: row["samples"])


def _show_curve(curve: Sequence[dict[str, Any]]) -> None:
    table = Table(title="The same after fewer samples, with 95 % intervals")
    table.add_column("samples")
    for point in curve:
        table.add_column(f"{point['samples']:,}", justify="right")
    for name, row in curve[-1]["scores"].items():
        if "interval" in row:
            table.add_row(name, *(_share(point["scores"].get(name)) for point in curve))
    Console().print(table)


def _share(row: dict[str, Any] | None) -> str:
    if row is None or "interval" not in row:
        return ""
    low, high = row["interval"]
    return f"{row['value']:.1%} ({low:.1%} to {high:.1%})"


def _show(scores: WorldScores) -> None:
    table = Table(title=f"What the oracle reads from pictures of {len(scores.prompts)} prompts")
    for head in ("", "prompts", "generated", "95 % interval", "drawn", "wanted"):
        table.add_column(head, justify="left" if not head else "right")
    found = scores.plain()
    appearance = found.pop("appearance")
    for name, row in found.items():
        low, high = row["interval"]
        bar = f"{row['bar']:.0%}" if "bar" in row else ""
        table.add_row(
            name, str(row["num"]), f"{row['value']:.1%}", f"{low:.1%} to {high:.1%}",
            f"{row['ceiling']:.1%}", bar,
        )  # fmt: skip
    console = Console()
    console.print(table)
    for profession, row in appearance.items():
        console.print(
            f"{profession}: usual appearance in {row['generated']:.0%} of generated pictures, "
            f"{row['drawn']:.0%} of drawn ones, {row['world']:.0%} in the world",
            highlight=False,
        )


def _sample(arguments: SampleArguments) -> int:
    if not arguments.prompts or arguments.num_images_per_prompt < 1:
        raise ConfigError(
            "prompts must name a prompt and num_images_per_prompt must be 1 or more, got "
            f"{len(arguments.prompts)} and {arguments.num_images_per_prompt}."
        )
    check_writable(arguments.output_dir)
    seeds = [arguments.seed + i for i in range(arguments.num_images_per_prompt)]
    with screen.counting("drawing") as show:
        drawing = generation.generate(
            load_backbone(ModelConfig(model=str(arguments.model))),
            arguments.prompts,
            seeds,
            on_picture=show,
        )
    files = generation.save_drawing(drawing, arguments.output_dir)
    read = weights.load_oracle(str(arguments.model)).read(drawing.pixels)
    for path, found in zip(files, read, strict=False):
        print(f"{path.name}: {_in_words(found)}")
    print(f"{len(read)} pictures in {arguments.output_dir}; contact sheet: {files[-1]}")
    return 0


def _in_words(read: dict[str, str]) -> str:
    """What the oracle reads, without what does not apply."""
    names = ["noun", "scene", "style", "relation"]
    if read.get("look", PARTS) != PARTS:
        names[1:1] = ["look", "colour"]
    elif read["noun"] in PROFESSIONS:
        names[1:1] = ["skin", "hair"]
    else:
        names[1:1] = ["colour", "second_colour", "detail_colour", "pattern"]
    if read["relation"] == "count":
        names.append("count")
    if read["second_noun"] != NONE:
        names.append("second_noun")
    if read["concept"] != NONE:
        names.append("concept")
    return ", ".join(f"{name.replace('_', ' ')} {read[name]}" for name in names)


def _explore(arguments: ExploreArguments) -> int:
    from oneword.microworld.world import wide_drawing  # needs the optional extra

    check_writable(arguments.output_dir)
    wide = weights.world(str(arguments.model)) != FIRST_WORLD
    world = (sheets.wide if wide else sheets.world)(arguments.seed)
    size_px = weights.size_px(str(arguments.model))
    generated = _generated(world, arguments) if arguments.generated else {}
    found: dict[str, Any] = {
        name: {label: [p.scene for p in prompts] for label, prompts in rows.items()}
        for name, rows in world.items()
    }
    found["held-out"] = (sheets.wide_held_out if wide else sheets.held_out)(seed=arguments.seed)
    for name, rows in found.items():
        labels: list[str] = []
        pictures: list[Image.Image] = []
        for label, scenes in rows.items():
            drawn = np.stack([wide_drawing.render(scene, size_px) for scene in scenes])
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
    backbone = load_backbone(ModelConfig(model=str(arguments.model)))
    rows = [(name, label) for name, rows in world.items() for label in rows]
    found: dict[str, dict[str, list[Image.Image]]] = {name: {} for name in world}
    with screen.counting("generating rows") as show:
        for i, (name, label) in enumerate(rows):
            texts = [p.text for p in world[name][label]]
            seeds = [arguments.seed + j for j in range(len(texts))]
            found[name][label] = to_images(backbone.draw(texts, seeds))
            show(i + 1, len(rows))
    return found


_FOLLOW: dict[type[Any], Callable[[Any], int]] = {
    SampleArguments: _sample,
    ExploreArguments: _explore,
    MicroworldEvaluateArguments: _evaluate,
    MicroworldCardArguments: _card,
}
