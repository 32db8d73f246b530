"""``oneword demo``: the whole way on shipped pictures, in a minute or two."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from oneword._files import hold, read_bytes, sweep, visible, write_atomic, write_json_atomic
from oneword._typing import Pixels
from oneword.cli import options, reports, screen
from oneword.cli.arguments import DemoArguments
from oneword.cli.evaluate import score, show_scores
from oneword.cli.train import EXIT_CODES
from oneword.config.commands import command
from oneword.config.inversion import InversionConfig
from oneword.config.runs import TrainConfig
from oneword.config.scoring import EvaluateConfig
from oneword.errors import ConfigError
from oneword.evaluation import report
from oneword.generation import generate as generation
from oneword.images import MAX_BYTES, contact_sheet, read_folder, read_image, save_png
from oneword.models.loading import load_backbone
from oneword.runs import train as runs


SHIPPED = {"gold-mug": "mug", "parrot": "bird", "snowman": "robot"}
"""Held-out concepts whose pictures are in the package, and the word that each starts from."""
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
    pictures, plain = copy_pictures(chosen.picture or chosen.concept, chosen.output_dir)
    train = TrainConfig(
        train_data_dir=pictures,
        output_dir=chosen.output_dir / "run",
        inversion=InversionConfig(
            placeholder_token="S*",
            # of a picture of one's own, the noun is found by the loss
            initializer_token=SHIPPED[chosen.concept] if chosen.picture is None else None,
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
    page = reports.run_report(outcome, commands=_commands(chosen, train, evaluate, prompts))
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


def copy_pictures(concept: str | Path, target: Path) -> tuple[Path, Path | None]:
    """Copy a shipped concept's training and plain pictures, or a picture, next to the results.

    Those of an earlier demo are replaced, and nothing else is.

    Args:
        concept: Name of a shipped concept, or the file of a picture, which has no plain ones.
        target: The demo's folder.

    Raises:
        ConfigError: the folders hold pictures of someone's own.
        UserError: the picture cannot be read.
    """
    source = Path(__file__).parents[1] / "microworld" / "pictures"
    folders = target / "pictures", target / "pictures-plain"
    shipped = {path.read_bytes() for path in source.rglob("*.png")}
    if isinstance(concept, Path):
        own = {concept.name: read_bytes(concept, most=MAX_BYTES)}
        read_image(concept)  # which says what is wrong with it
        wanted = own, {}
    else:
        wanted = tuple(
            {path.name: path.read_bytes() for path in (source / name).iterdir()}
            for name in (concept, f"{concept}-plain")
        )
    earlier = [path for folder in folders if folder.exists() for path in visible(folder)]
    for path in earlier:
        if not path.is_file() or path.read_bytes() not in {*shipped, *wanted[0].values()}:
            raise ConfigError(
                f"Cannot replace {path} because the demo did not make it; pass another "
                "--output-dir."
            )
    for path in earlier:
        path.unlink()
    for folder, pictures in zip(folders, wanted, strict=True):
        sweep(folder)
        for name, content in pictures.items():
            write_atomic(folder / name, content)
    return folders[0], folders[1] if wanted[1] else None


def _commands(
    chosen: DemoArguments, train: TrainConfig, evaluate: EvaluateConfig, prompts: Sequence[str]
) -> list[str]:
    out, seed, noun = chosen.output_dir, chosen.seed, train.inversion.initializer_token
    own = chosen.picture
    shown = ["--concept", chosen.concept] if own is None else ["--picture", own]
    return [
        command("demo", *shown, "--seed", seed, "--output-dir", out),
        "# or step by step:",
        command(
            "train", "--train-data-dir", train.train_data_dir, "--placeholder-token", "S*",
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
