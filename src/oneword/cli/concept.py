"""``oneword concept``: look into files of learned words, convert, merge and mix them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from oneword.cli import options, progress, reports
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError
from oneword.models import loading


if TYPE_CHECKING:
    from oneword.concepts.concept import Concept

Layout = Literal["oneword", "diffusers", "kohya", "a1111", "authors"]


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Say what files hold: word, layout, rows, norms, nearest words, how they were learned."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    nearest: int = 0
    """Existing words nearest to each row to list, which loads the model; 0: none."""
    compare: bool = False
    """Load the model to compare norms and to find rows that were never trained."""
    model: ModelConfig = field(default_factory=ModelConfig)
    json: Path | None = None
    """File for the facts."""


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Write each word of some files in another tool's layout, one file a word."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    to: Layout
    """Layout: "oneword", "diffusers" (a pair for two text encoders), "kohya" (ComfyUI, Forge, SD.Next, A1111 for XL), "a1111" (.pt), "authors" (the paper's .pt)."""
    output_dir: Path = Path("oneword-concepts")
    """Folder for the files, which are named after the words; nothing is overwritten."""


@dataclass(frozen=True, kw_only=True)
class ExtractArguments:
    """Write each word of a file (a LoRA that bundles embeddings, a merged file) on its own."""

    files: tuple[Path, ...]
    """Files that hold embeddings, among other things or several at once."""
    to: Layout = "oneword"
    """Layout of the files, as for convert."""
    output_dir: Path = Path("oneword-concepts")
    """Folder for the files; nothing is overwritten."""


@dataclass(frozen=True, kw_only=True)
class MergeArguments:
    """Put the words of many files into one; a word that is taken gets a number."""

    files: tuple[Path, ...]
    """Embedding files of any tool, or run folders."""
    output: Path
    """New file; it must not exist yet."""
    to: Literal["oneword", "diffusers", "authors"] = "oneword"
    """Layout; these hold several words."""


@dataclass(frozen=True, kw_only=True)
class RenameArguments:
    """Give the word of a file another name."""

    files: tuple[Path, ...]
    """One embedding file."""
    placeholder_token: str
    """The new name, without spaces."""
    output: Path
    """New file; it must not exist yet."""
    to: Layout = "oneword"
    """Layout of the new file."""


@dataclass(frozen=True, kw_only=True)
class CombineArguments:
    """Mix words into a new one: the weighted average of their vectors, or all vectors in a row."""

    files: tuple[Path, ...]
    """Two or more embedding files of the same model."""
    placeholder_token: str
    """The new word."""
    output: Path
    """New file; it must not exist yet."""
    weights: tuple[float, ...] = ()
    """One for each file; they are divided by their sum. None: equal."""
    concatenate: bool = False
    """Keep every vector, one after the other, in place of averaging."""
    to: Layout = "oneword"
    """Layout of the new file."""


@dataclass(frozen=True, kw_only=True)
class CardArguments:
    """Write a card in the Hub's format, and a preview, beside a word's file."""

    files: tuple[Path, ...]
    """One embedding file, or run folder."""
    license: str = "unknown"
    """The Hub's name of the word's licence, such as cc-by-4.0."""
    preview: bool = True
    """Draw a preview, which loads the model."""
    prompts: tuple[str, ...] = ()
    """Prompts of the preview, "{}" for the word; none: its family's edit prompts."""
    num_images_per_prompt: int = 4
    """Pictures of each prompt."""
    seed: int = 0
    """First seed."""
    scores: Path | None = None
    """The scores.json of oneword evaluate; unset: the one beside the file, where there is one."""
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, kw_only=True)
class PushArguments:
    """Upload a word with its card to the Hub: concept push FILE OWNER/NAME."""

    files: tuple[Path, ...]
    """One embedding file or run folder with its card beside it, and the repository's name."""
    private: bool = False
    """Make a new repository private."""
    token: str | None = None
    """Token that may write; unset: that of hf auth login or HF_TOKEN."""
    message: str | None = None
    """Message of the commit."""


