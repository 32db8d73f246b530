"""Teach a word: its pictures, its settings, and its learning as it goes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from oneword._files import read_json, write_atomic
from oneword.config.commands import command_for
from oneword.config.inversion import InversionConfig
from oneword.config.presets import PRESETS, SETUPS
from oneword.config.restored import restored
from oneword.config.runs import TrainConfig
from oneword.errors import UserError
from oneword.images import read_folder, read_image, save_png
from oneword.runs.folder import RunFolder
from oneword.runs.requests import FILES, What
from oneword.web import dropping
from oneword.web.desk import Standing, WorkerError
from oneword.web.foreseen import Foreseen
from oneword.web.page import (
    AT_ONCE,
    REFUSALS,
    Page,
    Shown,
    Watch,
    changed,
    command_box,
    name_field,
    num_pictures,
    painted_on,
    saying,
    sentence,
    status,
)
from oneword.web.seen import remarks, thumbnails
from oneword.web.worker import Rank
from oneword.web.workspace import WorkspaceError, is_mask, mask_of


_AS_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_UNZIPPED_MB = 256


def build(page: Page) -> Watch:
    """Put the tab's controls and what they do into the page."""
    draft = gr.State("")
    with gr.Row():
        with gr.Column(min_width=320):
            files = gr.File(
                label="Pictures: three to five of one thing, or a folder or zip of them",
                file_count="multiple",
                file_types=[*_AS_PICTURES, ".zip"],
                elem_id=dropping.FIELD,
            )
            folder = gr.UploadButton(
                "Or choose a folder", file_count="directory", size="sm", elem_id=dropping.BUTTON
            )
            seen = gr.Gallery(
                fit_columns=False,
                label="What the model will see",
                columns=5,
                height=190,
                interactive=False,
                allow_preview=False,
                elem_id="teach-seen",
            )
            chosen = gr.State(-1)
            with gr.Row():
                left = gr.Button("Move left", size="sm", min_width=100, elem_id="teach-left")
                right = gr.Button("Move right", size="sm", min_width=100, elem_id="teach-right")
            with gr.Row():
                remove = gr.Button("Remove selected picture", size="sm", min_width=140)
                clear = gr.Button("Remove all", size="sm", min_width=100)
            captions = gr.Dataframe(
                headers=["picture", "caption"],
                column_count=2,
                static_columns=[0],
                label="Captions, each with the new word (empty: the standard prompts)",
                interactive=True,
                wrap=True,
                max_height=270,
                elem_id="teach-captions",
            )
            about = status("Notes on the pictures", elem_id="teach-about")
        with gr.Column(min_width=320):
            token = gr.Textbox(label="New word", value="<my-thing>", elem_id="teach-token")
            kind = gr.Radio(
                ["object", "style"], value="object", label="What the pictures have in common"
            )
            initializer = gr.Textbox(
                value="",
                label="Word to start from (empty: the best noun for the pictures)",
                elem_id="teach-initializer",
            )
            rank = gr.Button("Rank words on the pictures", size="sm", elem_id="teach-rank")
            ranking = gr.Radio(
                [],
                label="Words by loss on the pictures, best first (click to use one)",
                visible=False,
                elem_id="teach-ranking",
            )
            with gr.Accordion("Advanced", open=False):
                setup = gr.Dropdown(
                    [*SETUPS], value="one-word", label="Method", elem_id="teach-setup"
                )
                preset = gr.Dropdown([*PRESETS], value="default", label="Preset")
                vectors = gr.Number(label="Vectors (0: from the preset)", value=0, precision=0)
                steps = gr.Number(
                    label="Maximum steps (0: from the preset)",
                    value=0,
                    precision=0,
                    elem_id="teach-steps",
                )
                saved = gr.Number(
                    label="Save the word every N steps (0: never)",
                    value=0,
                    precision=0,
                    elem_id="teach-save-steps",
                )
                seed = gr.Number(label="Seed", value=0, precision=0)
                encoded = gr.Checkbox(
                    label="Start from the encoder's word for the pictures",
                    value=False,
                    elem_id="teach-encoded",
                )
            again = command_box("teach-command")
            takes = status("Time and memory", elem_id="teach-takes")
            with gr.Row():
                plan = gr.Button("Check first", min_width=140, elem_id="teach-check")
                learn = gr.Button("Train", variant="primary", min_width=100, elem_id="teach-learn")
            said = status("Status", elem_id="teach-said")
    with gr.Accordion("Mask: paint over the thing so that only it is learned", open=False):
        # alone in its row: beside another component it is cut off
        canvas = gr.ImageEditor(
            label="Select a picture above first",
            type="pil",
            image_mode="RGBA",
            brush=gr.Brush(default_size=24, colors=["#ffffff"], color_mode="fixed"),
            layers=False,
            transforms=(),
            sources=(),
            height=360,
            elem_id="teach-canvas",
        )
        mask = gr.Button("Save the mask (an empty mask is removed)", elem_id="teach-mask")
    gr.Markdown("### Training")
    word = gr.Dropdown(
        [], label="Word", elem_id="learning-word", allow_custom_value=True, interactive=True
    )
    stands = status("Progress", elem_id="learning-stands")
    with gr.Row():
        stop = gr.Button("Stop", min_width=90, elem_id="learning-stop")
        go_on = gr.Button("Resume", min_width=90, elem_id="learning-go-on")
        save = gr.Button("Save now", min_width=90, elem_id="learning-save")
        preview = gr.Button("Preview now", min_width=90, elem_id="learning-draw")
    with gr.Row():
        course = gr.LinePlot(
            x="step",
            y="loss",
            label="Loss on the fixed batch",
            height=260,
            min_width=320,
            elem_id="learning-loss",
        )
        previews = gr.Gallery(
            fit_columns=False,
            label="Previews, latest first",
            columns=2,
            object_fit="contain",
            height=260,
            min_width=320,
            interactive=False,
            elem_id="learning-previews",
        )
    foreseen = Foreseen(page.workspace, page.desk)

    settings = [
        draft, token, kind, initializer, setup, preset, vectors, steps, saved, seed, encoded,
    ]  # fmt: skip
    pictures = [about, draft, seen, captions]

    def config(
        number: str,
        token: str,
        kind: Any,
        initializer: str,
        setup: str,
        preset: Any,
        vectors: float | None,
        steps: float | None,
        saved: float | None,
        seed: float | None,
        encoded: bool | None,
    ) -> TrainConfig:
        return TrainConfig(
            train_data_dir=page.workspace.draft(number),
            output_dir=page.workspace.word_folder(token),
            model=page.model,
            save_steps=int(saved or 0),
            inversion=InversionConfig(
                placeholder_token=token.strip(),
                learnable_property=kind,
                initializer_token=initializer.strip() or None,
                initializer="encoder" if encoded else None,
                setup=setup,
                preset=preset,
                num_vectors=int(vectors or 0) or None,
                max_train_steps=int(steps or 0) or None,
                seed=int(seed or 0),
            ),
        )

    shown_with: dict[str, tuple[str, int]] = {}  # by number of the set, as _model gives it

    def shown(number: str, setup: str, preset: Any, text: str = "") -> tuple[Any, ...]:
        """The pictures as they are now: a sentence, the set, thumbnails, captions."""
        paths = page.workspace.listed(number) if number else []
        if not paths:
            return text or "No pictures yet.", number, [], [["", ""]]
        folder, model = page.workspace.draft(number), _model(page)
        shown_with[number], (family, resolution) = model, model
        found = read_folder(folder, resolution=resolution)
        how = InversionConfig(placeholder_token="*", setup=setup, preset=preset)
        said = remarks(found, how, family, resolution)
        line = " ".join([text, f"{num_pictures(len(found.names))}.", *said]).strip()
        images = list(zip(thumbnails(found, folder, how, family), found.names, strict=True))
        rows = [[n, c or ""] for n, c in zip(found.names, found.captions, strict=True)]
        return line, number, images, rows

    @saying(3)
    def shown_anew(number: str, setup: str, preset: Any) -> tuple[Any, ...]:
        return shown(number, setup, preset)

    @saying(3)
    def shown_for_model(number: str, setup: str, preset: Any) -> tuple[Any, ...]:
        """The pictures as another model sees them.

        The model's line changes when the page is opened, too: what was said of pictures, and a
        caption that is being written, then stay.
        """
        if not number or shown_with.get(number, _model(page)) == _model(page):
            return (gr.skip(),) * 4
        return shown(number, setup, preset)

    def taken(number: str, setup: str, preset: Any, given: Sequence[str] | None) -> tuple[Any, ...]:
        """The pictures with those that were dropped; the field is empty again for the next ones."""
        number = number or page.workspace.new_draft()
        try:
            good, problems = _sound(_unpacked(given or (), page))
            page.workspace.take(number, good, most=page.config.max_pictures)
            return *shown(number, setup, preset, " ".join(problems)), None
        except REFUSALS as error:
            return sentence(error), number, gr.skip(), gr.skip(), None

    def taken_of_folder(
        number: str, setup: str, preset: Any, given: Sequence[str] | None
    ) -> tuple[Any, ...]:
        """The pictures of a folder; what else it holds stays there."""
        paths = [path for path in map(Path, given or ()) if _is_picture(path) and not is_mask(path)]
        return taken(number, setup, preset, [*map(str, paths)])

    def moved(by: int) -> Callable[..., tuple[Any, ...]]:
        @saying(4)
        def move(number: str, setup: str, preset: Any, place: int) -> tuple[Any, ...]:
            names = [path.name for path in page.workspace.listed(number)] if number else []
            if not 0 <= place < len(names):
                raise WorkspaceError("Click on a picture first, then move it.")
            there = page.workspace.move(number, names[place], by)
            name = page.workspace.listed(number)[there].name
            line, number, images, rows = shown(number, setup, preset, f"Moved: {name}.")
            return line, number, gr.update(value=images, selected_index=there), rows, there

        return move

    @saying(3)
    def removed(number: str, setup: str, preset: Any, place: int) -> tuple[Any, ...]:
        names = [path.name for path in page.workspace.listed(number)] if number else []
        if not 0 <= place < len(names):
            raise WorkspaceError("Click on a picture first, then remove it.")
        page.workspace.drop(number, names[place])
        return shown(number, setup, preset)

    def opened(number: str, event: gr.SelectData) -> tuple[int, Any]:
        """The picture that was clicked on, to be removed or masked."""
        paths = page.workspace.listed(number) if number else []
        if not event.index < len(paths):
            return event.index, gr.skip()
        picture = read_image(paths[event.index]).convert("RGBA")
        return event.index, {"background": picture, "layers": [], "composite": picture}

    @saying(3)
    def masked(
        number: str, setup: str, preset: Any, place: int, given: dict[str, Any] | None
    ) -> tuple[Any, ...]:
        paths = page.workspace.listed(number) if number else []
        if not 0 <= place < len(paths):
            raise WorkspaceError("Click on a picture first, then paint over the thing in it.")
        painted = painted_on(given)
        if painted is None:
            mask_of(paths[place]).unlink(missing_ok=True)
            return shown(number, setup, preset, f"{paths[place].name} has no mask.")
        save_png(painted, mask_of(paths[place]))
        return shown(number, setup, preset, f"Saved the mask of {paths[place].name}.")

    @saying(3)
    def cleared(number: str, setup: str, preset: Any) -> tuple[Any, ...]:
        if number:
            page.workspace.clear(number)
        return shown(number, setup, preset)

    @saying(0)
    def captioned(number: str, table: pd.DataFrame) -> str:
        names = {path.name for path in page.workspace.listed(number)} if number else set()
        for name, caption in table.itertuples(index=False):
            if name in names:
                target = (page.workspace.draft(number) / name).with_suffix(".txt")
                if str(caption).strip():
                    write_atomic(target, str(caption).strip().encode())
                else:
                    target.unlink(missing_ok=True)
        return "Saved the captions."

    @saying(0)
    def written(*given: Any) -> str:
        if not given[0]:
            return "# add pictures first"
        return _command(config(*given))

    def expected(*given: Any) -> Iterator[str]:
        # the others change nothing of it
        try:
            yield from foreseen.lines(config(page.workspace.new_draft(), "*", "object", "", *given))
        except REFUSALS as error:
            yield sentence(error)

    @saying(0)
    def planned(*given: Any) -> str:
        asked = config(*_with_pictures(given))
        _, future = page.desk.ask(asked)
        plan = future.result(timeout=600)
        own = plan["config"]["inversion"]
        rate = next(iter(plan["learning_rate"].values()))["absolute"]
        notes = "".join(f" {note[:1].upper()}{note[1:].rstrip('.')}." for note in plan["notes"])
        steps = (
            f" at most {own['max_train_steps']} steps of {own['train_batch_size']} samples at "
            f"learning rate {rate:.3g},"
        )
        return (
            f"{num_pictures(len(plan['pictures']))},{steps if plan['num_samples'] else ''} on "
            f"{plan['device']}.{notes}"
        )

    def ranked_by(*given: Any) -> str:
        """What a ranking depends on: model, pictures with captions and masks, settings."""
        number, _, kind, _, *costs = given
        files = page.workspace.draft(number).iterdir() if number else ()
        made = sorted((path.name, _written(path)) for path in files)
        return repr((page.model.model, made, kind, costs))

    def ranked(*given: Any) -> Iterator[tuple[Any, ...]]:
        """What happens, the words to start from, what they depend on, and the command."""
        try:
            by = ranked_by(*_with_pictures(given))
            asked = config(*given)
            _, future = page.desk.ask(Rank(asked))
            while wait([future], timeout=0.3).not_done:
                yield "Ranking words.", gr.skip(), gr.skip(), gr.skip()
            found = future.result()
            choices = [(f"{word} {loss:.4f}", word) for word, loss in found.items()]
            yield (
                f"Ranked {len(found)} words; if the field is empty, training starts from the "
                "best noun.",
                gr.update(choices=choices, value=None, visible=True),
                by,
                f"{_command(asked)} --rank-initializers",
            )
        except REFUSALS as error:
            yield sentence(error), gr.skip(), gr.skip(), gr.skip()

    def unranked(by: str, *given: Any) -> Any:
        """The ranking gone, if it is of other pictures or settings than these."""
        if by == ranked_by(*given):
            return gr.skip()
        return gr.update(choices=[], value=None, visible=False)

    @saying(1)
    def begun(*given: Any) -> tuple[Any, ...]:
        asked = config(*_with_pictures(given))
        if (asked.output_dir / "config.json").exists():
            raise WorkspaceError(
                f"Cannot train this word because the library already has {asked.output_dir.name}; "
                "choose another name, or delete the old word there."
            )
        # of its own: what becomes of the set shall not keep the word from going on
        kept = page.workspace.keep(given[0], asked.output_dir.name)
        page.desk.teach(replace(asked, train_data_dir=kept))
        return "Queued; progress is shown below.", gr.update(value=asked.output_dir.name)

    def names() -> list[str]:
        folders = [path.parent for path in page.workspace.words.glob("*/config.json")]
        known = [path.name for path in sorted(folders, key=_written, reverse=True)]
        return [*[n for n in page.desk.standings() if n not in known], *known]

    def looked(name: str | None) -> list[Shown]:
        """How a word's learning stands, from its run folder and what the worker said last."""
        choices = names()
        word = name_field(choices, name)
        name = name or next(iter(choices), None)
        if not name or name not in choices:
            line = "No word is training."
            return [word, (line, line), ((), None), ((), [])]
        folder = RunFolder(page.workspace.words / name, steps=1)
        try:
            rows = folder.course()
        except UserError as error:  # its folder vanished while it was read
            return [word, (str(error), str(error)), ((), None), ((), [])]
        points = [{"step": r["step"], "loss": r["loss"]} for r in rows if "loss" in r]
        plot = pd.DataFrame(points) if points else None
        drawn = sorted((folder.path / "previews").glob("step-*.png"), reverse=True)[:6]
        shown = [(str(p), f"step {int(p.stem.removeprefix('step-'))}") for p in drawn]
        line = _line(page.desk.standing(name), folder)
        return [
            word,
            (line, line),
            ((name, len(points), points[-1:]), plot),
            ([(p, _written(Path(p))) for p in drawn], shown),
        ]

    @saying(0)
    def stopped(name: str | None) -> str:
        if not name or not page.desk.standing(name).is_under_way:
            raise WorkerError("No word of that name is training.")
        page.desk.stop(name)
        return "Stopping after this step."

    @saying(0)
    def gone_on(name: str | None) -> str:
        record = read_json(page.workspace.run_folder(name) / "config.json", {"config": dict})
        begun = restored(TrainConfig, record["config"])
        if begun.model.model != page.model.model:
            raise WorkspaceError(
                f"Cannot resume the word because it was started on {begun.model.model} and the "
                f"model is now {page.model.model}; load {begun.model.model} first, under "
                "\u201cAnother model\u201d."
            )
        # as the other words of the batch have it
        page.desk.teach(replace(begun, model=page.model))
        return "Resumed."

    def asked_for(what: What) -> Callable[[str | None], str]:
        @saying(0)
        def ask(name: str | None) -> str:
            if not name or page.desk.standing(name).phase != "learning":
                raise WorkerError("No word of that name is training.")
            (page.workspace.run_folder(name) / FILES[what]).touch()
            return "This will be done after the next step."

        return ask

    look = [draft, setup, preset]
    for field, take in ((files, taken), (folder, taken_of_folder)):
        field.upload(take, [*look, field], [*pictures, field], api_visibility="private")
    for button, by in ((left, -1), (right, 1)):
        button.click(moved(by), [*look, chosen], [*pictures, chosen], **AT_ONCE)
    remove.click(removed, [*look, chosen], pictures, **AT_ONCE)
    clear.click(cleared, look, pictures, **AT_ONCE)
    gr.on([setup.change, preset.change], shown_anew, look, pictures, **AT_ONCE)
    seen.select(opened, draft, [chosen, canvas], **AT_ONCE)
    mask.click(masked, [*look, chosen, canvas], pictures, **AT_ONCE)
    captions.input(captioned, [draft, captions], about, **AT_ONCE)
    gr.on([part.change for part in settings], written, settings, again, **AT_ONCE)
    costs = settings[4:]  # what time and memory depend on
    counted: dict[str, Any] = {
        "api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last",
    }  # fmt: skip
    gr.on([part.change for part in costs], expected, costs, takes, **counted)
    plan.click(planned, settings, said, api_name="plan")
    basis = gr.State("")
    if_true: dict[str, Any] = {
        "fn": unranked, "inputs": [basis, *settings], "outputs": ranking, **AT_ONCE,
    }  # fmt: skip
    rank.click(
        ranked, settings, [said, ranking, basis, again], api_name="rank_words",
        show_progress="hidden",
    ).then(**if_true)  # they may have changed meanwhile  # fmt: skip
    ranking.input(lambda word: (word, None), ranking, [initializer, ranking], **AT_ONCE)
    gr.on([seen.change, captions.input, *(part.change for part in (kind, *costs))], **if_true)
    learn.click(begun, settings, [said, word], api_name="learn", queue=False)
    stop.click(stopped, word, said, api_name="stop", queue=False)
    go_on.click(gone_on, word, said, api_name="go_on", queue=False)
    save.click(asked_for("save"), word, said, api_name="save_now", queue=False)
    preview.click(asked_for("preview"), word, said, api_name="draw_now", queue=False)
    known = gr.State([])
    watch = Watch(
        changed(looked), [known, word], [known, word, stands, course, previews],
        with_model=[
            {"fn": written, "inputs": settings, "outputs": again, **AT_ONCE},
            {"fn": expected, "inputs": costs, "outputs": takes, **counted},
            {"fn": shown_for_model, "inputs": look, "outputs": pictures, **AT_ONCE},
            if_true,
        ],
    )  # fmt: skip
    word.input(watch.look, watch.inputs, watch.outputs, **AT_ONCE)
    return watch


