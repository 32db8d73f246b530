"""``oneword pictures``: captions and masks for a folder, by models that the user names."""

from __future__ import annotations

from collections.abc import Sequence

from oneword._files import check_writable
from oneword.cli import options, screen
from oneword.cli.arguments import AnnotateArguments
from oneword.images import picture_files
from oneword.models.annotators import Captioner, Marker
from oneword.runs.annotate import annotate


def run(chosen: AnnotateArguments, _words: Sequence[str]) -> int:
    """Write captions, masks and a sheet of them."""
    picture_files(chosen.folder)  # before a model is loaded
    check_writable(chosen.output_dir or chosen.folder)
    caption = mark = None
    noun = chosen.initializer_token
    if chosen.caption_with is not None:
        caption = Captioner(chosen.caption_with, device=chosen.device, prompt=chosen.caption_prompt)
    if chosen.mask_with is not None:
        labels = chosen.mask_labels or ((noun,) if noun else ())
        mark = Marker(chosen.mask_with, labels, device=chosen.device)
    with screen.display() as shown:
        found = annotate(
            chosen.folder,
            caption=caption,
            mark=mark,
            placeholder_token=chosen.placeholder_token,
            noun=noun,
            output_dir=chosen.output_dir,
            overwrite=chosen.overwrite,
            on_picture=shown.counting("pictures"),
        )
    for item in found.skipped:
        options.say(f"skipped {item}")
    for item in found.kept:
        options.say(f"{item} exists and was kept (--overwrite replaces it)")
    for name in found.unmarked:
        options.say(f"found nothing to mask in {name}; paint its mask by hand")
    options.tell(f"Wrote {len(found.written)} files. Check {found.sheet} and correct them.")
    return 0
