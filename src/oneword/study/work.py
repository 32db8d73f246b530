"""A chunk of a study's jobs: learn the words, draw with them, score the pictures, save the rows.

Each job has its own file of rows, written in one go when all are known. So an interrupted job
leaves no rows, and a job that has its file is never repeated.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from oneword._files import (
    FormError,
    InUseError,
    OutputError,
    check,
    parsed,
    read_json,
    read_lines,
    write_atomic,
    write_json_atomic,
)
from oneword._typing import Pixels
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.config.presets import sampler_of
from oneword.config.runs import TrainConfig
from oneword.config.scoring import StudyConfig
from oneword.errors import ConfigError, UserError
from oneword.evaluation import harness, metrics, world
from oneword.evaluation.choosing import best_of
from oneword.evaluation.features import DEFAULT_DINO, Dino, Judge, load_dino, load_judge
from oneword.evaluation.silhouettes import overlap, silhouettes
from oneword.images import contact_sheet, jpeg_bytes, read_folder, shrunk, to_images
from oneword.microworld import weights
from oneword.microworld.making.oracle import Oracle
from oneword.microworld.making.wide_oracle import WideOracle
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.prompts import PLAIN_PROMPT
from oneword.runs.events import Advanced, Ended, Event, OnEvent, Stepped
from oneword.runs.folder import RunError, RunFolder
from oneword.runs.many import train_many
from oneword.study import methods
from oneword.study.plan import BASELINES, BIPARTITE, Spec, Study
from oneword.study.prompt_sets import prompts_for
from oneword.study.subjects import Subject


Row = dict[str, Any]
FAILED = ".failed.json"
"""Ends the name of the file that says why a job failed."""
ABSENT = ".absent.json"
"""Ends the name of the file that says why a job's method is not available here."""
TRAINING = "training"
"""Kind of the row with a job's training in numbers; other rows are of one prompt each."""
MAX_ROWS = 2**30
"""Bytes of a file of rows."""
_GALLERY = 4  # pictures of a prompt that are kept to be seen
_CELL_PX = 256  # their largest side


@dataclass(frozen=True, slots=True)
class Bench:
    """The model and the judges for every job of a process."""

    backbone: Backbone
    judge: Judge
    dino: Dino | None
    oracle: Oracle | WideOracle | None


@cache
def bench(model: ModelConfig, judge: str | None, dino: str | None) -> Bench:
    """Load the model and the judges, once per process.

    Raises:
        UserError: one of them cannot be loaded.
    """
    backbone = load_backbone(model)
    embedded = backbone.family == "microworld"
    name = dino or ("none" if embedded else DEFAULT_DINO)
    return Bench(
        backbone,
        load_judge(judge, backbone),
        None if name == "none" else load_dino(name, backbone),
        weights.load_oracle(backbone.name) if embedded else None,
    )


# --- files


def rows_file(folder: Path, spec: Spec) -> Path:
    """Path of a job's rows once it is done."""
    return folder / "jobs" / f"{spec.name}.jsonl"


def failure_file(folder: Path, spec: Spec) -> Path:
    """Path of the reason why a job failed."""
    return folder / "jobs" / f"{spec.name}{FAILED}"


def absent_file(folder: Path, spec: Spec) -> Path:
    """Path of the reason why a job's method is not available."""
    return folder / "jobs" / f"{spec.name}{ABSENT}"


def reason(path: Path) -> str:
    """The reason in a file about a job that is not done.

    Raises:
        RunError: the file has no reason.
    """
    return read_json(path, {"error": str}, error=RunError)["error"]


def figure_file(folder: Path, spec: Spec) -> Path:
    """Path of a job's pictures for a figure's page: a row for each prompt.

    The first pictures of a row are those of the first seeds; the last is the best, as the row in
    the results says.
    """
    return folder / "pictures" / f"{spec.name}--figure.jpg"


def gallery_file(folder: Path, spec: Spec) -> Path:
    """Path of some of a job's pictures."""
    return folder / "pictures" / f"{spec.name}.jpg"


def run_folder(folder: Path, spec: Spec) -> Path:
    """Folder in which a job's word is learned."""
    return folder / "runs" / spec.run


