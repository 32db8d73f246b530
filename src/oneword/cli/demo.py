"""``oneword demo``: the whole way on shipped pictures, in a minute or two."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from oneword._files import (
    hold,
    read_bytes,
    read_json,
    sweep,
    visible,
    write_atomic,
    write_json_atomic,
)
from oneword._typing import Pixels
from oneword.cli import options, reports, screen
from oneword.cli.arguments import DemoArguments
from oneword.cli.evaluate import score, show_scores
from oneword.cli.train import EXIT_CODES
from oneword.config.commands import command
from oneword.config.inversion import InversionConfig
from oneword.config.model import CARD, EMBEDDED, ModelConfig, is_embedded
from oneword.config.runs import TrainConfig
from oneword.config.scoring import EvaluateConfig
from oneword.errors import ConfigError
from oneword.evaluation import report
from oneword.generation import generate as generation
from oneword.images import (
    MAX_BYTES,
    contact_sheet,
    from_uint8,
    png_bytes,
    read_folder,
    read_image,
    save_png,
    to_images,
)
from oneword.microworld import weights
from oneword.microworld.world import learnable
from oneword.microworld.world.learnable import Learnable
from oneword.microworld.world.sets import FIRST_WORLD
from oneword.models.loading import load_backbone
from oneword.runs import train as runs


SHIPPED = {
    (1, "gold-mug"): "gold-mug",
    (1, "parrot"): "parrot",
    (1, "snowman"): "snowman",
    (2, "gold-mug"): "gold-mug",
    (2, "parrot"): "parrot",
    (2, "rocket"): "rocket-sticker",
}
"""Folder of the pictures in the package, of things that need not be drawn, by world and name."""
DEFAULT = {1: "gold-mug", 2: "rocket"}
"""What is learned where nothing else is said, by world.

In the second world it is of the test half, on which nothing is chosen, and was named before any
model of that world was trained: the rocket is of the first world's test half too, whose model never
draws it, so that the same word shows what the wider world is for.
"""
_OWN = "pictures.json"
"""In the demo's folder: checksums of the pictures that it drew there, and may replace."""
_PACKAGED = Path(__file__).parents[1] / "microworld" / "pictures"
_DRAWN = "pictures-of-S"
_LEAST_COLUMNS = 5
"""Of the overview, however few pictures the word was learned from."""


def run(chosen: DemoArguments, _words: Sequence[str]) -> int:
    """Learn, draw, score, and write ``report.html``."""
    with hold(chosen.output_dir):
        sweep(chosen.output_dir / _DRAWN)
        return _show(chosen)


def _show(chosen: DemoArguments) -> int:
    started = time.monotonic()
    model = str(chosen.model)
    if not is_embedded(model):
        raise ConfigError(
            f"The demo's model must be {' or '.join(EMBEDDED)}, or the folder of one with a "
            f"{CARD}, got {model}."
        )
    thing = None
    if chosen.picture is None:
        world = weights.world(model)
        name = chosen.thing or chosen.concept or DEFAULT[world]
        thing = learnable.find(name, world, things_alone=True)
        wanted = pictures_of(thing, world, weights.size_px(model))
    else:
        wanted = Pictures.of_ones_own(chosen.picture)
    pictures, plain = copy_pictures(wanted, chosen.output_dir)
    train = TrainConfig(
        train_data_dir=pictures,
        output_dir=chosen.output_dir / "run",
        model=ModelConfig(model=model),
        inversion=InversionConfig(
            placeholder_token="S*",
            # of a picture of one's own, or of an artist's, the noun is found by the loss
            initializer_token=None if thing is None else thing.noun,
            seed=chosen.seed,
        ),
    )
    with screen.display() as shown:
        outcome = runs.train(train, on_event=shown.on_run)
    if outcome.concept_file is None or outcome.result.concept is None:
        options.say(outcome.result.reason)
        return EXIT_CODES.get(outcome.result.status, 1)
    backbone = load_backbone(train.model)
    evaluate = EvaluateConfig(
        concept=train.output_dir,
        train_data_dir=pictures,
        plain_dir=plain,
        output_dir=chosen.output_dir / "scores",
        num_images_per_prompt=chosen.num_images_per_prompt,
        seed=chosen.seed,
    )
    evaluation, words = score(
        evaluate.resolved(backbone.family),
        backbone,
        outcome.result.concept,
        outcome.result.job.pictures,
        None if plain is None else read_folder(plain, resolution=backbone.resolution).pixels,
    )
    prompts = [t.replace("{}", "S*") for t in evaluation.protocol.edits]
    columns = max(len(outcome.result.job.pictures), _LEAST_COLUMNS)
    with screen.counting("drawing the grid") as show:
        drawing = generation.generate(
            backbone,
            prompts,
            list(range(chosen.seed, chosen.seed + columns)),
            concepts=[outcome.result.concept],
            on_picture=show,
        )
    generation.save_drawing(drawing, chosen.output_dir / _DRAWN)
    overview = contact_sheet(
        torch.cat([_row(outcome.result.job.pictures, columns), drawing.pixels]),
        columns=columns,
        row_labels=["learned from", *prompts],
    )
    save_png(overview, chosen.output_dir / "overview.png")
    name = None if thing is None else thing.name
    commands = _commands(chosen, name, train, evaluate, prompts)
    page = reports.run_report(outcome, commands=commands)
    page.sections[1:1] = [report.drawings(evaluation, words), report.scores(evaluation, words)]
    path = report.write(page, chosen.output_dir / reports.REPORT)
    numbers = {"words": words} | evaluation.plain()
    write_json_atomic(chosen.output_dir / "scores.json", numbers)
    options.write_json(chosen.json, numbers)
    show_scores(evaluation, words)
    options.tell(f"Done in {time.monotonic() - started:.0f} s. Open {path.resolve()}")
    return 0