def run(arguments: Sequence[str]) -> int:
    """Run the sub-verb."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: oneword concept VERB FILE [FILE ...] [options]\n")
        for name, (kind, _) in _VERBS.items():
            print(f"  {name:<8} {(kind.__doc__ or '').strip()}")
        print("\n`oneword concept VERB --help` lists a verb's options.")
        return 0 if arguments else 2
    verb, words = arguments[0], list(arguments[1:])
    if verb not in _VERBS:
        raise ConfigError(f"The sub-verb must be one of {', '.join(_VERBS)}, got {verb}.")
    kind, do = _VERBS[verb]
    files = []
    while words and not words[0].startswith("-"):
        files.append(words.pop(0))
    given = ["--files", *files] if files else []
    chosen, _ = options.parse(kind, f"concept {verb}", given + words)
    if not chosen.files:
        raise ConfigError(f"concept {verb} must be given a file, got none.")
    do(chosen)
    return 0


def _inspect(chosen: InspectArguments) -> None:
    from rich.console import Console

    from oneword.concepts import formats, inspection

    vocabularies = None
    if chosen.nearest or chosen.compare:
        vocabularies = loading.load_backbone(chosen.model).vocabularies
    console = Console()
    found = []
    for path in chosen.files:
        file = formats.read(path)
        for concept in file.concepts:
            facts = inspection.facts(file, concept, vocabularies, nearest=chosen.nearest)
            found.append(facts)
            console.print(f"[bold]{path}[/bold]", highlight=False)
            for name, value in facts.items():
                if name not in ("file", "warnings"):
                    console.print(f"  {name}: {value}", highlight=False, markup=False)
            for warning in facts["warnings"]:
                console.print(f"  warning: {warning}", style="yellow", highlight=False)
    if chosen.json is not None:
        from oneword._files import write_json_atomic

        write_json_atomic(chosen.json, found)


def _convert(chosen: ConvertArguments | ExtractArguments) -> None:
    from oneword.concepts import formats

    ending = formats.WRITERS[chosen.to][0]
    taken: set[Path] = set()
    todo: list[tuple[Concept, Path]] = []
    for path in chosen.files:
        for concept in _read(path):
            target = chosen.output_dir / (_file_name(concept.placeholder_token) + ending)
            count = 2
            while target in taken:
                target = target.with_name(
                    f"{_file_name(concept.placeholder_token)}-{count}{ending}"
                )
                count += 1
            taken.add(target)
            todo.append((concept, target))
    for _, target in todo:
        _must_be_new(target)
    for concept, target in todo:
        _write([concept], target, chosen.to)


def _merge(chosen: MergeArguments) -> None:
    from oneword.concepts.mixing import distinct

    _must_be_new(chosen.output)
    concepts = [concept for path in chosen.files for concept in _read(path)]
    found, renamed = distinct(concepts)
    for index, token in renamed.items():
        print(f"{concepts[index].placeholder_token!r} was taken; it is {token!r} in the new file.")
    _write(found, chosen.output, chosen.to)


def _rename(chosen: RenameArguments) -> None:
    _must_be_new(chosen.output)
    _write([_only(chosen.files).named(_word(chosen.placeholder_token))], chosen.output, chosen.to)


def _combine(chosen: CombineArguments) -> None:
    from oneword.concepts.mixing import average, concatenated

    _must_be_new(chosen.output)
    if chosen.concatenate and chosen.weights:
        raise ConfigError("Weights go with the average, got them with --concatenate; drop one.")
    concepts = [concept for path in chosen.files for concept in _read(path)]
    token = _word(chosen.placeholder_token)
    if chosen.concatenate:
        mixed = concatenated(concepts, token)
    else:
        mixed = average(concepts, token, chosen.weights or None)
    _write([mixed], chosen.output, chosen.to)


def _card(chosen: CardArguments) -> None:
    import dataclasses

    from oneword.concepts import card
    from oneword.prompts import EDIT_PROMPTS, PHOTO_PROMPTS, expanded, of_family

    if len(chosen.files) != 1:
        raise ConfigError(f"A card is written for one file, got {len(chosen.files)}.")
    (path,) = chosen.files
    concepts = _read(path)
    scores = None if chosen.scores is None else card.read_scores(chosen.scores)
    pixels, prompts = None, ()
    if chosen.preview:
        from oneword.generation import generate as generation
        from oneword.models.loading import load_backbone

        model = chosen.model
        base = concepts[0].provenance.get("base_model")
        if model.model == ModelConfig().model and isinstance(base, str):
            model = dataclasses.replace(model, model=base)
        backbone = load_backbone(model)
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
        with progress.counting("drawing the preview") as show:
            pixels = generation.generate(
                backbone,
                prompts,
                range(chosen.seed, chosen.seed + chosen.num_images_per_prompt),
                concepts=concepts,
                sampling=chosen.sampling,
                on_picture=show,
            ).pixels
    card = card.write_card(
        path, license=chosen.license, preview=pixels, prompts=prompts, scores=scores
    )
    print(f"Card: {card}. Read it over, then upload it:")
    print(f"  {reports.command('concept push', path, 'OWNER/NAME')}")


def _push(chosen: PushArguments) -> None:
    from oneword.concepts import card

    if len(chosen.files) != 2:
        raise ConfigError(
            "A word is uploaded by its file and the name of its repository (concept push FILE "
            f"OWNER/NAME), got {len(chosen.files)} of these two."
        )
    path, repository = chosen.files
    address = card.push_concept(
        path,
        repository.as_posix(),
        private=chosen.private,
        token=chosen.token,
        message=chosen.message,
    )
    print(f"Uploaded to {address}. Anyone may draw with it:")
    prompt = "a photo of a " + _read(path)[0].placeholder_token
    print(
        f"  {reports.command('generate', '--concepts', repository.as_posix(), '--prompts', prompt)}"
    )


def _read(path: Path) -> list[Concept]:
    from oneword.concepts import formats

    file = formats.read(path)
    for note in file.notes:
        options.say(f"{path}: {note}")
    return file.concepts


def _only(files: Sequence[Path]) -> Concept:
    concepts = [concept for path in files for concept in _read(path)]
    if len(concepts) != 1:
        raise ConfigError(
            f"There must be one word to rename, got {len(concepts)}; extract them first."
        )
    return concepts[0]


def _word(token: str) -> str:
    if not token or any(c.isspace() for c in token):
        raise ConfigError(f"The new word must be non-empty and without spaces, got {token!r}.")
    return token


def _file_name(token: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in token).strip("-")
    return kept or "word"


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"The new file must not exist yet, got {path}; nothing was overwritten.")


def _write(concepts: Sequence[Concept], path: Path, layout: Layout) -> None:
    from oneword.concepts import formats

    for file in formats.save_concept(concepts, path, layout):
        print(f"{', '.join(repr(c.placeholder_token) for c in concepts)} in {file}")


_VERBS: dict[str, tuple[type[Any], Callable[[Any], None]]] = {
    "inspect": (InspectArguments, _inspect),
    "convert": (ConvertArguments, _convert),
    "merge": (MergeArguments, _merge),
    "rename": (RenameArguments, _rename),
    "extract": (ExtractArguments, _convert),
    "combine": (CombineArguments, _combine),
    "card": (CardArguments, _card),
    "push": (PushArguments, _push),
}
