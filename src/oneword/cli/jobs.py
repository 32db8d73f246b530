"""``oneword train --jobs``: many words at once, from a folder of folders or a jobs file."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from oneword._files import hold, within
from oneword.cli import options, reports, screen
from oneword.cli.arguments import JobsArguments, TrainArguments
from oneword.cli.screen import Display
from oneword.cli.train import EXIT_CODES, show_pictures, summary
from oneword.config.inversion import ResolvedConfig
from oneword.config.runs import TrainConfig
from oneword.errors import ConfigError, UserError
from oneword.images import read_folder
from oneword.models.loading import load_backbone, load_shapes
from oneword.runs import train as runs
from oneword.runs.cluster import train_on_cluster
from oneword.runs.events import Ended, Event, Message, OnEvent, Stepped
from oneword.runs.many import JobOutcome, check_jobs, train_many
from oneword.runs.train import TrainOutcome


# with one value each
_OWN = ("--jobs", "--slots", "--cluster", "--workers", "--json", "--output-dir", "--mirror")


def run(chosen: JobsArguments, words: Sequence[str]) -> int:
    """Train every job; 0 if all ended well."""
    slots = _slots(chosen.slots)
    if chosen.workers is not None and (chosen.workers < 1 or chosen.cluster is None):
        raise ConfigError(
            f"--workers must be 1 or more and used with --cluster, got {chosen.workers} and "
            f"{chosen.cluster}."
        )
    configs, failed = _configs(chosen, _shared(words))
    if not configs:
        raise ConfigError("\n".join(dict.fromkeys(f"{name}: {why}" for name, why in failed)))
    check_jobs(configs)
    if chosen.preview_pictures:
        return _preview(configs, failed)
    if chosen.dry_run:
        return _dry_run(configs, failed)
    with hold(chosen.output_dir):
        return _learn(chosen, configs, failed, slots)


def _learn(
    chosen: JobsArguments,
    configs: list[TrainConfig],
    failed: list[tuple[str, str]],
    slots: int | None,
) -> int:
    outcomes = [JobOutcome(name=name, outcome=None, error=error) for name, error in failed]
    with screen.display() as shown:
        tell = _shown(shown, len(configs) + len(failed))
        for name, error in failed:
            tell(Ended(name, f"failed: {error}", failed=True))
        if chosen.cluster is None:
            outcomes += train_many(configs, slots=slots, on_event=tell)
        else:
            outcomes += train_on_cluster(
                configs,
                address=chosen.cluster,
                workers=chosen.workers,
                slots=slots,
                on_event=tell,
            )
    unreported = _write_reports(outcomes, configs)
    numbers = {o.name: summary(o.outcome) if o.outcome else _failure(o.error) for o in outcomes}
    options.write_json(chosen.json, numbers)
    statuses = [one["status"] for one in numbers.values()]
    learned = sum(status in ("finished", "stopped") for status in statuses)
    options.tell(f"{learned} of {len(statuses)} words are learned, in {chosen.output_dir}.")
    for name, one in numbers.items():
        if one["status"] not in ("finished", "stopped"):
            options.tell(f"  {name}: {one['status']}: {one['reason']}")
    if "interrupted" in statuses:
        options.tell("To resume, run the same command again.")
    for name, reason in unreported.items():
        options.tell(f"  {name}: no report: {reason}")
    return max([EXIT_CODES.get(status, 1) for status in statuses] + [1 for _ in unreported])


def _failure(error: str) -> dict[str, Any]:
    return {"status": "failed", "reason": error}


def _slots(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--slots must be auto or a number of 1 or more, got {text!r}.")
    return int(text)


def _shared(words: Sequence[str]) -> list[str]:
    """The options that every job gets."""
    kept, skip = [], False
    for word in words:
        name, equals, _ = word.replace("_", "-").partition("=")
        if skip:
            skip = False
        elif name in _OWN:
            skip = not equals
        elif name not in ("--dry-run", "--preview-pictures"):
            kept.append(word)
    return kept


def _configs(
    chosen: JobsArguments, shared: list[str]
) -> tuple[list[TrainConfig], list[tuple[str, str]]]:
    """Settings of each job, and (name, reason) of those whose settings are wrong."""
    if chosen.mirror is not None and not chosen.mirror.strip():
        raise ConfigError("mirror must be an fsspec URL of a folder, got an empty one.")
    configs: list[TrainConfig] = []
    failed: list[tuple[str, str]] = []
    for name, words in _jobs(chosen.jobs):
        # as people type it: macOS takes the letters of a folder's name apart
        word = unicodedata.normalize("NFC", name)
        defaults = ["--placeholder-token", f"<{word}>", "--validation-steps", "0"]
        try:
            folder = within(chosen.output_dir, name, error=ConfigError)
            target = ["--output-dir", str(folder)]
            if chosen.mirror is not None:
                target += ["--mirror", f"{chosen.mirror.rstrip('/')}/{name}"]
            own = words() if callable(words) else words
            parsed, _ = options.parse(
                TrainArguments, "train", [*defaults, *shared, *own, *target], alone=False
            )
            configs.append(options.settings(TrainConfig, parsed))
        except UserError as error:
            failed.append((name, str(error)))
    return _apart(configs, failed)


def _apart(
    configs: list[TrainConfig], failed: list[tuple[str, str]]
) -> tuple[list[TrainConfig], list[tuple[str, str]]]:
    """The jobs that can go together: those with a name of their own, and most jobs' model."""
    names = Counter(
        [*(config.output_dir.name for config in configs), *(name for name, _ in failed)]
    )
    models = Counter(config.model for config in configs)
    kept, reasons = [], dict(failed)
    for config in configs:
        name = config.output_dir.name
        if names[name] > 1:
            reasons[name] = f"Job names must differ, got {name!r} {names[name]} times."
        elif config.model != models.most_common(1)[0][0]:
            reasons[name] = (
                "Cannot train this job with the others because its model or model settings "
                "differ; train it in another call."
            )
        else:
            kept.append(config)
    return kept, list(reasons.items())


