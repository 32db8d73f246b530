"""Items for questions: the pictures that a study's setups drew for the same prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oneword._files import read_json
from oneword.errors import UserError
from oneword.images import cells_of, jpeg_bytes, open_picture, read_folder, to_images
from oneword.prompts import context
from oneword.study import work
from oneword.study.plan import Spec
from oneword.study.prompt_sets import KINDS, PHOTO, PLAIN


QUALITY = 92  # of JPEG
NUM_TRAINING = 4
"""Training pictures that a page shows."""


class UserStudyError(UserError):
    """A questionnaire cannot be made, or its answers cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One picture of each model, drawn for the same prompt with the same seed."""

    concept: str
    seed: int
    """Seed of the training."""
    kind: str
    """Of the prompt, as "background"."""
    prompt: str
    """Template with "{}" for the word."""
    picture: int
    """Which of the prompt's pictures, from 0."""
    results: Mapping[str, bytes]
    """Each model's picture, as JPEG."""
    training: Sequence[bytes]
    """All training pictures, as JPEG."""
    image_similarity: Mapping[str, float | None]
    """CLIP score of each model, over all that it drew of the prompt; ``None``: it has none."""
    text_similarity: Mapping[str, float | None]

    @property
    def context(self) -> str:
        """The prompt without its word, as people read it."""
        return context(self.prompt)


@dataclass(frozen=True, slots=True)
class _Job:
    """A job that is done, with its pictures."""

    spec: Spec
    prompts: Mapping[str, work.Row]
    """The row of the first prompt of each kind, in the order of the gallery's rows."""


def gather(
    study: Path, models: Sequence[str] = (), concepts: Sequence[str] = (), kinds: Sequence[str] = ()
) -> list[Item]:
    """All items in a study's folder that every model drew.

    Args:
        study: The folder.
        models: Labels of setups; none: all that have pictures of prompts.
        concepts: Names; none: all.
        kinds: Of prompts; none: all but those of the photograph and the plain background.

    Raises:
        UserStudyError: the folder is not a study, or has no pictures or not the requested ones.
        RunError: its rows are of another form.
        ImageError: a picture cannot be read.
    """
    jobs = _jobs(study)
    drawn = list(dict.fromkeys(spec.setup for spec in jobs))
    if missing := [name for name in models if name not in drawn]:
        raise UserStudyError(
            f"models must be setups with pictures of prompts in {study}, got "
            f"{', '.join(missing)}; there are {', '.join(drawn)}."
        )
    models = models or drawn
    if not 3 <= len(models) <= 9:
        raise UserStudyError(
            f"models must be 3 to 9 setups, got {len(models)} in {study} ({', '.join(models)}); "
            "pass some with --models, or add setups to the study."
        )
    known = list(dict.fromkeys(spec.concept for spec in jobs))
    if unknown := [name for name in concepts if name not in known]:
        raise UserStudyError(
            f"concepts must be of the study {study}, got {', '.join(unknown)}; there are "
            f"{', '.join(known)}."
        )
    for kind in kinds:
        if kind not in (*KINDS, PHOTO, PLAIN):
            raise UserStudyError(
                f"kinds must be of {', '.join((*KINDS, PHOTO, PLAIN))}, got {kind!r}."
            )
    found: list[Item] = []
    for concept, seed in dict.fromkeys((spec.concept, spec.seed) for spec in jobs):
        own = {m: jobs.get(Spec(concept=concept, setup=m, seed=seed)) for m in models}
        whole = {model: job for model, job in own.items() if job is not None}
        if len(whole) == len(models) and concept in (concepts or known):
            found += _items(study, whole, kinds or KINDS)
    if not found:
        raise UserStudyError(
            "The models must have pictures of the same concept, seed and prompt, got none in "
            f"{study} of {', '.join(models)}; continue the study, or pass others."
        )
    return found


def _jobs(study: Path) -> dict[Spec, _Job]:
    """The jobs that have drawn a prompt's pictures, and still have them."""
    if not (study / "study.json").is_file():
        raise UserStudyError(
            f"study must be a folder written by `oneword study`, got {study}; pass it with --study."
        )
    found: dict[Spec, _Job] = {}
    for path in sorted((study / "jobs").glob("*.jsonl")):
        rows = [row for row in work.rows_in(path) if row["kind"] != work.TRAINING]
        if not rows or rows[0]["set_size"] is not None or rows[0]["setup"] == "image-only":
            continue
        spec = Spec(**{name: rows[0][name] for name in ("concept", "setup", "seed")})
        first = {row["kind"]: row for row in reversed(rows)}
        if work.gallery_file(study, spec).is_file():
            kinds = dict.fromkeys(row["kind"] for row in rows)
            found[spec] = _Job(spec, {kind: first[kind] for kind in kinds})
    if not found:
        raise UserStudyError(
            f"study must contain pictures, got none in {study / 'pictures'}; imported rows have "
            "none: run the study itself."
        )
    return found


def _items(study: Path, jobs: Mapping[str, _Job], kinds: Sequence[str]) -> list[Item]:
    """What the models drew of one concept with one seed."""
    sheets = {
        model: cells_of(
            open_picture(work.gallery_file(study, job.spec)).convert("RGB"), len(job.prompts)
        )
        for model, job in jobs.items()
    }
    shared = [k for k in next(iter(jobs.values())).prompts if k in kinds]
    shared = [k for k in shared if len({_prompt(job, k) for job in jobs.values()}) == 1]
    if not shared:
        return []
    training = _training(study, jobs, next(iter(sheets.values()))[0][0].width)
    found = []
    for kind in shared:
        rows = {model: job.prompts[kind] for model, job in jobs.items()}
        cells = {m: sheets[m][list(job.prompts).index(kind)] for m, job in jobs.items()}
        some = next(iter(jobs.values()))
        found += [
            Item(
                concept=some.spec.concept,
                seed=some.spec.seed,
                kind=kind,
                prompt=some.prompts[kind]["prompt"],
                picture=i,
                results={model: jpeg_bytes(own[i], QUALITY) for model, own in cells.items()},
                training=training,
                image_similarity={m: row["image_similarity"] for m, row in rows.items()},
                text_similarity={m: row["text_similarity"] for m, row in rows.items()},
            )
            for i in range(min(map(len, cells.values())))
        ]
    return found


def _prompt(job: _Job, kind: str) -> str | None:
    return job.prompts[kind]["prompt"] if kind in job.prompts else None


def _training(study: Path, jobs: Mapping[str, _Job], side_px: int) -> list[bytes]:
    """What the words were learned from, by the record of a run, as large as what was drawn."""
    for job in jobs.values():
        record = work.run_folder(study, job.spec) / "config.json"
        if not record.is_file():
            continue
        form = {"config": {"train_data_dir": str}}
        given = Path(read_json(record, form, error=UserStudyError)["config"]["train_data_dir"])
        # a study that was moved still has the pictures that it drew or copied
        own = study / "concepts" / given.name
        pixels = read_folder(own if own.is_dir() else given, resolution=side_px, masks=False).pixels
        return [jpeg_bytes(image, QUALITY) for image in to_images(pixels)]
    spec = next(iter(jobs.values())).spec
    raise UserStudyError(
        f"Cannot find the training pictures of {spec.concept} because none of {', '.join(jobs)} "
        f"was trained in {study}; add a setup that learns to the models."
    )
