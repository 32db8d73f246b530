"""``oneword evaluate``: score a learned word beside its references."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from oneword._files import check_writable, write_json_atomic
from oneword._typing import Pixels
from oneword.cli import options, reports, screen
from oneword.cli.arguments import EvaluateArguments
from oneword.cli.screen import Console
from oneword.cli.words import on_base
from oneword.concepts.concept import Concept
from oneword.concepts.named import read_concept
from oneword.config.commands import command
from oneword.config.scoring import EvaluateConfig, ResolvedEvaluateConfig
from oneword.errors import ConfigError
from oneword.evaluation import features, harness, protocol, report, tuned
from oneword.evaluation.harness import Evaluation
from oneword.evaluation.tuned import Drift
from oneword.generation.generate import drawn_as_learned
from oneword.images import read_folder
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work
from oneword.prompts import as_template, expanded


_DRIFT_PICTURES = 4  # of each prompt that does not name the concept


def run(chosen: EvaluateArguments, words: Sequence[str]) -> int:
    """Score, print the table, and write the report."""
    asked = options.settings(EvaluateConfig, chosen)
    check_writable(asked.output_dir)
    concept = read_concept(asked.concept)
    asked = dataclasses.replace(asked, model=on_base(asked.model, {asked.concept: [concept]}))
    backbone = load_backbone(asked.model, Work(2 * asked.batch_size, trains=False))
    config = asked.resolved(backbone.family)
    pictures = read_folder(
        config.train_data_dir,
        resolution=backbone.resolution,
        fit=config.fit,
        interpolation=config.interpolation,
    )
    plain = (
        None
        if config.plain_dir is None
        else read_folder(config.plain_dir, resolution=backbone.resolution).pixels
    )
    evaluation, methods = score(config, backbone, concept, pictures.pixels, plain)
    found = protocol.facts(
        config,
        evaluation.protocol,
        backbone.sampling_for(drawn_as_learned(backbone, [concept], config.sampling)),
        evaluation.judge,
        concept.learnable_property,
    )
    moved = drift_of(config, backbone, concept) if concept.deltas else None
    page = report.Report(
        title=f"One word: {concept.placeholder_token}",
        lead=[protocol.sentence(found)],
        sections=[
            report.Section(
                title="Training pictures", rows=[report.row("", pictures.pixels, pictures.names)]
            ),
            report.drawings(evaluation, methods),
            report.scores(evaluation, methods),
            *([] if moved is None else [report.drift(moved)]),
            report.Section(title="Reproduce", commands=[command("evaluate", *words)]),
        ],
    )
    path = report.write(page, config.output_dir / reports.REPORT)
    numbers = {"words": methods, "protocol": found} | evaluation.plain()
    if moved is not None:
        numbers["drift"] = moved.plain()
    write_json_atomic(config.output_dir / "scores.json", numbers)
    options.write_json(chosen.json, numbers)
    show_scores(evaluation, methods)
    options.tell(protocol.sentence(found))
    if moved is not None:
        options.tell(
            "This word also changes the model's weights. For other prompts, pictures with and "
            f"without it have a similarity of {moved.similarity:.3f} (1: unchanged). Their text "
            f"similarity is {moved.text_after:.3f} with it and {moved.text_before:.3f} without."
        )
    options.tell(f"Report: {path}")
    return 0


def score(
    config: ResolvedEvaluateConfig,
    backbone: Backbone,
    concept: Concept,
    pictures: Pixels,
    plain: Float[Tensor, "plain 3 height width"] | None,
) -> tuple[Evaluation, dict[str, str]]:
    """Scores of a concept and its references, and the word of each method."""
    if config.prompts and len(set(config.prompts)) < len(config.prompts):
        raise ConfigError(f"prompts must differ from each other, got {list(config.prompts)}.")
    judge = features.load_judge(config.judge, backbone)
    token, kind = concept.placeholder_token, harness.learnable_property(concept)
    edits = [as_template(p, token) for p in expanded(config.prompts, {token: kind})]
    backbone.check_prompts(edits, config.sampling)
    plan = harness.protocol_for(
        backbone.family,
        preset=config.preset,
        learnable_property=kind,
        edits=edits,
        plain=plain is not None,
        seeds=range(config.seed, config.seed + config.num_images_per_prompt),
        emphasis=backbone.sampling_for(config.sampling).emphasis or "numbers",
    )
    methods = harness.concept_methods(
        backbone, concept, judge, pictures, sampling=config.sampling,
        batch_size=config.batch_size, replace=config.replace,
    )  # fmt: skip
    names = list(methods)
    with screen.counting("drawing and scoring, prompts") as show:

        def tell(name: str, done: int, total: int) -> None:
            show(names.index(name) * total + done, total * len(names))

        evaluation = harness.evaluate(
            {name: method for name, (_, method) in methods.items()},
            pictures,
            judge,
            plan,
            plain=plain,
            on_picture=tell,
        )
    return evaluation, {name: text for name, (text, _) in methods.items()}


def drift_of(config: ResolvedEvaluateConfig, backbone: Backbone, concept: Concept) -> Drift:
    """How far a concept's weight deltas move what the model draws of other prompts."""
    judge = features.load_judge(config.judge, backbone)
    seeds = range(config.seed, config.seed + min(_DRIFT_PICTURES, config.num_images_per_prompt))
    return tuned.drift(
        backbone, concept, judge, seeds=list(seeds), sampling=config.sampling,
        batch_size=config.batch_size,
    )  # fmt: skip


def show_scores(evaluation: Evaluation, words: Mapping[str, str]) -> None:
    """Print the table of scores."""
    section = report.scores(evaluation, words)
    table: Any = Table(title="Similarities (cosines)")
    for i, head in enumerate(section.table[0]):
        table.add_column(head.replace(" similarity", ""), justify="left" if i == 0 else "right")
    for line in section.table[1:]:
        table.add_row(*line)
    console = Console()
    console.print(table)
    if section.note:
        console.print(section.note, highlight=False, markup=False)
