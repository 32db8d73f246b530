"""``oneword demo``: the whole way on shipped pictures, in a minute or two."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from oneword._files import hold, sweep, visible, write_atomic, write_json_atomic
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
from oneword.images import contact_sheet, read_folder, save_png
from oneword.models.loading import load_backbone
from oneword.runs import train as runs


SHIPPED = {"gold-mug": "mug", "parrot": "bird", "snowman": "robot"}
"""Held-out concepts whose pictures are in the package, and the word that each starts from."""
_DRAWN = "pictures-of-S"


def run(chosen: DemoArguments, _words: Sequence[str]) -> int:
    """Learn, draw, score, and write ``report.html``."""
    with hold(chosen.output_dir):
        sweep(chosen.output_dir / _DRAWN)
        return _show(chosen)


def _show(chosen: DemoArguments) -> int:
    started = time.monotonic()
    pictures, plain = copy_pictures(chosen.concept, chosen.output_dir)
    train = TrainConfig(
        train_data_dir=pictures,
        output_dir=chosen.output_dir / "run",
        inversion=InversionConfig(
            placeholder_token="S*", initializer_token=SHIPPED[chosen.concept], seed=chosen.seed
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
        read_folder(plain, resolution=backbone.resolution).pixels,
    )
    prompts = [t.replace("{}", "S*") for t in evaluation.protocol.edits]
    columns = len(outcome.result.job.pictures)
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
        torch.cat([outcome.result.job.pictures, drawing.pixels]),
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


def copy_pictures(concept: str, target: Path) -> tuple[Path, Path]:
    """Copy a shipped concept's training and plain pictures beside the results.

    Those of an earlier demo are replaced, and nothing else is.

    Raises:
        ConfigError: the folders hold pictures of someone's own.
    """
    source = Path(__file__).parents[1] / "microworld" / "pictures"
    folders = target / "pictures", target / "pictures-plain"
    shipped = {path.read_bytes() for path in source.rglob("*.png")}
    earlier = [path for folder in folders if folder.exists() for path in visible(folder)]
    for path in earlier:
        if not path.is_file() or path.read_bytes() not in shipped:
            raise ConfigError(
                f"The demo replaces only its own pictures, got {path}; pass another --output-dir."
            )
    for path in earlier:
        path.unlink()
    for folder, name in zip(folders, (concept, f"{concept}-plain"), strict=True):
        sweep(folder)
        for path in (source / name).iterdir():
            write_atomic(folder / path.name, path.read_bytes())
    return folders


def _commands(
    chosen: DemoArguments, train: TrainConfig, evaluate: EvaluateConfig, prompts: Sequence[str]
) -> list[str]:
    out, seed = chosen.output_dir, chosen.seed
    return [
        command("demo", "--concept", chosen.concept, "--seed", seed, "--output-dir", out),
        "# or step by step:",
        command(
            "train", "--train-data-dir", train.train_data_dir, "--placeholder-token", "S*",
            "--initializer-token", train.inversion.initializer_token, "--seed", seed,
            "--output-dir", train.output_dir,
        ),
        command(
            "generate", "--concepts", train.output_dir, "--num-images-per-prompt", 5,
            "--seed", seed, "--output-dir", out / _DRAWN, "--prompts", *prompts,
        ),
        command(
            "evaluate", "--concept", train.output_dir, "--train-data-dir", evaluate.train_data_dir,
            "--plain-dir", evaluate.plain_dir, "--num-images-per-prompt",
            evaluate.num_images_per_prompt, "--seed", seed, "--output-dir", evaluate.output_dir,
        ),
    ]  # fmt: skip
