"""``oneword choose``: one of the words that a run has saved on its way becomes the run's word."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from oneword._typing import Pixels
from oneword.cli import options, screen
from oneword.cli.arguments import ChooseArguments
from oneword.cli.words import on_base
from oneword.config.checks import seeds_of
from oneword.config.commands import command
from oneword.config.scoring import ChooseConfig
from oneword.evaluation import choosing, steps
from oneword.evaluation.features import load_judge
from oneword.images import read_folder, to_images
from oneword.models import samplers
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work
from oneword.prompts import expanded
from oneword.runs import sheets
from oneword.runs.folder import pictures_of
from oneword.runs.words import By, Saved, choose_word, read_saved, said_of


def run(chosen: ChooseArguments, words: Sequence[str]) -> int:  # noqa: ARG001  (of every verb)
    """Choose, or draw and list what there is to choose from."""
    config = options.settings(ChooseConfig, chosen)
    if config.by == "training":
        file = choose_word(config.run, None)
        options.tell(f"The run's word is again the one that training kept: {file}.")
        return 0
    saved = read_saved(config.run)
    if config.step is not None:
        _choose(saved, config.step, "eye", None)
        options.write_json(chosen.json, _listed(saved, {}))
        return 0
    if config.by == "loss":
        step = saved.best_by_loss()
        _tell_words(saved, {})
        unscored = len(saved.words) - len(saved.losses)
        if unscored:
            options.say(f"{unscored} of {len(saved.words)} words were not evaluated in training.")
        _choose(saved, step, "loss", saved.losses[step])
        options.write_json(chosen.json, _listed(saved, {}))
        return 0
    scores = _draw(config, saved)
    _tell_words(saved, scores)
    options.tell(f"Sheet: {config.run / sheets.STEPS}")
    if scores:
        step = max(scores, key=lambda step: (scores[step], -step))
        _choose(saved, step, "clip", scores[step])
    else:
        options.tell(_word_of(saved))
        options.tell("Choose one by step or by score:")
        last = max(saved.words)
        for how in (("--step", last), ("--by", "loss"), ("--by", "clip")):
            options.tell(f"  {command('choose', config.run, *how)}")
    options.write_json(chosen.json, _listed(saved, scores))
    return 0


def _choose(saved: Saved, step: int, by: By, score: float | None) -> None:
    file = choose_word(saved.folder.path, step, by=by, score=score)
    options.tell(f"The run's word is now that of step {step}: {file}.")
    if saved.folder.trained.is_file():
        options.tell("To go back to the word that training kept:")
        options.tell(f"  {command('choose', saved.folder.path, '--by', 'training')}")


def _draw(config: ChooseConfig, saved: Saved) -> dict[int, float]:
    """Draw what every word draws onto one sheet; their scores, where a judge is to choose."""
    samplers.check_names(config.sampling.sampler)
    words = {saved.folder.word(step): [word] for step, word in saved.words.items()}
    kinds = {saved.token: next(iter(saved.words.values())).learnable_property}
    prompts = expanded(config.prompts or saved.prompts, kinds)
    seeds = seeds_of(config.seeds) or saved.seeds
    asked = config.sampling
    sampling = dataclasses.replace(  # as the previews, where nothing else is asked for
        asked,
        negative_prompt=asked.negative_prompt or saved.config.get("validation_negative_prompt", ""),
        height=asked.height or saved.config.get("validation_height"),
        width=asked.width or saved.config.get("validation_width"),
    )
    model = on_base(config.model, words, say=False)
    backbone = load_backbone(model, Work(2 * config.batch_size, sampling.width, trains=False))
    references: dict[str, Pixels] = {}
    judge = None
    if config.by == "clip":
        folder = pictures_of(config.run)
        if folder is not None:
            references = {saved.token: read_folder(folder, resolution=backbone.resolution).pixels}
        choosing.check_references(prompts, references, config.rank_by)
        judge = load_judge(config.judge, backbone)
    with screen.warnings_said(), screen.counting("drawing") as show:
        compared = steps.compare(
            backbone,
            saved.words,
            prompts,
            seeds,
            sampling=sampling,
            batch_size=config.batch_size,
            replace=saved.config["replace"],
            on_picture=show,
        )
    scores: dict[int, float] = {}
    if judge is not None:
        scores = steps.scores(compared, judge, rank_by=config.rank_by, references=references)
    columns = [] if compared.initializer is None else [(sheets.INITIALIZER, compared.initializer)]
    for step, drawing in compared.steps.items():
        label = f"step {step}" + (f": {scores[step]:.3f}" if scores else "")
        columns.append((label, drawing))
    images = [(label, to_images(drawing.pixels)) for label, drawing in columns]
    sheets.save_steps(images, prompts, seeds, config.run / sheets.STEPS)
    return scores


def _word_of(saved: Saved) -> str:
    """Which word is the run's, in a sentence."""
    if saved.choice is not None:
        return f"The run's word is {said_of(saved.choice)}."
    keep = saved.config["inversion"]["keep"]
    if saved.folder.learned.is_file():
        return f"The run's word is the one that training kept (--keep {keep})."
    return "The run has no word yet because its training has not finished."


def _tell_words(saved: Saved, scores: Mapping[int, float]) -> None:
    """List the words, a line each."""
    for one in _listed(saved, scores):
        numbers = [
            f"{name} {one[name]:.5g}" if one[name] is not None else f"{name} unknown"
            for name in ("loss", *(["clip"] if scores else []))
        ]
        options.tell("  ".join([f"step {one['step']:>6}", *numbers, one["file"]]))


def _listed(saved: Saved, scores: Mapping[int, float]) -> list[dict[str, Any]]:
    """The words with what is known of each."""
    return [
        {
            "step": step,
            "file": str(saved.folder.word(step)),
            "loss": saved.losses.get(step),
            "clip": scores.get(step),
        }
        for step in saved.words
    ]
