"""``oneword edit``: change a picture with learned words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from oneword._files import check_writable
from oneword.cli import options, reports, screen
from oneword.cli.arguments import EditArguments
from oneword.cli.words import flat, on_base, read_words
from oneword.evaluation.features import load_judge
from oneword.generation import editing
from oneword.models.loading import load_backbone


def run(chosen: EditArguments, _words: Sequence[str]) -> int:
    """Edit, and say where the edits are."""
    check_writable(chosen.output_dir)
    words = read_words(chosen.concepts)
    concepts = flat(words)
    model = on_base(chosen.model, words)
    backbone = load_backbone(model)
    picture, mask = editing.read_picture(
        chosen.picture, backbone, chosen.sampling, mask=chosen.mask
    )
    judge = None if chosen.keep is None else load_judge(chosen.judge, backbone)
    seeds = chosen.drawn_seeds
    with screen.warnings_said(), screen.counting("editing") as show:
        edits = editing.edit(
            backbone,
            picture,
            chosen.prompt,
            seeds if chosen.invert is None else seeds[:1],
            mask=mask,
            mask_growth=chosen.mask_growth,
            background=chosen.background,
            pixel_blending=chosen.pixel_blending,
            strength=chosen.strength,
            invert=chosen.invert,
            concepts=concepts,
            sampling=chosen.sampling,
            batch_size=chosen.batch_size,
            replace=chosen.replace,
            on_picture=show,
        )
    told = reports.told_how(edits.drawing, dataclasses.replace(chosen, model=model))
    edits = dataclasses.replace(edits, drawing=told)
    if judge is not None:
        edits = editing.ranked(edits, judge, concepts=concepts, keep=chosen.keep)
    files = editing.save_edits(edits, chosen.output_dir)
    found = [
        {"file": str(file)} | edits.drawing.metadata(i) | (
            {"score": edits.scores[i]} if edits.scores else {}
        )
        for i, file in enumerate(files[:-1])
    ]  # fmt: skip
    options.write_json(chosen.json, found)
    options.tell(
        f"{len(files) - 1} edits in {chosen.output_dir}, beside the picture in {files[-1]}."
    )
    return 0