def _row(pictures: Pixels, columns: int) -> Pixels:
    """Pictures as a whole row of a sheet, with white behind them."""
    white = torch.ones(columns - len(pictures), *pictures.shape[1:])
    return torch.cat([pictures, white.to(pictures)])


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a word is learned from: files by name."""

    learned: dict[str, bytes]
    plain: dict[str, bytes] = field(default_factory=dict)
    """On plain ground, for scores; none of a picture of one's own."""
    drawn: bool = False
    """They were drawn for this demo."""

    @classmethod
    def of_ones_own(cls, path: Path) -> Pictures:
        """A single picture.

        Raises:
            UserError: it cannot be read.
        """
        content = read_bytes(path, most=MAX_BYTES)
        read_image(path)  # which says what is wrong with it
        return cls({path.name: content})


def pictures_of(thing: Learnable, world: int, size_px: int) -> Pictures:
    """The pictures of a held-out thing: those in the package, or drawn ones."""
    name = SHIPPED.get((world, thing.name))
    if name is not None:
        folders = _PACKAGED / name, _PACKAGED / f"{name}-plain"
        learned, plain = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
        return Pictures(learned, plain)
    some = (thing.pictures(size=size_px), thing.plain(size=size_px))
    learned, plain = (
        {
            f"{i}.png": png_bytes(image)
            for i, image in enumerate(to_images(from_uint8(pixels)), start=1)
        }
        for pixels in some
    )
    return Pictures(learned, plain, drawn=True)


def copy_pictures(wanted: Pictures, target: Path) -> tuple[Path, Path | None]:
    """Copy pictures next to the results; of an earlier demo's, nothing but its own is replaced.

    Args:
        wanted: The pictures.
        target: The demo's folder.

    Returns:
        The folder of those to learn from, and that of the plain ones, where there are some.

    Raises:
        ConfigError: the folders hold pictures of someone's own.
    """
    folders, own = (target / "pictures", target / "pictures-plain"), target / _OWN
    ours = {_sha256(path.read_bytes()) for path in _PACKAGED.rglob("*.png")}
    ours |= {_sha256(content) for content in wanted.learned.values()}
    listed: set[str] = set()
    if own.is_file():
        must = f"{own} must be the demo's own list (delete it, or pass another --output-dir)"
        listed |= {*read_json(own, {"sha256": [str]}, must=must, error=ConfigError)["sha256"]}
    earlier = [path for folder in folders if folder.exists() for path in visible(folder)]
    for path in earlier:
        if not path.is_file() or _sha256(path.read_bytes()) not in ours | listed:
            raise ConfigError(
                f"Cannot replace {path} because the demo did not make it; pass another "
                "--output-dir."
            )
    if wanted.drawn:  # before they are there, so that they are never taken for someone's own
        both = (*wanted.learned.values(), *wanted.plain.values())
        write_json_atomic(own, {"sha256": sorted(listed.union(map(_sha256, both)))})
    for path in earlier:
        path.unlink()
    for folder, pictures in zip(folders, (wanted.learned, wanted.plain), strict=True):
        sweep(folder)
        for name, content in pictures.items():
            write_atomic(folder / name, content)
    return folders[0], folders[1] if wanted.plain else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _commands(
    chosen: DemoArguments,
    name: str | None,
    train: TrainConfig,
    evaluate: EvaluateConfig,
    prompts: Sequence[str],
) -> list[str]:
    out, seed, noun = chosen.output_dir, chosen.seed, train.inversion.initializer_token
    other = train.model.model != ModelConfig().model
    model = ["--model", train.model.model] if other else []
    shown = ["--picture", chosen.picture]
    if name is not None:
        shown = ["--concept" if (FIRST_WORLD, name) in SHIPPED else "--thing", name]
    return [
        command("demo", *shown, *model, "--seed", seed, "--output-dir", out),
        "# or step by step:",
        command(
            "train", "--train-data-dir", train.train_data_dir, "--placeholder-token", "S*", *model,
            *([] if noun is None else ["--initializer-token", noun]), "--seed", seed,
            "--output-dir", train.output_dir,
        ),
        command(
            "generate", "--concepts", train.output_dir, "--num-images-per-prompt", 5,
            "--seed", seed, "--output-dir", out / _DRAWN, "--prompts", *prompts,
        ),
        command(
            "evaluate", "--concept", train.output_dir, "--train-data-dir", evaluate.train_data_dir,
            *([] if evaluate.plain_dir is None else ["--plain-dir", evaluate.plain_dir]),
            "--num-images-per-prompt",
            evaluate.num_images_per_prompt, "--seed", seed, "--output-dir", evaluate.output_dir,
        ),
    ]  # fmt: skip
