"""``oneword concept``: look into files of learned words, convert, merge and mix them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oneword._escaping import rich, terminal
from oneword._files import hold, is_there, write_together
from oneword.cli import options, reports, screen
from oneword.cli.arguments import (
    CombineArguments,
    ConceptCardArguments,
    ConvertArguments,
    ExtractArguments,
    InspectArguments,
    Layout,
    MergeArguments,
    PushArguments,
    RenameArguments,
)
from oneword.cli.screen import Console
from oneword.cli.words import on_base
from oneword.concepts import card, formats, inspection, previews
from oneword.concepts.concept import Concept
from oneword.concepts.formats.names import file_name
from oneword.concepts.mixing import average, concatenated, distinct
from oneword.config.checks import check_placeholder
from oneword.config.commands import command
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError
from oneword.generation import generate as generation
from oneword.models.loading import load_backbone
from oneword.prompts import EDIT_PROMPTS, PHOTO_PROMPTS, expanded, of_family
from oneword.runs.folder import RunError, RunFolder


def run(chosen: Any, words: Sequence[str]) -> int:
    """Run the sub-verb whose arguments these are."""
    if not chosen.files:
        raise ConfigError(f"Cannot run concept {words[0]} without a file; pass one.")
    _FOLLOW[type(chosen)](chosen)
    return 0


def _inspect(chosen: InspectArguments) -> None:
    vocabularies = None
    if chosen.nearest or chosen.compare:
        words = {path: formats.read(path).concepts for path in chosen.files}
        vocabularies = load_backbone(on_base(chosen.model, words)).vocabularies
    console = Console()
    found = []
    for path in chosen.files:
        file = formats.read(path)
        for concept in file.concepts:
            facts = inspection.facts(file, concept, vocabularies, nearest=chosen.nearest)
            try:
                facts |= _course(file)
            except RunError as problem:  # another tool's file of that name
                facts["warnings"].append(str(problem))
            found.append(facts)
            console.print(f"[bold]{rich(path)}[/bold]", highlight=False)
            for name, value in facts.items():
                if name == _COURSE:
                    for line in _drawn(value):
                        console.print(line, highlight=False, markup=False)
                elif name not in ("file", "warnings"):
                    console.print(f"  {name}: {value}", highlight=False, markup=False)
            for warning in facts["warnings"]:
                console.print(f"  warning: {rich(warning)}", style="yellow", highlight=False)
    options.write_json(chosen.json, found)


_COURSE = "word_distance_over_training"
_LINES, _WIDTH = 12, 30  # of a curve in the terminal


def _course(file: formats.EmbeddingFile) -> dict[str, Any]:
    """Of the one word of a run folder: (step, distance to the nearest words) at each scoring."""
    if file.path.name != formats.LEARNED or len(file.concepts) > 1:
        return {}
    course = RunFolder(file.path.parent, steps=1).course()
    found = [[m["step"], m["word_distance"]] for m in course if "word_distance" in m]
    return {_COURSE: found} if found else {}


def _drawn(course: Sequence[Sequence[float]]) -> list[str]:
    """A curve as lines with bars, from the first scoring to the last."""
    last = len(course) - 1
    places = sorted({round(i * last / (_LINES - 1)) for i in range(_LINES)})
    longest = max(value for _, value in course) or 1.0
    lines = ["  distance to the nearest words, in median lengths of the vocabulary's rows:"]
    for step, value in (course[place] for place in places):
        lines.append(f"    step {step:6d}  {value:7.3f}  {'#' * round(_WIDTH * value / longest)}")
    return lines


def _convert(chosen: ConvertArguments | ExtractArguments) -> None:
    ending = formats.WRITERS[chosen.to][0]
    todo: list[_File] = []
    taken: set[Path] = set()
    refused = []
    for path in chosen.files:
        concepts = _read(path)
        for concept in concepts:
            stem = file_name(concept.placeholder_token)
            target, count = chosen.output_dir / (stem + ending), 2
            try:
                files = formats.files_of(concept, target, chosen.to)
                while taken & files.keys():
                    target, count = target.with_name(f"{stem}-{count}{ending}"), count + 1
                    files = formats.files_of(concept, target, chosen.to)
            except formats.FormatError as error:
                refused.append(str(error))
                continue
            taken |= files.keys()
            # one of several words has no preview of its own
            shown = _preview(path) if len(concepts) == 1 else None
            todo.append(([concept], target, files, shown))
    _write(todo, chosen.to)
    if refused:
        raise ConfigError("\n".join(refused))


def _merge(chosen: MergeArguments) -> None:
    concepts = [concept for path in chosen.files for concept in _read(path)]
    found, renamed = distinct(concepts)
    for index, token in renamed.items():
        print(f"{concepts[index].placeholder_token!r} was taken; in the new file it is {token!r}.")
    _write_one(found, chosen.output, chosen.to)


def _rename(chosen: RenameArguments) -> None:
    word = _only(chosen.files).named(_word(chosen.placeholder_token))
    _write_one([word], chosen.output, chosen.to, _preview(chosen.files[0]))


def _combine(chosen: CombineArguments) -> None:
    if chosen.concatenate and chosen.weights:
        raise ConfigError(
            "Cannot use weights with --concatenate because they belong to the average; leave one "
            "of them out."
        )
    concepts = [concept for path in chosen.files for concept in _read(path)]
    token = _word(chosen.placeholder_token)
    if chosen.concatenate:
        mixed = concatenated(concepts, token)
    else:
        mixed = average(concepts, token, chosen.weights or None)
    _write_one([mixed], chosen.output, chosen.to)


def _card(chosen: ConceptCardArguments) -> None:
    if len(chosen.files) != 1:
        raise ConfigError(f"concept card must get one file, got {len(chosen.files)}.")
    (path,) = chosen.files
    concepts = _read(path)
    card.check_card(path, chosen.license)
    scores = None if chosen.scores is None else card.read_scores(chosen.scores)
    pixels, prompts = None, ()
    if chosen.preview:
        backbone = load_backbone(on_base(chosen.model, {path: concepts}))
        kinds = dict.fromkeys(c.learnable_property for c in concepts)
        templates = chosen.prompts or tuple(
            template
            for kind in kinds
            for template in (
                of_family(PHOTO_PROMPTS, backbone.family, kind),
                *of_family(EDIT_PROMPTS, backbone.family, kind),
            )
        )
        prompts = expanded(templates, {c.placeholder_token: c.learnable_property for c in concepts})
        with screen.warnings_said(), screen.counting("drawing the preview") as show:
            pixels = generation.generate(
                backbone,
                prompts,
                range(chosen.seed, chosen.seed + chosen.num_images_per_prompt),
                concepts=concepts,
                sampling=chosen.sampling,
                on_picture=show,
            ).pixels
    with hold(formats.read(path).path.parent, wait_s=_WAIT_S):
        file = card.write_card(
            path, license=chosen.license, preview=pixels, prompts=prompts, scores=scores
        )
    print(f"Card: {file}. Check it, then upload it:")
    print(f"  {command('concept push', path, 'OWNER/NAME')}")


def _push(chosen: PushArguments) -> None:
    if len(chosen.files) != 2:
        raise ConfigError(
            "concept push must get a file and a repository name (concept push FILE OWNER/NAME), "
            f"got {len(chosen.files)} arguments."
        )
    path, repository = chosen.files
    address = card.push_concept(
        path,
        repository.as_posix(),
        private=chosen.private,
        token=chosen.token,
        message=chosen.message,
    )
    print(f"Uploaded to {address}. Anyone can draw with it:")
    concept = _read(path)[0]
    model = concept.provenance.get("base_model")
    model = model if isinstance(model, str) else ModelConfig().model
    prompt = f"a photo of a {concept.placeholder_token}"
    name = "/".join(address.rsplit("/", 2)[-2:])  # it may have been named without its owner
    print(terminal(f"  {reports.drawing(model, name, prompt)}"))


def _read(path: Path) -> list[Concept]:
    file = formats.read(path)
    for note in file.notes:
        options.say(f"{path}: {note}")
    return file.concepts


def _only(files: Sequence[Path]) -> Concept:
    concepts = [concept for path in files for concept in _read(path)]
    if len(concepts) != 1:
        raise ConfigError(
            f"Cannot rename a file with {len(concepts)} words because it must have one; extract "
            "them first."
        )
    return concepts[0]


def _word(token: str) -> str:
    check_placeholder(token, "The new word")
    return token


_WAIT_S = 30.0  # for another command that writes into the same folder
_File = tuple[Sequence[Concept], Path, dict[Path, bytes], bytes | None]
"""Concepts, the file that they go to, what it and those beside it hold, and the word's preview."""