_KEY = {
    "concept": str,
    "setup": str,
    "seed": int,
    "set_size": (int, type(None)),
    "kind": str,
    "draw_time_s": float,
}
_TEXTS = {"concept", "setup", "kind", "family", "prompt", "initializer_token", "sha256"}


def parsed_rows(lines: Sequence[str]) -> list[Row]:
    """Rows from lines of JSON.

    Raises:
        FormError: a line is not a row.
    """
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        place = f"line {number}"
        row = check(parsed(line), _KEY, place)
        for name, value in row.items():
            kind = (str if name in _TEXTS else float, type(None))
            check(value, int if name in ("seed", "set_size") and value is not None else kind,
                  f"{place}[{name!r}]")  # fmt: skip
        rows.append(row)
    return rows


def read_rows(folder: Path, spec: Spec) -> list[Row]:
    """A job's rows; empty if it is not done.

    Raises:
        RunError: the file holds something else.
    """
    path = rows_file(folder, spec)
    return rows_in(path) if path.is_file() else []


def rows_in(path: Path) -> list[Row]:
    """The rows of a job's file.

    Raises:
        RunError: the file holds something else.
    """
    must = f"{path} must contain the rows of a job (delete it to do the job again)"
    try:
        return parsed_rows(read_lines(path, most=MAX_ROWS, must=must, error=RunError))
    except FormError as problem:
        raise RunError(f"{must}, got another form: {problem}.") from problem


def write_rows(folder: Path, spec: Spec, rows: Sequence[Row]) -> None:
    """Write all rows of a job at once, which marks it as done."""
    finite = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    text = "".join(json.dumps(row) + "\n" for row in finite)
    write_atomic(rows_file(folder, spec), text.encode())
    for path in (failure_file(folder, spec), absent_file(folder, spec)):
        path.unlink(missing_ok=True)


# --- a chunk


def run_chunk(config: StudyConfig, specs: Sequence[Spec], tell: OnEvent) -> list[str]:
    """Do jobs that are not done yet; a failed job leaves its reason and does not stop the others.

    A folder that cannot be written, as on a full disk, is not a job's failure: it stops the chunk,
    which continues at the next call.

    Returns:
        Names of the jobs that are done.

    Raises:
        OutputError: the study's folder cannot be written.
        InUseError: another process writes there.
        KeyboardInterrupt: the process was asked to stop; begun jobs continue at the next call.
        UserError: the model or the judges cannot be loaded, or the model cannot draw with these
            settings.
    """
    study = Study(config)
    methods.check(config, [arm.setup for arm in study.arms.values()])
    tools = bench(config.model, config.judge, config.dino)
    tools.backbone.check_sampling(_sampling(config, tools))
    specs = [spec for spec in specs if not rows_file(study.folder, spec).exists()]
    trained = _learned(study, tools, specs, tell)
    done = []
    for spec in specs:
        failure, is_absent = trained.get(spec.run, ""), False
        if not failure:
            try:
                rows = _scored(study, tools, spec, tell)
                write_rows(study.folder, spec, rows)
                done.append(spec.name)
            except _NOT_ITS_OWN:
                raise
            except Exception as error:
                failure, is_absent = _reason(error), isinstance(error, methods.NotAvailableError)
        if failure:
            place = absent_file if is_absent else failure_file
            write_json_atomic(place(study.folder, spec), {"job": spec.name, "error": failure})
        tell(ended(spec, failure, absent=is_absent))
    return done


_NOT_ITS_OWN = (OutputError, InUseError)
"""What goes wrong with a job's folder, and not with the job."""


def ended(spec: Spec, failure: str = "", *, absent: bool = False) -> Ended:
    """The end of a job; for a failure only the last line of the reason."""
    if not failure:
        return Ended(spec.name, "done")
    if absent:
        return Ended(spec.name, f"not available: {failure.strip().splitlines()[-1]}")
    return Ended(spec.name, f"failed: {failure.strip().splitlines()[-1]}", failed=True)


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return "".join(traceback.format_exception(error))