def _with_pictures(given: Sequence[Any]) -> Sequence[Any]:
    if not given[0]:
        raise WorkspaceError("Training needs pictures, got none; add some first.")
    return given


def _command(config: TrainConfig) -> str:
    return command_for("train", config, always=("train_data_dir", "placeholder_token"))


def _written(folder: Path) -> float:
    """When a folder was written to; 0: it has vanished."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _model(page: Page) -> tuple[str, int]:
    """The model's family and its own size, px, as far as they are known yet."""
    loaded = page.desk.loaded
    return ("", 512) if loaded is None else (loaded.family, loaded.resolution)


def _unpacked(given: Sequence[str], page: Page) -> list[Path]:
    """The uploaded pictures; those of a zip are put beside it.

    Raises:
        WorkspaceError: a zip cannot be read, or holds too much.
    """
    found: list[Path] = []
    for path in map(Path, given):
        if path.suffix.lower() != ".zip":
            found.append(path)
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                inside = [i for i in archive.infolist() if _is_picture(Path(i.filename))]
                size_mb = sum(i.file_size for i in inside) / 1e6
                if size_mb > _UNZIPPED_MB or len(inside) > page.config.max_pictures:
                    raise WorkspaceError(
                        f"A zip must hold at most {page.config.max_pictures} pictures of "
                        f"{_UNZIPPED_MB} MB together, got {len(inside)} of {size_mb:.0f} MB."
                    )
                for number, item in enumerate(inside):
                    target = path.parent / f"{number:03d}-{Path(item.filename).name}"
                    target.write_bytes(archive.read(item))
                    found.append(target)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise WorkspaceError(
                f"Cannot read {path.name} as a zip because of an error ({error}); use another."
            ) from error
    return found


def _sound(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Those that can be read as pictures, and what is wrong with the others."""
    good, problems = [], []
    for path in paths:
        try:
            read_image(path)
        except UserError as error:
            problems.append(str(error).replace(str(path), path.name))
        else:
            good.append(path)
    return good, problems


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _AS_PICTURES


def _line(standing: Standing, folder: RunFolder) -> str:
    """How a word stands, in a line."""
    if standing.phase == "learning":
        left = "" if standing.left_s is None else f", at most {standing.left_s:.0f} s left"
        loss = "" if standing.loss is None else f", loss {standing.loss:.4f}"
        line = f"Step {standing.step} of {standing.max_train_steps}{loss}{left}."
        return f"{line} {standing.text}".strip()
    if standing.phase == "failed" and folder.record.is_file():
        return f"{standing.text} The saved state is kept; \u201cResume\u201d continues from it."
    if standing.text:
        return standing.text
    if folder.learned.is_file():
        return "Trained; the word is in the library."
    return "Stopped; it can be resumed."