def _jobs(path: Path) -> list[tuple[str, list[str] | Callable[[], list[str]]]]:
    """Each job's name, and its own options or what makes them, which may refuse."""
    found: list[tuple[str, list[str] | Callable[[], list[str]]]]
    if path.is_dir():
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        found = [(_name(p.name), ["--train-data-dir", str(p)]) for p in folders]
    elif path.suffix == ".toml":
        table = options.read_toml(path)
        jobs = table.pop("jobs", None)
        if table or not isinstance(jobs, list) or not all(isinstance(j, dict) for j in jobs):
            raise ConfigError(
                f"The jobs file {path} must contain only [[jobs]] tables, one per word, got "
                f"{', '.join(sorted(table)) or type(jobs).__name__}."
            )
        found = [
            (_name_of(job) or f"job-{place}", partial(_words, path, job))
            for place, job in enumerate(jobs, start=1)
        ]
    else:
        raise ConfigError(
            "--jobs must be a folder with one subfolder of pictures per word, or a .toml file, "
            f"got {path}{'' if path.exists() else ', which does not exist'}."
        )
    if not found:
        raise ConfigError(f"--jobs must contain at least one job, got none in {path}.")
    return found


_FOLDER = ("train_data_dir", "train-data-dir")


def _name_of(job: dict[str, Any]) -> str:
    """A job's name, or that of its folder; empty where it has neither."""
    folder = next((job[key] for key in _FOLDER if key in job), "")
    text = str(job.get("name", Path(str(folder)).name))
    return _name(text) if text else ""


_OF_THE_CALL = {"output_dir", "model"} | (
    {field.name for field in dataclasses.fields(TrainArguments)}
    - {field.name for field in dataclasses.fields(TrainConfig)}
)
"""Options that a job has not of its own."""