def _training_folder(study: Study, spec: Spec, size_px: int) -> Path:
    subject = study.subjects[spec.concept]
    num = spec.num_pictures or subject.num_pictures
    place = study.folder / "concepts"
    return subject.pictures_in(place, seed=spec.seed, num=num, size_px=size_px)


def _learned(study: Study, tools: Bench, specs: Sequence[Spec], tell: OnEvent) -> dict[str, str]:
    """Train what is not trained yet; return why runs failed, by name."""
    by_run = {spec.run: spec for spec in specs if study.arm(spec).trains}
    failed: dict[str, str] = {}
    configs: list[TrainConfig] = []
    for run, spec in by_run.items():
        if (run_folder(study.folder, spec) / formats.LEARNED).is_file():
            continue
        try:
            configs.append(_training(study, tools, spec))
        except _NOT_ITS_OWN:
            raise
        except Exception as error:
            failed[run] = _reason(error)

    def on_event(event: Event) -> None:
        if isinstance(event, Stepped):
            share = event.step / event.max_train_steps
            tell(Advanced(by_run[event.job].name, "learning", share))

    if configs:
        outcomes = train_many(
            configs, slots=study.config.slots, backbone=tools.backbone, on_event=on_event
        )
        for one in outcomes:
            if isinstance(one.cause, _NOT_ITS_OWN):
                raise one.cause
            if one.outcome is None:
                failed[one.name] = one.error if one.cause is None else _reason(one.cause)
            elif one.outcome.result.status == "interrupted":
                raise KeyboardInterrupt
            elif one.outcome.concept_file is None:
                result = one.outcome.result
                failed[one.name] = f"{result.status}: {result.reason}"
    return failed


def _training(study: Study, tools: Bench, spec: Spec) -> TrainConfig:
    return TrainConfig(
        train_data_dir=_training_folder(study, spec, tools.backbone.resolution),
        output_dir=run_folder(study.folder, spec),
        model=study.config.model,
        inversion=study.inversion(spec),
        validation_steps=0,
    )


# --- drawing and scoring


def _scored(study: Study, tools: Bench, spec: Spec, tell: OnEvent) -> list[Row]:
    config, subject = study.config, study.subjects[spec.concept]
    size_px = tools.backbone.resolution
    shown_of = spec
    if spec.num_pictures:  # every size is compared with the same pictures
        shown_of = dataclasses.replace(spec, num_pictures=study.most_pictures(subject))
    reading = config.inversion.resolved(tools.backbone.family)
    pictures, own = (
        read_folder(
            _training_folder(study, one, size_px),
            resolution=size_px,
            fit=reading.square_fit,
            interpolation=reading.interpolation,
        ).pixels
        for one in (shown_of, spec)
    )
    scorer = Scorer(tools, subject, pictures, own, together=study.wants_pictures)
    templates, scales = study.templates(subject), study.guidance_scales(spec)
    seeds = study.drawing_seeds(spec.seed)
    concept = _concept(study, spec)
    rows = [] if concept is None else [_training_row(study, spec, concept)]
    started = time.monotonic()
    shown: dict[str, Pixels] = {}  # of each kind of prompt the first
    figure: list[Pixels] = []
    for number, scale in enumerate(scales):
        method = _method(study, tools, spec, subject, concept, scale, pictures)
        for place, (template, kind) in enumerate(templates.items()):
            drawn = None if method is None else method(template, seeds)
            row = scorer.row(template, drawn)
            if drawn is not None and study.arm(spec).setup == BIPARTITE:
                turns = torch.arange(len(drawn)) % len(pictures)
                row["structure_kept"] = metrics.structure_kept(drawn, pictures[turns])
            if drawn is not None and number == 0 and study.wants_pictures:
                some = drawn[: study.candidates(spec.setup)]
                best = scorer.best(template, some)
                row |= {"best_seed": seeds[best], "best_of": len(some)}
                figure.append(torch.cat([drawn[:_GALLERY], drawn[best : best + 1]]))
            rows.append({"kind": kind, "prompt": template, "guidance_scale": scale} | row)
            repeated = drawn is None and bool(shown)  # the same training pictures again
            if number == 0 and kind not in shown and not repeated:
                shown[kind] = (pictures if drawn is None else drawn)[:_GALLERY]
            done = number * len(templates) + place + 1
            tell(Advanced(spec.name, "drawing", done / (len(templates) * len(scales))))
        if method is None:
            break  # guidance moves no training picture
    write_gallery(gallery_file(study.folder, spec), list(shown.values()))
    if figure:
        write_gallery(figure_file(study.folder, spec), figure)
    shared = {
        "concept": spec.concept,
        "family": subject.family,
        "setup": spec.setup,
        "seed": spec.seed,
        "set_size": spec.num_pictures,
        "num_pictures": spec.num_pictures or subject.num_pictures,
        "num_drawn": len(seeds),
        "draw_time_s": round(time.monotonic() - started, 2),
    } | weights.told(tools.backbone.name)
    return [shared | row for row in rows]


