"""``oneword edit``: change a picture with learned words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from oneword._files import check_writable
from oneword.cli import options, screen
from oneword.cli.arguments import EditArguments
from oneword.cli.words import on_base
from oneword.concepts.named import flat, read_words
from oneword.evaluation.features import load_judge
from oneword.generation import editing, from_config
from oneword.models.loading import load_backbone


def run(chosen: EditArguments, _words: Sequence[str]) -> int:
    """Edit, and say where the edits are."""
    check_writable(chosen.output_dir)
    words = read_words(chosen.concepts)
    concepts = flat(words)
    model = on_base(chosen.model, words)
    backbone = load_backbone(model)
    judge = None if chosen.keep is None else load_judge(chosen.judge, backbone)
    on_model = dataclasses.replace(chosen, model=model)
    with screen.warnings_said(), screen.counting("editing") as show:
        edits = from_config.edit(on_model, backbone, concepts, show)
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
        f"{len(files) - 1} edits in {chosen.output_dir}; next to the original: {files[-1]}."
    )
    return 0
