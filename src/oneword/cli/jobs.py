"""``oneword train --jobs``: many words at once, from a folder of folders or a jobs file."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from oneword._files import write_json_atomic
from oneword.cli import options, reports
from oneword.cli.arguments import JobsArguments, TrainArguments
from oneword.cli.progress import tenths, time_left
from oneword.cli.train import EXIT_CODES, summary
from oneword.config.runs import TrainConfig
from oneword.errors import ConfigError, UserError
from oneword.images import read_folder
from oneword.models.loading import load_backbone
from oneword.runs import train as runs
from oneword.runs.cluster import train_on_cluster
from oneword.runs.many import JobOutcome, train_many


# with one value each
_OWN = ("--jobs", "--slots", "--cluster", "--workers", "--json", "--output-dir", "--mirror")


def run(chosen: JobsArguments, words: Sequence[str]) -> int:
    """Train every job; 0 if all ended well."""
    slots = _slots(chosen.slots)
    if chosen.workers is not None and (chosen.workers < 1 or chosen.cluster is None):
        raise ConfigError(
            f"--workers must be 1 or more and goes with --cluster, got {chosen.workers} and "
            f"{chosen.cluster}."
        )
    configs, failed = _configs(chosen, _shared(words))
    if chosen.dry_run:
        return _dry_run(configs, failed)
    outcomes = [JobOutcome(name=name, outcome=None, error=error) for name, error in failed]
    with _shown_progress(len(configs) + len(failed)) as tell:
        for outcome in outcomes:
            tell(outcome.name, "ended", outcome)
        if configs and chosen.cluster is None:
            outcomes += train_many(configs, slots=slots, on_event=tell)
        elif configs:
            outcomes += train_on_cluster(
                configs,
                address=chosen.cluster,
                workers=chosen.workers,
                slots=slots,
                on_event=tell,
            )
    _write_reports(outcomes, configs)
    numbers = {o.name: summary(o.outcome) if o.outcome else _failure(o.error) for o in outcomes}
    if chosen.json is not None:
        write_json_atomic(chosen.json, numbers)
    statuses = [one["status"] for one in numbers.values()]
    learned = sum(status in ("finished", "stopped") for status in statuses)
    print(f"{learned} of {len(statuses)} words are learned, in {chosen.output_dir}.")
    for name, one in numbers.items():
        if one["status"] not in ("finished", "stopped"):
            print(f"  {name}: {one['status']}: {one['reason']}")
    if "interrupted" in statuses:
        print("Run the same command again to go on.")
    return max(EXIT_CODES.get(status, 1) for status in statuses)


def _failure(error: str) -> dict[str, Any]:
    return {"status": "failed", "reason": error}


def _slots(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--slots must be auto or a number, 1 or more, got {text!r}.")
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
        elif name != "--dry-run":
            kept.append(word)
    return kept


def _configs(
    chosen: JobsArguments, shared: list[str]
) -> tuple[list[TrainConfig], list[tuple[str, str]]]:
    """Settings of each job, and (name, reason) of those whose settings are wrong."""
    configs, failed = [], []
    for name, words in _jobs(chosen.jobs):
        defaults = ["--placeholder-token", f"<{name}>", "--validation-steps", "0"]
        target = ["--output-dir", str(chosen.output_dir / name)]
        if chosen.mirror is not None:
            target += ["--mirror", f"{chosen.mirror.rstrip('/')}/{name}"]
        try:
            parsed, _ = options.parse(
                TrainArguments, "train", [*defaults, *shared, *words, *target]
            )
        except UserError as error:
            failed.append((name, str(error)))
            continue
        configs.append(options.settings(TrainConfig, parsed))
    return configs, failed


def _jobs(path: Path) -> list[tuple[str, list[str]]]:
    """Each job's name and its own options."""
    if path.is_dir():
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        found = [(_name(p.name), ["--train-data-dir", str(p)]) for p in folders]
    elif path.suffix == ".toml":
        table = options.read_toml(path)
        jobs = table.pop("jobs", None)
        if table or not isinstance(jobs, list) or not all(isinstance(j, dict) for j in jobs):
            raise ConfigError(
                f"The jobs file {path} must hold a [[jobs]] table for each word and nothing "
                f"besides, got {', '.join(sorted(table)) or type(jobs).__name__}."
            )
        found = [_job(path, job) for job in jobs]
    else:
        raise ConfigError(
            f"--jobs must be a folder with a folder of pictures for each word, or a .toml file, got "
            f"{path}{'' if path.exists() else ', which does not exist'}."
        )
    if not found:
        raise ConfigError(f"--jobs must name at least one job, got none in {path}.")
    return found