def _preview(path: Path) -> bytes | None:
    return previews.kept(formats.read(path).path)


def _write_one(
    concepts: Sequence[Concept], path: Path, layout: Layout, preview: bytes | None = None
) -> None:
    _write([(concepts, path, formats.files_of(concepts, path, layout), preview)], layout)


def _write(todo: Sequence[_File], layout: Layout) -> None:
    """Write new files, all or none; a second command that would write there waits until then.

    Of a command that was killed while they moved to their places, some are there already: where
    these hold the same, the others are written.
    """
    files = {path: data for _, _, own, _ in todo for path, data in own.items()}
    with contextlib.ExitStack() as held:
        for folder in sorted({path.parent for path in files}):
            held.enter_context(hold(folder, wait_s=_WAIT_S))
        there = [path for path in sorted(files) if is_there(path)]
        if there and (len(there) == len(files) or not _hold_the_same(there, files)):
            raise ConfigError(
                f"The new file must not exist yet, got {there[0]}; nothing was overwritten."
            )
        shown = {previews.beside(path): data for _, path, _, data in todo if data is not None}
        new = {path: data for path, data in files.items() if path not in there}
        write_together(new | {p: data for p, data in shown.items() if not is_there(p)})
    for concepts, path, own, _ in todo:
        for file in own:
            print(terminal(f"{', '.join(repr(c.placeholder_token) for c in concepts)} in {file}"))
        if layout != "oneword" and len(concepts) == 1:
            text = formats.to_type(concepts[0], path, layout)
            print(terminal(f"  in {formats.TOOLS[layout]}, type {text}"))


def _hold_the_same(there: Sequence[Path], files: Mapping[Path, bytes]) -> bool:
    """Whether files hold what would be written; the bytes of one layout may differ each time."""
    with tempfile.TemporaryDirectory() as place:
        for number, path in enumerate(there):
            ours = Path(place, f"{number}{path.suffix}")
            ours.write_bytes(files[path])
            if not formats.same(ours, path):
                return False
    return True


_FOLLOW: dict[type[Any], Callable[[Any], None]] = {
    InspectArguments: _inspect,
    ConvertArguments: _convert,
    MergeArguments: _merge,
    RenameArguments: _rename,
    ExtractArguments: _convert,
    CombineArguments: _combine,
    ConceptCardArguments: _card,
    PushArguments: _push,
}