def _words(path: Path, job: dict[str, Any]) -> list[str]:
    """A job's own options."""
    own = {key: value for key, value in job.items() if key != "name"}
    if not own.keys() & {*_FOLDER}:
        raise ConfigError(
            f"Every job in {path} must have a train_data_dir, got only {sorted(own)}."
        )
    unfit = sorted(key for key in own if key.replace("-", "_") in _OF_THE_CALL)
    if unfit:
        raise ConfigError(
            f"Cannot set {', '.join(unfit)} for each job of {path} because they hold for all "
            "jobs; pass them on the command line. A job's run folder is its name in --output-dir."
        )
    return options.words_of(TrainArguments, own, path)


def _name(text: str) -> str:
    """A name that can be a folder and, in angle brackets, a placeholder."""
    return re.sub(r"[\s<>{}/\\]+", "-", text).strip("-.") or "job"


def _preview(configs: Sequence[TrainConfig], failed: Sequence[tuple[str, str]]) -> int:
    """A sheet for each word; what went wrong with others is said."""
    backbone = load_shapes(configs[0].model)
    wrong = list(failed)
    for config in configs:
        try:
            show_pictures(config, backbone)
        except UserError as error:
            wrong.append((config.output_dir.name, str(error)))
    for name, error in wrong:
        options.say(f"{name}: {error}")
    return int(len(wrong) == len(configs) + len(failed))


def _dry_run(configs: Sequence[TrainConfig], failed: Sequence[tuple[str, str]]) -> int:
    plans: dict[str, Any] = {name: _failure(error) for name, error in failed}
    backbone = load_backbone(configs[0].model) if configs else None
    for config in configs:
        try:
            plans[config.output_dir.name] = runs.dry_run(config, backbone)
        except UserError as error:
            plans[config.output_dir.name] = _failure(str(error))
    options.tell(json.dumps(plans, indent=1))
    return int(all(plan.get("status") == "failed" for plan in plans.values()))


def _write_reports(
    outcomes: Sequence[JobOutcome], configs: Sequence[TrainConfig]
) -> dict[str, str]:
    """Give every word that has ended its report; why some got none, by name."""
    by_name = {config.output_dir.name: config for config in configs}
    unreported = {}
    for one in outcomes:
        if one.outcome is None or one.outcome.concept_file is None:
            continue
        if one.outcome.was_finished and (one.outcome.folder / reports.REPORT).is_file():
            continue
        try:
            _write_report(one.outcome, by_name[one.name])
        except (UserError, OSError) as error:
            unreported[one.name] = str(error)
    return unreported


def _write_report(outcome: TrainOutcome, config: TrainConfig) -> None:
    result = outcome.result
    own = result.job.config
    # left behind on a worker
    if not len(result.job.pictures) and isinstance(own, ResolvedConfig):
        pictures = read_folder(
            config.train_data_dir,
            resolution=128,
            fit=own.square_fit,
            interpolation=own.interpolation,
        ).pixels
        result = dataclasses.replace(result, job=dataclasses.replace(result.job, pictures=pictures))
    prompt = f"a photo of a {result.job.config.placeholder_token}"
    draw = reports.drawing(config.model.model, outcome.folder, prompt)
    reports.write_run_report(dataclasses.replace(outcome, result=result), commands=[draw])


def _shown(display: Display, total: int) -> OnEvent:
    """A bar for all words with the time left, and one for each that trains now."""
    started = time.monotonic()
    everything = display.bar("words", total)
    parts: dict[str, float] = {}

    def show_all() -> None:
        done = sum(parts.values())
        left_s = (time.monotonic() - started) / done * (total - done) if done else None
        everything.show(done, left_s=left_s)

    def on_event(event: Event) -> None:
        match event:
            case Message():
                display.say(f"{event.job}: {event.text}")
            case Stepped():
                numbers = f"loss {event.loss:.4f}  moved {event.distance:.2f}"
                display.bar(f"  {event.job}", event.max_train_steps).show(event.step, numbers)
                parts[event.job] = event.step / event.max_train_steps
                show_all()
            case Ended():
                display.remove(f"  {event.job}")
                parts[event.job] = 1.0
                show_all()
                display.say(f"{event.job}: {event.text}")
            case _:
                pass

    return on_event
