"""Sharing a word: a card in the Hub's format next to its file, and the upload of both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneword import catalog
from oneword._escaping import markdown, markdown_code, shell
from oneword._files import is_there, read_json, read_text, write_atomic
from oneword._typing import Pixels
from oneword._version import __version__
from oneword.concepts import formats, hub
from oneword.concepts.concept import Concept
from oneword.concepts.formats import names
from oneword.config.model import is_embedded
from oneword.errors import UserError
from oneword.images import labelled_sheet, save_png


CARD, PREVIEW, SCORES = "README.md", "preview.png", "scores.json"
_MARK = "<!-- written by oneword; a new `oneword concept card` writes over it -->"
_SETTINGS = (
    "initializer_token", "num_vectors", "learnable_property", "preset", "prompt_templates",
    "max_train_steps", "train_batch_size", "adam_weight_decay", "random_flip", "seed",
)  # fmt: skip


class SharingError(UserError):
    """A word cannot be shared in its present state."""


def write_card(
    path: Path | str,
    *,
    license: str = "unknown",
    preview: Pixels | None = None,
    prompts: Sequence[str] = (),
    scores: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``README.md``, and ``preview.png`` if there are pictures, next to a word's file.

    Args:
        path: The file, or its run folder.
        license: The Hub's name of a licence, such as "cc-by-4.0".
        preview: Pictures of the word, the same number for each prompt.
        prompts: The prompt of each row of the preview.
        scores: The content of ``oneword evaluate``'s ``scores.json``; ``None``: that of the file of
            this name next to the word's, if there is one.

    Returns:
        Path of the card.

    Raises:
        FormatError: the word has no file.
        SharingError: there is another README, or the licence or the scores cannot be used.
    """
    check_card(path, license)
    file = formats.read(path)
    folder = file.path.parent
    if scores is None and is_there(folder / SCORES):
        scores = read_scores(folder / SCORES)
    if preview is not None:
        count = len(preview) // max(1, len(prompts))
        groups = {p: preview[i * count : (i + 1) * count] for i, p in enumerate(prompts)}
        save_png(labelled_sheet(groups or {"": preview}), folder / PREVIEW)
    has_preview = preview is not None or (folder / PREVIEW).is_file()
    text = card_text(
        file.concepts, file.path.name, license=license, has_preview=has_preview, scores=scores
    )
    write_atomic(folder / CARD, text.encode())
    return folder / CARD


