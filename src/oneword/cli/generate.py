"""``oneword generate``: draw pictures with learned words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from oneword._files import check_writable, sweep
from oneword.cli import grid, options, reports, screen
from oneword.cli.arguments import GenerateArguments
from oneword.cli.words import on_base
from oneword.concepts.concept import Concept
from oneword.concepts.named import flat, read_words
from oneword.config.commands import command
from oneword.errors import ConfigError
from oneword.evaluation import choosing, gallery, report
from oneword.evaluation.choosing import Choice
from oneword.evaluation.features import load_judge
from oneword.generation import from_config, generate as generation
from oneword.generation.generate import Drawing
from oneword.models import emphasis, samplers
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work
from oneword.prompts import named


def run(chosen: GenerateArguments, words: Sequence[str]) -> int:
    """Draw, choose if asked, and say where the pictures are."""
    if not chosen.prompts:
        raise ConfigError(
            "Cannot draw without a prompt; for example, pass --prompts 'a photo of a S*'."
        )
    samplers.check_names(chosen.sampling.sampler)
    check_writable(chosen.output_dir)
    sweep(chosen.output_dir / DROPPED)
    if chosen.axes:
        return grid.run(chosen, partial(_said, chosen))
    words_by_file = read_words(chosen.concepts)
    concepts = flat(words_by_file)
    seeds = chosen.drawn_seeds
    prompts = from_config.prompts_of(chosen, concepts)
    said = _said(chosen, prompts, concepts)
    # guidance draws each picture twice
    work = Work(2 * chosen.batch_size, chosen.sampling.width, trains=False)
    model = on_base(chosen.model, words_by_file)
    backbone = load_backbone(model, work)
    if backbone.memory:
        options.say(backbone.memory)
    start = from_config.start_of(chosen, backbone)
    references, judge = {}, None
    if chosen.keep is not None or chosen.score:
        references = choosing.references_of(
            words_by_file, backbone.resolution, given=chosen.train_data_dir
        )
        choosing.check_references(said, references, chosen.rank_by)
        judge = load_judge(chosen.judge, backbone)
    with screen.warnings_said(), screen.counting("drawing") as show:
        on_model = dataclasses.replace(chosen, model=model)
        drawing = from_config.draw(on_model, backbone, concepts, show, prompts=prompts, start=start)
    choice, kept, dropped = None, drawing, None
    again = command("generate", *words)
    if judge is not None and chosen.keep is not None:
        choice = choosing.choose(
            drawing,
            judge,
            keep=chosen.keep,
            rank_by=chosen.rank_by,
            references=references,
            diversity=chosen.diversity,
        )
        kept, dropped = choosing.apart(drawing, choice)
        page = report.Report(
            title=f"The best {chosen.keep} of {len(seeds)}",
            sections=[
                gallery.chosen_section(drawing, choice),
                report.Section(title="Reproduce", commands=[again]),
            ],
        )
        report.write(page, chosen.output_dir / reports.REPORT)
    elif judge is not None:
        kept = drawing = choosing.scored(drawing, judge, references=references)
    files = generation.save_drawing(kept, chosen.output_dir)
    pictures = _listed(kept, files, choice, kept=True)
    if dropped is not None:
        aside = generation.save_drawing(dropped, chosen.output_dir / DROPPED)
        pictures += _listed(dropped, aside, choice, kept=False)
    options.write_json(chosen.json, pictures)
    for line in choosing.means_told(drawing) if chosen.score and choice is None else ():
        options.tell(line)
    options.tell(f"{len(files) - 1} pictures in {chosen.output_dir}; contact sheet: {files[-1]}.")
    if choice is not None:
        options.tell(
            f"Ranked by {choice.rank_by}: kept {len(choice.kept)} of {len(drawing.prompts)}, "
            f"moved the others to {chosen.output_dir / DROPPED}. Report: "
            f"{chosen.output_dir / reports.REPORT}."
        )
    if chosen.gallery:
        page, *sheets = gallery.save_gallery(
            drawing, chosen.output_dir, choice=choice, commands=[again]
        )
        options.tell(f"Gallery: {page}; sheets: {', '.join(sheet.name for sheet in sheets)}.")
    return 0


DROPPED = "dropped"


def _listed(
    drawing: Drawing, files: Sequence[Path], choice: Choice | None, *, kept: bool
) -> list[dict[str, str | bool]]:
    marks = {} if choice is None else {"kept": kept}
    return [{"file": str(f)} | drawing.metadata(i) | marks for i, f in enumerate(files[:-1])]


def _said(
    chosen: GenerateArguments, prompts: Sequence[str], concepts: Sequence[Concept]
) -> list[str]:
    """What is drawn, once each, with wildcards chosen; says what is to be known of it."""
    words = [concept.placeholder_token for concept in concepts]
    pairs, _ = generation.without_wildcards(
        prompts, chosen.drawn_seeds, folder=chosen.wildcard_dir, words=words
    )
    said = list(dict.fromkeys(prompt for prompt, _ in pairs))
    plain = [p for p in said if words and not named(p, words)]
    if plain and len(plain) < len(said):
        options.say(f"{plain[0]!r} contains no loaded word; it is drawn as it is.")
    for left in emphasis.brackets_left(said, chosen.sampling.emphasis or "numbers"):
        options.say(
            f"Brackets without a number are plain text in {left!r}; with --emphasis a1111 they "
            "are weights."
        )
    return said