def _concept(study: Study, spec: Spec) -> Concept | None:
    if not study.arm(spec).trains:
        return None
    return formats.load_concept(run_folder(study.folder, spec))


def _sampling(config: StudyConfig, tools: Bench) -> SamplingConfig:
    """How pictures of all setups are drawn: by default as in the study's preset."""
    if config.sampling.sampler is not None:
        return config.sampling
    own = sampler_of(config.inversion.preset, tools.backbone.family)
    return dataclasses.replace(config.sampling, sampler=own)


def _method(
    study: Study,
    tools: Bench,
    spec: Spec,
    subject: Subject,
    concept: Concept | None,
    scale: float,
    pictures: Pixels,
) -> harness.Method | None:
    """How a job draws; ``None`` if it shows the training pictures."""
    setup = study.arm(spec).setup
    if setup == "image-only":
        return None
    if setup in BASELINES:
        given = methods.Given(
            config=study.config,
            backbone=tools.backbone,
            subject=subject,
            seed=spec.seed,
            sampling=_sampling(study.config, tools),
            pictures_dir=_training_folder(study, spec, tools.backbone.resolution),
        )
        return methods.method(setup, given, pictures)
    batch_size, sampling = study.config.batch_size, _sampling(study.config, tools)
    if concept is not None and setup == BIPARTITE:
        return harness.redrawn(
            tools.backbone,
            pictures,
            tuple(study.templates(subject)),
            prompts_for(study.prompt_set, subject.kind).photo,
            concept,
            guidance_scale=scale,
            num_inference_steps=study.config.num_inversion_steps,
            sampler=sampling.sampler,
            batch_size=batch_size,
        )
    sampling = dataclasses.replace(sampling, guidance_scale=scale)
    options: dict[str, Any] = {"sampling": sampling, "batch_size": batch_size}
    if concept is not None:
        return harness.word(tools.backbone, concept.placeholder_token, [concept], **options)
    if setup == "prompt-only":
        return harness.prompt_only(tools.backbone, **options)
    if setup == "initializer":
        if subject.noun is None:
            raise ConfigError(
                f"Cannot use the setup initializer for {subject.name} without a word; list it in "
                "prompts_and_classes.txt next to the folders, as DreamBench does."
            )
        return harness.word(tools.backbone, subject.noun, **options)
    return harness.described(tools.backbone, subject.captions(setup), **options)