def check_card(path: Path | str, license: str) -> None:
    """Refuse a card that could not be written, before its preview is drawn.

    Args:
        path: The word's file, or its run folder.
        license: The Hub's name of a licence.

    Raises:
        FormatError: the word has no file.
        SharingError: there is another README, or the licence cannot be used.
    """
    folder = formats.read(path).path.parent
    if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", license):
        raise SharingError(
            "license must be the Hub's name of a licence, such as cc-by-4.0, "
            f"creativeml-openrail-m or other, got {license!r}."
        )
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Refuse a folder in which a card would overwrite somebody's README.

    Raises:
        SharingError: there is such a README.
    """
    card = folder / CARD
    if is_there(card) and not _is_card(card):
        raise SharingError(
            f"Cannot overwrite {card} because it is not a card by oneword; move the word to a "
            "folder of its own."
        )


def read_scores(path: Path) -> dict[str, Any]:
    """The scores that ``oneword evaluate`` wrote.

    Raises:
        SharingError: the file holds something else.
    """
    must = "The scores must be the scores.json that `oneword evaluate` writes"
    return read_json(path, _SCORES, must=must, error=SharingError)


def _is_card(path: Path) -> bool:
    """Whether a file is one of our cards: nothing else is overwritten."""
    must = "The card must be a readable text file"
    return _MARK in read_text(path, must=must, error=SharingError)


_NUMBER = (float, type(None))
_SCORES = {
    "scores": {str: {"image_similarity": _NUMBER, "text_similarity": _NUMBER}},
    "words?": {str: str},
}
"""Form of ``scores.json``, for the parts that a card prints."""


def card_text(
    concepts: Sequence[Concept],
    file_name: str,
    *,
    license: str,
    has_preview: bool,
    scores: Mapping[str, Any] | None,
) -> str:
    """The card: metadata as YAML, then text for people."""
    from huggingface_hub import ModelCardData

    first = concepts[0]
    base = first.provenance.get("base_model")
    family = catalog.FAMILIES.get(str(first.provenance.get("family")))
    on_hub = isinstance(base, str) and not is_embedded(base) and hub.is_repository(base)
    tokens = [concept.placeholder_token for concept in concepts]
    data = ModelCardData(
        license=license,
        base_model=base if on_hub else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[
            "textual_inversion", "text-to-image", "diffusers", "oneword",
            *([family.hub_tag] if family and family.hub_tag else []),
        ],
        instance_prompt=_prompt(first),
    )  # fmt: skip
    blocks = [
        f"---\n{data.to_yaml()}\n---\n{_MARK}",
        f"# {' and '.join(map(markdown_code, tokens))}",
        f"{'A word' if len(tokens) == 1 else 'Words'} learned by textual inversion ([Gal et al. "
        "2022](https://arxiv.org/abs/2208.01618)) for "
        f"{_model(base, on_hub) or 'a model that the file does not name'}: only embeddings were "
        "learned, the model itself is unchanged.",
    ]
    if has_preview:
        blocks.append(f"![Pictures drawn with the word; first seeds, not selected]({PREVIEW})")
    blocks.append("## Use")
    blocks.append(_usage(first, base if on_hub else None, file_name))
    blocks += _elsewhere(first)
    for concept in concepts:
        blocks += _learned(concept)
    if scores is not None:
        blocks += _score_table(scores)
    blocks += [
        "## Limits",
        "A word knows only what its few pictures show. It may also have learned their background "
        "or lighting. Relations between several things are its weak side. It works only on the "
        "model that it was learned on. Get permission from whoever owns the subject of the "
        "pictures before you use it.",
        f"Written by oneword {__version__}.",
    ]
    return "\n\n".join(blocks) + "\n"


def _prompt(concept: Concept) -> str:
    token = concept.placeholder_token
    style = concept.learnable_property == "style"
    return f"a painting in the style of {token}" if style else f"a photo of a {token}"


def _model(base: object, on_hub: bool) -> str:
    if on_hub:
        return f"[{base}](https://huggingface.co/{base})"
    return markdown(base) if isinstance(base, str) and base else ""


def _usage(concept: Concept, base: str | None, file_name: str) -> str:
    token, prompt = concept.placeholder_token, _prompt(concept)
    model = ["--model", base] if base else []
    command = ["oneword", "generate", *model, "--concepts", "OWNER/NAME", "--prompts", prompt]
    lines = ["With oneword, from this repository:", "", f"    {shell(command)}"]
    if base and len(concept.rows) == 1 and token == token.lower():
        lines += [
            "", "With diffusers:", "",
            "    from diffusers import DiffusionPipeline", "",
            f"    pipeline = DiffusionPipeline.from_pretrained({base!r})",
            f"    pipeline.load_textual_inversion('OWNER/NAME', weight_name={file_name!r})",
            f"    pipeline({prompt!r}).images[0]",
        ]  # fmt: skip
    return "\n".join(lines)


def _elsewhere(concept: Concept) -> list[str]:
    """What to type in other tools that can hold the word."""
    lines = []
    for layout, tool in formats.TOOLS.items():
        path = Path(f"my-word{formats.WRITERS[layout][0]}")
        try:
            formats.files_of(concept, path, layout)
        except formats.FormatError:
            continue
        text = markdown_code(formats.to_type(concept, path, layout))
        lines.append(f"| {tool} | `{layout}` | {text} |")
    if not lines:
        return []
    return [
        "For other tools, first convert the file: `oneword concept convert OWNER/NAME --to ...`. "
        "If that file is called `my-word`, type:",
        "| tool | `--to` | in the prompt |\n|---|---|---|\n" + "\n".join(lines),
    ]


def _learned(concept: Concept) -> list[str]:
    facts = concept.provenance
    found = facts.get("config")
    config = found if isinstance(found, dict) else {}
    rows = {name: config.get(name) for name in _SETTINGS if config.get(name) is not None}
    rates = facts.get("learning_rate")
    for encoder, rate in rates.items() if isinstance(rates, dict) else ():
        absolute = rate.get("absolute") if isinstance(rate, dict) else None
        if isinstance(absolute, int | float):
            rows[f"learning rate, {encoder}"] = f"{absolute:.4g}"
    for name, key in (
        ("steps of the kept embeddings", "steps"),
        ("training time, s", "train_time_s"),
    ):
        if facts.get(key) is not None:
            rows[name] = facts[key]
    encoder = facts.get("encoder")
    if isinstance(encoder, dict):
        digest = str(encoder.get("sha256"))[:12]
        rows["starts from"] = f"an encoder of {encoder.get('model')}, SHA-256 {digest}..."
    rows["text encoders"] = ", ".join(
        f"{name} ({len(r)} x {r.shape[1]})" for name, r in sorted(concept.rows.items())
    )
    encoders = {name: r.shape[1] for name, r in concept.rows.items()}
    if facts.get("family") != "microworld":
        rows["fits"] = names.family_of(encoders)
    rows["SHA-256 of the embeddings"] = concept.sha256()
    table = "\n".join(f"| {markdown(name)} | {markdown(value)} |" for name, value in rows.items())
    return [
        f"## How {markdown_code(concept.placeholder_token)} was learned",
        f"| setting | value |\n|---|---|\n{table}",
    ]


def _score_table(scores: Mapping[str, Any]) -> list[str]:
    words = scores.get("words", {})

    def cell(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, int | float) else "–"

    lines = [
        f"| {markdown(method)}{f': {markdown_code(words[method])}' if method in words else ''} "
        f"| {cell(numbers['image_similarity'])} | {cell(numbers['text_similarity'])} |"
        for method, numbers in scores["scores"].items()
    ]
    head = "| | image similarity | text similarity |\n|---|---|---|\n"
    return [
        "## Scores",
        f"Cosines by {markdown(scores.get('judge', 'a CLIP'))}, "
        f"{markdown(scores.get('num_images_per_prompt', 'some'))} pictures per prompt "
        "(`oneword evaluate`).",
        head + "\n".join(lines),
    ]


def push_concept(
    path: Path | str,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a word's file with its card and preview.

    Args:
        path: The file, or its run folder, with its card next to it.
        repository: ``OWNER/NAME``, or ``NAME`` for one of your own; it is created if it does not
            exist.
        private: Make a new repository private.
        token: A token with write access; default: that of ``hf auth login`` or ``HF_TOKEN``.
        message: The commit message; the default names the word.

    Returns:
        The repository's address.

    Raises:
        FormatError: the word has no file.
        SharingError: it has no card.
        HubError: the Hub does not accept it.
    """
    file = formats.read(path)
    folder = file.path.parent
    card = folder / CARD
    if not is_there(card) or not _is_card(card):
        raise SharingError(
            f"Cannot share a word without a card; write {card} with `oneword concept card {path} "
            "--license ...`, and check it."
        )
    repository = hub.full_name(repository, token=token)
    text = read_text(card)
    # Hub users load the file by this name by default, and the card uses it, too.
    ending = file.path.suffix.lower()
    name = hub.LEARNED if ending == ".safetensors" else f"learned_embeds{ending}"
    told = text.replace("OWNER/NAME", repository).replace(repr(file.path.name), repr(name))
    files: list[tuple[Path | bytes, str]] = [(file.path, name), (told.encode(), CARD)]
    if (folder / PREVIEW).is_file():
        files.append((folder / PREVIEW, PREVIEW))
    words = ", ".join(concept.placeholder_token for concept in file.concepts)
    return hub.upload(
        files, repository, message=message or f"Add {words}", private=private, token=token
    )