def _job(path: Path, job: dict[str, Any]) -> tuple[str, list[str]]:
    own = dict(job)
    folder = own.get("train_data_dir", own.get("train-data-dir"))
    if folder is None:
        raise ConfigError(f"Every job of {path} needs a train_data_dir, got {sorted(own)}.")
    name = own.pop("name", Path(str(folder)).name)
    unfit = {"output_dir", "output-dir", "json", "dry_run", "dry-run", "model"} & own.keys()
    if unfit:
        raise ConfigError(
            f"The jobs of {path} must leave {', '.join(sorted(unfit))} to the command line; a job's "
            "run folder is its name in --output-dir."
        )
    return _name(str(name)), options.words_of(TrainArguments, own, path)


def _name(text: str) -> str:
    """A name that can be a folder and, in angle brackets, a placeholder."""
    return re.sub(r"[\s<>{}/\\]+", "-", text).strip("-") or "job"


def _dry_run(configs: Sequence[TrainConfig], failed: Sequence[tuple[str, str]]) -> int:
    plans: dict[str, Any] = {name: _failure(error) for name, error in failed}
    backbone = load_backbone(configs[0].model) if configs else None
    for config in configs:
        try:
            plans[config.output_dir.name] = runs.dry_run(config, backbone)
        except UserError as error:
            plans[config.output_dir.name] = _failure(str(error))
    print(json.dumps(plans, indent=1))
    return 0


def _write_reports(outcomes: Sequence[JobOutcome], configs: Sequence[TrainConfig]) -> None:
    by_name = {config.output_dir.name: config for config in configs}
    for one in outcomes:
        if one.outcome is None or one.outcome.was_finished or one.outcome.concept_file is None:
            continue
        config, result = by_name[one.name], one.outcome.result
        if not len(result.job.pictures):  # left behind on a worker
            pictures = read_folder(config.train_data_dir, resolution=128).pixels
            result = dataclasses.replace(
                result, job=dataclasses.replace(result.job, pictures=pictures)
            )
        prompt = f"a photo of a {result.job.config.placeholder_token}"
        draw = reports.command("generate", "--concepts", one.outcome.folder, "--prompts", prompt)
        outcome = dataclasses.replace(one.outcome, result=result)
        reports.write_run_report(outcome, commands=[draw])


@contextmanager
def _shown_progress(total: int) -> Iterator[Callable[[str, str, Any], None]]:
    """A bar for all words with the time left, and one for each that trains now."""
    console = Console(stderr=True)
    line = tenths(console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console) as bar:
        started = time.monotonic()
        everything = bar.add_task("words", total=total, numbers="")
        tasks: dict[str, Any] = {}
        parts: dict[str, float] = {}

        def show_all() -> None:
            done = sum(parts.values())
            left = (time.monotonic() - started) / done * (total - done) if done else None
            bar.update(everything, completed=int(done), numbers=time_left(left))
            line(done, total, left, f"words: {int(done)}/{total}")

        def tell(name: str, kind: str, data: Any) -> None:
            if kind == "message":
                console.print(f"{name}: {data}", highlight=False, markup=False)
            elif kind == "progress":
                if name not in tasks:
                    tasks[name] = bar.add_task(
                        f"  {name}", total=data["max_train_steps"], numbers=""
                    )
                numbers = f"loss {data['loss']:.4f}  moved {data['distance']:.2f}"
                bar.update(tasks[name], completed=data["step"], numbers=numbers)
                parts[name] = data["step"] / data["max_train_steps"]
                show_all()
            elif kind == "ended":
                if name in tasks:
                    bar.remove_task(tasks.pop(name))
                parts[name] = 1.0
                show_all()
                console.print(f"{name}: {_ending(data)}", highlight=False, markup=False)

        yield tell


def _ending(one: JobOutcome) -> str:
    if one.outcome is None:
        return f"failed: {one.error}"
    before = "has ended before. " if one.outcome.was_finished else ""
    return before + runs.ending(one.outcome.result)