class Scorer:
    """Scores pictures of one concept.

    Args:
        tools: The judges.
        subject: The concept.
        pictures: The pictures that image similarity is measured against.
        own: The pictures that the word was learned from; ``None``: the same.
        together: Also count pictures that show both the thing and what the prompt asks for.
    """

    def __init__(
        self,
        tools: Bench,
        subject: Subject,
        pictures: Float[Tensor, "shown 3 height width"],
        own: Float[Tensor, "own 3 height width"] | None = None,
        *,
        together: bool = False,
    ) -> None:
        self.together = together
        self.tools, self.subject, self.pictures = tools, subject, pictures
        self.training = tools.judge.images(pictures)
        self.training_dino = None if tools.dino is None else tools.dino.images(pictures)
        self.places: frozenset[str] = frozenset()
        if tools.oracle is not None:
            self.places = world.places_of(tools.oracle.read(pictures if own is None else own))
        side = pictures.shape[-1]
        plain, outlines = subject.plain(side), subject.outlines(side)
        self.plain: tuple[Pixels, Tensor, Tensor] | None = None  # with features and outlines
        if plain is not None and outlines is not None:
            self.plain = (plain, tools.judge.images(plain), outlines)

    def row(self, template: str, drawn: Pixels | None) -> Row:
        """All scores of one prompt's pictures; ``None``: those of the training pictures themselves.

        Source:
            Gal et al. 2022, arXiv:2208.01618, section 5.1 (image and text similarity); Ruiz et al.
            2022, arXiv:2208.12242, section 5.1 (DINO).
        """
        tools, own = self.tools, drawn is None
        plain = self.plain if template == PLAIN_PROMPT else None
        on_plain = plain is not None
        pixels = drawn if drawn is not None else plain[0] if plain is not None else self.pictures
        features = tools.judge.images(pixels)
        (text,) = tools.judge.texts([harness.bare(template)])
        row: Row = {
            "image_similarity": _against(features, self.training, own and not on_plain),
            "text_similarity": metrics.text_similarity(features, text),
            "text_similarity_code": metrics.text_similarity_code(features, text),
            "diversity": metrics.diversity(features),
        }
        if tools.dino is not None and self.training_dino is not None:
            seen = tools.dino.images(pixels)
            row["dino_similarity"] = _against(seen, self.training_dino, own and not on_plain)
        if plain is not None:
            _, plain_features, outlines = plain
            row["plain_similarity"] = _against(features, plain_features, own)
            row["silhouette_overlap"] = float(
                overlap(silhouettes(pixels), outlines).double().mean()
            )
        if tools.oracle is not None and self.subject.held_out is not None:
            read = {template: tools.oracle.read(pixels)}
            for share in world.background_leaked(read, self.places).values():
                row["background_leaked"] = share
            row["seen"] = world.seen_as(read, *self.subject.held_out.read_as)[template]
            asked = world.edits_obeyed(read)
            row |= {f"{name}_obeyed": value for name, value in asked.items()}
            row["obeyed"] = sum(asked.values()) / len(asked) if asked else math.nan
            if self.together:
                both = world.seen_and_obeyed(read, *self.subject.held_out.read_as)
                row["seen_and_obeyed"] = both.get(template, math.nan)
        return row

    def best(self, template: str, drawn: Pixels) -> int:
        """Index of the picture that the judge ranks first, by the mean of both similarities.

        Source:
            Gal et al. 2022, arXiv:2208.01618, section 4.7 proposes the ranking by CLIP.
        """
        features = self.tools.judge.images(drawn).double()
        (text,) = self.tools.judge.texts([harness.bare(template)]).double()
        scores = ((features @ self.training.double().T).mean(1) + features @ text) / 2
        return best_of(scores.tolist(), features, 1)[0]


def _against(features: Tensor, true: Tensor, same: bool) -> float:
    """Image similarity; of a set with itself without the pairs of a picture with itself."""
    return metrics.self_similarity(true) if same else metrics.image_similarity(features, true)


def _training_row(study: Study, spec: Spec, concept: Concept) -> Row:
    """The row about a job's training, from its run folder."""
    course = RunFolder(run_folder(study.folder, spec), steps=1).course()
    provenance = concept.provenance
    return {
        "kind": TRAINING,
        "train_time_s": provenance.get("train_time_s"),
        "steps": course[-1]["step"] if course else None,
        "first_loss": course[0]["loss"] if course else None,
        "best_loss": min((c["loss"] for c in course), default=None),
        "distance": course[-1]["distance"] if course else None,
        "word_distance": course[-1].get("word_distance") if course else None,
        "learning_rate": course[-1]["lr"] if course else None,
        "initializer_token": provenance.get("initializer_token"),
        "sha256": concept.sha256(),
    }


def write_gallery(path: Path, rows: Sequence[Pixels]) -> None:
    """Save the first pictures of some prompts as one JPEG, a row for each."""
    columns = max(len(row) for row in rows)
    full = torch.cat([row for row in rows if len(row) == columns])
    images = [shrunk(image, _CELL_PX) for image in to_images(full)]
    sheet = contact_sheet(images, columns=columns, cell_px=min(images[0].width, 128))
    write_atomic(path, jpeg_bytes(sheet, 90))
