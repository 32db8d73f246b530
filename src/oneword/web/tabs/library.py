"""The library: words as cards, taken in from any tool's file and taken away for any tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from oneword._files import read_text, write_together
from oneword.concepts import card, formats
from oneword.concepts.formats.names import file_name
from oneword.concepts.library import Entry
from oneword.config.commands import command
from oneword.errors import UserError
from oneword.web.page import (
    AT_ONCE,
    REFUSALS,
    Page,
    Shown,
    Watch,
    changed,
    command_box,
    name_field,
    saying,
    status,
)
from oneword.web.workspace import WorkspaceError


def build(page: Page) -> Watch:
    """Put the tab's controls and what they do into the page."""
    library = page.library
    with gr.Row():
        search = gr.Textbox(value="", label="Search", elem_id="library-search", scale=3)
        refresh = gr.Button("Refresh", min_width=100, scale=1)
    cards = gr.Gallery(
        fit_columns=False,
        label="Words", columns=5, height=260, object_fit="contain", interactive=False,
        allow_preview=False,
        elem_id="library-cards",
    )  # fmt: skip
    listed = gr.State([])
    with gr.Row():
        with gr.Column(min_width=320):
            name = gr.Dropdown(
                [], label="Word", elem_id="library-name", interactive=True, allow_custom_value=True
            )
            facts = gr.JSON(label="Contents", elem_id="library-facts")
            with gr.Row():
                token = gr.Textbox(value="", label="New name", min_width=160)
                rename = gr.Button("Rename", min_width=90)
            with gr.Row():
                delete = gr.Button("Delete", variant="stop", min_width=90, elem_id="library-delete")
                undo = gr.Button("Undo last delete", min_width=140, elem_id="library-undo")
            with gr.Row():
                others = gr.Dropdown(
                    [], label="Merge with", multiselect=True, min_width=160, interactive=True,
                    elem_id="library-others", allow_custom_value=True,
                )  # fmt: skip
                merge = gr.Button("Merge", min_width=90, elem_id="library-merge")
            with gr.Accordion("Card and Hub", open=False):
                license_ = gr.Textbox(
                    value="unknown", label="Licence, as named on the Hub, such as cc-by-4.0"
                )
                write = gr.Button("Write the card", elem_id="library-card")
                text = gr.Code(label="Card", language="markdown", interactive=False, lines=8)
                repository = gr.Textbox(value="", label="Repository (OWNER/NAME)")
                secret = gr.Textbox(
                    value="", label="Token (empty: that of `hf auth login`)", type="password"
                )
                push = gr.Button("Upload", elem_id="library-push")
        with gr.Column(min_width=320):
            layout = gr.Radio(
                [("oneword", "oneword"), *((tool, own) for own, tool in formats.TOOLS.items())],
                label="Export for",
                value="oneword",
                elem_id="library-layout",
            )
            away = gr.Button("Export", elem_id="library-away")
            files = gr.File(label="Exported files", interactive=False, elem_id="library-files")
            typed = status(
                "Type this in the tool's prompt", buttons=["copy"], elem_id="library-typed"
            )
            again = command_box("library-command")
            taken = gr.File(
                label="Import words (files of any tool)",
                file_count="multiple",
                elem_id="library-import",
            )
    said = status("Status", elem_id="library-said")

    def looked(search: str, name: str | None) -> list[Shown]:
        """The cards, their words' names, and the fields that choose among these."""
        entries = library.entries(search or "")
        cards = [(_card(page, entry), _title(page, entry)) for entry in entries]
        names = [entry.name for entry in entries]
        return [
            (cards, cards),
            (names, names),
            name_field(names, name),
            (names, gr.update(choices=names)),
        ]

    def inside(name: str | None) -> Any:
        """What a word's file holds."""
        if not name:
            return {}
        file = formats.read(library.file(name))
        return [
            {
                "word": word.placeholder_token,
                "kind": word.kind,
                "vectors": word.num_vectors,
                "text encoders": {n: list(r.shape) for n, r in word.rows.items()},
                **{k: v for k, v in word.provenance.items() if k != "config"},
            }
            for word in file.concepts
        ]

    @saying(1)
    def told(name: str | None) -> tuple[Any, ...]:
        return "", inside(name)

    def inside_now(name: str | None) -> Any:
        """The same after a change; what is said stays."""
        try:
            return inside(name)
        except REFUSALS:
            return {}

    @saying(0)
    def renamed(name: str | None, token: str) -> str:
        library.rename(_given(name), token.strip())
        return f"Renamed to {token.strip()}."

    @saying(0)
    def merged(name: str | None, others: Sequence[str] | None) -> str:
        return f"Merged into {library.merge([_given(name), *(others or ())])}."

    @saying(2)
    def written(name: str | None, license_: str) -> tuple[Any, ...]:
        folder = library.file(_given(name)).parent
        file = card.write_card(folder, license=license_.strip())
        line = command("concept card", folder, "--license", license_.strip(), "--no-preview")
        return f"Wrote the card to {file}; check it before you upload it.", read_text(file), line

    @saying(1)
    def pushed(name: str | None, repository: str, secret: str) -> tuple[Any, ...]:
        folder = library.file(_given(name)).parent
        address = card.push_concept(folder, repository.strip(), token=secret.strip() or None)
        return f"Uploaded to {address}.", command("concept push", folder, repository.strip())

    @saying(1)
    def deleted(name: str | None) -> tuple[str, None]:
        if page.desk.standing(_given(name)).is_under_way:
            raise WorkspaceError(f"Cannot delete {name} because it is training; stop it first.")
        library.delete(_given(name))
        return f"Deleted {name}; you can undo this.", None

    @saying(1)
    def restored() -> tuple[str, str]:
        kept = library.deleted()
        if not kept:
            raise WorkspaceError("There is nothing to undo.")
        name = library.restore(kept[0])
        return f"Restored {name}.", name

    @saying(3)
    def taken_away(name: str | None, layout: Any) -> tuple[Any, ...]:
        path = library.file(_given(name))
        words = formats.load_all(path)
        target = page.workspace.away / layout
        found: list[str] = []
        types = []
        for word in words:
            stem = file_name(word.placeholder_token)
            own = formats.files_of(word, target / (stem + formats.WRITERS[layout][0]), layout)
            write_together(own)
            found += map(str, own)
            types.append(formats.to_type(word, next(iter(own)), layout))
        line = command("concept convert", path, "--to", layout, "--output-dir", target)
        return f"Exported for {formats.TOOLS.get(layout, layout)}.", found, " ".join(types), line

    @saying(0)
    def brought(paths: Sequence[str] | None) -> str:
        lines = []
        for path in map(Path, paths or ()):
            try:
                lines.append(f"Imported {', '.join(library.take(path))} from {path.name}.")
            except UserError as error:
                lines.append(f"{path.name}: {error}")
        return "\n".join(lines)

    def picked(names: Sequence[str], event: gr.SelectData) -> tuple[Any, ...]:
        name = str(names[event.index])
        return name, *told(name)

    known = gr.State([])
    watch = Watch(
        changed(looked), [known, search, name], [known, cards, listed, name, others]
    )  # fmt: skip
    look: dict[str, Any] = {
        "fn": watch.look,
        "inputs": watch.inputs,
        "outputs": watch.outputs,
        **AT_ONCE,
    }
    # not "input", which gradio does not send for Backspace
    gr.on([search.change, refresh.click], **look)
    # by hand, since a word that is gone from the field because it was deleted has just been said so
    name.input(told, name, [said, facts], **AT_ONCE)
    name.change(inside_now, name, facts, **AT_ONCE)
    cards.select(picked, listed, [name, said, facts], **AT_ONCE)
    for button, act, given, outputs in (
        (rename, renamed, [name, token], [said]),
        (delete, deleted, [name], [said, name]),
        (undo, restored, [], [said, name]),
        (merge, merged, [name, others], [said]),
    ):
        button.click(act, given, outputs, api_name=act.__name__, queue=False).then(**look).then(
            inside_now, name, facts, **AT_ONCE
        )
    taken.upload(brought, taken, said, api_visibility="private").then(**look)
    write.click(written, [name, license_], [said, text, again], api_name="card")
    # a token is for this press alone: not kept, not in any command
    push.click(pushed, [name, repository, secret], [said, again], api_visibility="private").then(
        lambda: "", None, secret, **AT_ONCE
    )
    away.click(
        taken_away, [name, layout], [said, files, typed, again], api_name="take_away", queue=False
    )
    return watch


def _given(name: str | None) -> str:
    if not name:
        raise WorkspaceError("Choose a word first.")
    return name


def _title(page: Page, entry: Entry) -> str:
    if entry.problem:
        return f"{entry.name}: cannot be read"
    loss = "" if entry.loss is None else f", loss {entry.loss:.3f}"
    terms = "" if entry.license in ("", "unknown") else f", {entry.license}"
    other = ", not the loaded model" if page.stranger(entry) else ""
    return f"{' '.join(entry.tokens)} ({entry.base_model or entry.family}{other}{loss}{terms})"


def _card(page: Page, entry: Entry) -> str:
    """The file of a word's picture."""
    try:
        preview = page.library.preview(entry.name)
    except UserError:  # it was deleted meanwhile
        preview = None
    return str(page.uploads.small(preview))
