"""What is left after kills at random moments, of two writers at once, and on a full disk.

    python benchmarks/kills.py --kills 100
    python benchmarks/kills.py --pairs 20
    python benchmarks/kills.py --full-disk        # Linux, as root: it mounts small tmpfs disks

Every command (``train``, ``train --jobs``, ``study``, ``generate``, ``compose``, ``debias``,
``concept convert``) runs on the embedded microworld-nano in a process of its own, forked when the
libraries are loaded, on one thread. Its results are compared with those of an undisturbed one: all
files there, none besides, and their content the same but for times (of training and drawing, in
metadata, metrics, rows and reports).

--kills: SIGKILL at a moment drawn from the command's whole time, up to three times in a row; then
the same command again, to its end. --pairs: the command twice at the same moment; one must end
well, the other be refused with a sentence. --full-disk: the disk of the output folder fills up as
the command opens its first, second, ... file for writing; it must end with a sentence, leave no
temporary file, and go on to the same results when there is room again.

Exit status: 0, or 1 with what went wrong.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import oneword
from oneword._files import leftovers


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Disturb every command, and see what comes of it."""

    kills: int = 0
    """Kills in all."""
    pairs: int = 0
    """Commands started twice at once, in all."""
    full_disk: bool = False
    """Fill the disk at every write."""
    verbs: tuple[str, ...] = ()
    """Commands; none: all of them."""
    seed: int = 0
    """Of the moments of the kills."""


_FORK = multiprocessing.get_context("fork")
_MODEL = ("--model", "microworld-nano", "--device", "cpu", "--dtype", "fp32")
_LEARN = ("--train-batch-size", "2", "--num-evaluation-samples", "2", "--evaluation-steps", "4",
          "--no-early-stopping")  # fmt: skip
_STEPS = 24
_LONG = 300  # steps of those that are started twice, so that the second meets the first
_SHIPPED = Path(oneword.__file__).parent / "microworld" / "pictures"
_DISK_MB = 48
_ROOM = 2**20  # bytes that are asked for at once to fill a disk
_ROUNDING = 1e-4  # of a word's rows, relative: its batch was shared with other words
_IN_A_ROW = 3


def _verbs(steps: int) -> dict[str, list[str]]:
    learn = [*_MODEL, *_LEARN, "--max-train-steps", str(steps)]
    saved = ["--checkpointing-steps", "4"]
    draw = ["--num-inference-steps", "3"]
    return {
        "train": ["train", *learn, *saved, "--train-data-dir", "jobs/mug", "--placeholder-token",
                  "<x>", "--initializer-token", "mug", "--validation-steps", "8",
                  "--num-validation-images", "1", "--save-steps", "6", "--output-dir", "out/run",
                  "--mirror", "file://out/mirror", "--json", "out/told.json"],
        "jobs": ["train", "--jobs", "jobs", *learn, *saved, "--initializer-token", "mug",
                 "--slots", "2", "--output-dir", "out/runs", "--json", "out/told.json"],
        "study": ["study", *learn, *draw, "--concepts", "jobs/mug", "jobs/bird", "--setups",
                  "one-word", "image-only", "--seeds", "0", "--num-images-per-prompt", "1",
                  "--slots", "2", "--output-dir", "out/study", "--json", "out/told.json"],
        "generate": ["generate", *_MODEL, *draw, "--concepts", "words/mug.safetensors",
                     "words/bird.safetensors", "--prompts", "a photo of a {}", "a {} on the moon",
                     "--num-images-per-prompt", "3", "--gallery",
                     "--output-dir", "out/drawn", "--json", "out/told.json"],
        "compose": ["compose", *learn, *saved, "--images", "jobs/mug", "jobs/bird",
                    "--placeholder-tokens", "<one>", "<two>", "--initializer-tokens", "mug", "bird",
                    "--output-dir", "out/run"],
        "debias": ["debias", "doctor", *learn, *draw, "--images", "jobs/mug", "--num-images", "4",
                   "--output-dir", "out/fair", "--json", "out/told.json"],
        "concept": ["concept", "convert", *(f"words/{n}.safetensors" for n in _NAMES),
                    "--to", "a1111", "--output-dir", "out/words"],
    }  # fmt: skip


_NAMES = {"mug": "gold-mug", "bird": "parrot", "robot": "snowman"}
"""Folders of pictures, and what ships in them."""


def main() -> int:
    """Run what is asked for, print a table."""
    arguments = tyro.cli(Arguments)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    _load()
    names = arguments.verbs or tuple(_verbs(_STEPS))
    started, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        if arguments.kills:
            wrong += _kills(Path(place), names, arguments.kills, random.Random(arguments.seed))
        if arguments.pairs:
            wrong += _pairs(Path(place), names, arguments.pairs)
        if arguments.full_disk:
            wrong += _full_disks(Path(place), names)
    for line in wrong:
        print(f"wrong: {line}")
    print(f"{len(wrong)} things went wrong; {time.monotonic() - started:.0f} s.")
    return 1 if wrong else 0


def _load() -> None:
    """What every command needs, once."""
    import torch

    from oneword.cli import (  # noqa: F401
        compose,
        concept,
        debias,
        generate,
        jobs,
        main,
        study,
        train,
    )

    torch.set_num_threads(1)
    oneword.load_backbone(oneword.ModelConfig(model="microworld-nano", device="cpu"))


# --- processes -----------------------------------------------------------------------------------


def _start(words: Sequence[str], log: Path, before: Callable[[], None] | None = None) -> Any:
    process = _FORK.Process(target=_follow, args=(list(words), log, before))
    process.start()
    return process


def _follow(words: list[str], log: Path, before: Callable[[], None] | None) -> None:
    from oneword.cli.main import main as verb

    if before is not None:
        before()
    with log.open("a") as output, redirect_stdout(output), redirect_stderr(output):
        code = verb(words)
        output.flush()
    os._exit(code)


def _run(words: Sequence[str], log: Path, before: Callable[[], None] | None = None) -> int:
    process = _start(words, log, before)
    process.join(600)
    return process.exitcode


@contextlib.contextmanager
def _inside(place: Path, name: str) -> Iterator[Path]:
    """A fresh folder with pictures and words; paths are relative, and so always the same."""
    folder = place / name
    folder.mkdir()
    for noun, shipped in _NAMES.items():
        shutil.copytree(_SHIPPED / shipped, folder / "jobs" / noun)
    (folder / "words").mkdir()
    for noun in _NAMES:
        oneword.save_concept(_made_up(noun), folder / "words" / f"{noun}.safetensors")
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir("/")
        shutil.rmtree(folder)


def _made_up(noun: str) -> oneword.Concept:
    """A word that nobody learned."""
    import torch

    backbone = oneword.load_backbone(oneword.ModelConfig(model="microworld-nano", device="cpu"))
    phase = float(len(noun))
    rows = {
        name: 0.4 * torch.sin(phase + torch.arange(2 * v.dim, dtype=torch.float32)).view(2, v.dim)
        for name, v in backbone.vocabularies.items()
    }
    return oneword.Concept(placeholder_token=f"<{noun}>", rows=rows)


@dataclass(frozen=True)
class Results:
    """What a command left."""

    digests: dict[str, str]
    """Of every file but for times, by name."""
    rows: dict[str, np.ndarray]
    """Of every learned word, by its file's name."""


def _undisturbed(place: Path, words: Sequence[str]) -> tuple[Results, float]:
    """What the command gives, and the time that it takes, s."""
    with _inside(place, "whole") as folder:
        started = time.monotonic()
        code = _run(words, Path("log"))
        elapsed = time.monotonic() - started
        if code:
            raise SystemExit(f"`oneword {' '.join(words)}` ended with {code}: {_end(Path('log'))}")
        return _results(folder / "out"), elapsed


def _end(log: Path) -> str:
    return log.read_text()[-600:]


# --- results -------------------------------------------------------------------------------------


def _results(folder: Path) -> Results:
    """What lies in a command's output folder now."""
    found, rows = {}, {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("mirror/"):
            found[name] = _digest(path)
        if path.name == "learned_embeds.safetensors":
            word = oneword.load_concept(path).rows
            rows[name] = np.concatenate([word[encoder].numpy().ravel() for encoder in sorted(word)])
    if (folder / "mirror").is_dir():
        word = _digest(folder / "mirror" / "learned_embeds.safetensors")
        found["mirror"] = word
    found.pop("run/.mirror.json", None)  # counts the writings
    return Results(found, rows)


_TIMES = re.compile(
    r'("(train_time_s|draw_time_s|time_s|seconds)": )[0-9.e+-]+'
    r"|(?<=steps and )\d+(?= s)|Training took [0-9.]+ hours|scoring [0-9.]+ hours"
)


def _digest(path: Path) -> str:
    """The content without times, as text or as a hash."""
    import hashlib

    from PIL import Image

    data = path.read_bytes()
    if path.suffix == ".safetensors":
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header["__metadata__"] = sorted(header.get("__metadata__", {}).items())
        data = json.dumps(header, sort_keys=True).encode() + data[8 + length :]
        data = _TIMES.sub("", data.decode("latin-1").replace('\\"', '"')).encode("latin-1")
    elif path.suffix == ".pt":
        concept = oneword.load_concept(path)
        rows = [concept.rows[name].numpy().tobytes() for name in sorted(concept.rows)]
        data = b"".join([concept.placeholder_token.encode(), *rows])
    elif path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            data = np.asarray(picture).tobytes() + repr(getattr(picture, "text", {})).encode()
    elif path.suffix == ".parquet":
        data = b""  # what results.jsonl holds, with its times
    else:
        data = _TIMES.sub("", data.decode()).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _astray(expected: Results, found: Results) -> list[str]:
    """Files that are missing, and files that nobody expects."""
    lines = [f"{name} is missing" for name in expected.digests.keys() - found.digests.keys()]
    lines += [f"{name} was left behind" for name in found.digests.keys() - expected.digests.keys()]
    return sorted(lines)


def _differing(expected: Results, found: Results) -> list[str]:
    """What is not as undisturbed."""
    own = found.digests
    parted = (n for n, digest in expected.digests.items() if own.get(n, digest) != digest)
    return sorted([*_astray(expected, found), *(f"{name} differs" for name in parted)])


def _parting(expected: Results, found: Results) -> float:
    """How far the words' rows are from the undisturbed ones at most, relative to their length."""
    return max(
        (
            float(np.linalg.norm(found.rows[name] - rows) / np.linalg.norm(rows))
            for name, rows in expected.rows.items()
            if name in found.rows
        ),
        default=0.0,
    )


# --- kills ---------------------------------------------------------------------------------------


def _kills(place: Path, names: Sequence[str], count: int, draws: random.Random) -> list[str]:
    print("| command | takes, s | kills | series | as undisturbed |", flush=True)
    print("|---|---|---|---|---|")
    wrong: list[str] = []
    for number, name in enumerate(names):
        words = _verbs(_STEPS)[name]
        expected, elapsed = _undisturbed(place, words)
        goal = count * (number + 1) // len(names) - count * number // len(names)
        kills = series = same = 0
        while kills < goal:
            series += 1
            with _inside(place, f"{name}-{series}") as folder:
                for _ in range(min(_IN_A_ROW, goal - kills)):
                    kills += _killed(words, draws.uniform(0, elapsed))
                code = _run(words, Path("log"))
                lines = _differing(expected, _results(folder / "out"))
                lines += [f"{path} was left behind" for path in leftovers(folder)]
                told = name == "concept" and "must not exist yet" in _end(Path("log"))
                if code and not told:  # a kill behind the last write leaves all files there
                    lines.append(f"the last command ended with {code}: {_end(Path('log'))}")
                same += not lines
                wrong += [f"{name}, series {series}: {line}" for line in lines]
        print(f"| {name} | {elapsed:.1f} | {kills} | {series} | {same} |", flush=True)
    return wrong


def _killed(words: Sequence[str], moment_s: float) -> bool:
    process = _start(words, Path("log"))
    process.join(moment_s)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


# --- two writers ---------------------------------------------------------------------------------


_WRITERS = ("train", "jobs", "study", "compose", "debias", "concept")


def _pairs(place: Path, names: Sequence[str], count: int) -> list[str]:
    wrong: list[str] = []
    writers = [name for name in names if name in _WRITERS]
    expected = {}
    for number in range(count):
        name = writers[number % len(writers)]
        words = _verbs(_LONG)[name]
        if name not in expected:
            expected[name], _ = _undisturbed(place, words)
        with _inside(place, f"{name}-{number}") as folder:
            both = [_start(words, Path(f"log-{which}")) for which in (0, 1)]
            for process in both:
                process.join()
            codes = [process.exitcode for process in both]
            lines = _differing(expected[name], _results(folder / "out"))
            if sorted(code == 0 for code in codes) != [False, True]:
                lines.append(f"they ended with {codes}")
            loser = _end(Path(f"log-{0 if codes[0] else 1}"))
            if not re.search("one writer at a time|must not exist yet", loser):
                lines.append(f"the other one was told: {loser}")
        refused = "" if lines else "one is refused"
        print(f"{name}, {number + 1} of {count}: {refused or '; '.join(lines)}", flush=True)
        wrong += [f"two of {name}: {line}" for line in lines]
    return wrong


# --- a full disk ---------------------------------------------------------------------------------


def _full_disks(place: Path, names: Sequence[str]) -> list[str]:
    print(
        "| command | writes | ended with a sentence | went on to the same bits | all files there, "
        f"rows within {_ROUNDING:g} |",
        flush=True,
    )
    print("|---|---|---|---|---|")
    wrong: list[str] = []
    for name in names:
        words = _verbs(_STEPS)[name]
        expected, _ = _undisturbed(place, words)
        write = said = same = near = 0
        full = True
        while full:
            write += 1
            with _inside(place, f"{name}-{write}") as folder, _disk(folder / "out"):
                code = _run(words, Path("log"), _Filler(folder / "out", write))
                fill = folder / "out" / "fill"
                full = fill.exists()
                fill.unlink(missing_ok=True)
                if not full:
                    break
                log = _end(Path("log"))
                lines = [f"{path} was left behind" for path in leftovers(folder)]
                if not code or "Traceback" in log or not re.search("No space left|of room", log):
                    lines.append(f"it ended with {code}: {log}")
                said += not lines
                again = _run(words, Path("log-again"))
                results = _results(folder / "out")
                lines += [f"{path} was left behind" for path in leftovers(folder)]
                if again:
                    lines.append(f"then it ended with {again}: {_end(Path('log-again'))}")
                parted = _differing(expected, results)
                # words that could be written at different steps share their batches otherwise then
                may_round = name in ("jobs", "study") and not _astray(expected, results)
                if parted and may_round and _parting(expected, results) < _ROUNDING:
                    near, parted = near + (not lines), []
                else:
                    same += not lines + parted
                wrong += [f"{name}, write {write}: {line}" for line in lines + parted]
        print(f"| {name} | {write - 1} | {said} | {same} | {near} |", flush=True)
    return wrong


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[None]:
    place.mkdir()
    size = f"size={_DISK_MB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


class _Filler:
    """Fills a disk as a process opens its n-th file there for writing.

    Args:
        disk: Where it is mounted.
        number: Which opening, from 1.
    """

    def __init__(self, disk: Path, number: int) -> None:
        self.disk, self.left, self.busy = str(disk), number, False

    def __call__(self) -> None:
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self.busy or not self.left:
            return
        path, _, flags = arguments
        if not isinstance(path, str | bytes | os.PathLike) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
        if os.path.abspath(os.fsdecode(path)).startswith(self.disk + "/"):
            self.left -= 1
            if not self.left:
                self.busy = True
                self._fill()

    def _fill(self) -> None:
        handle = os.open(f"{self.disk}/fill", os.O_WRONLY | os.O_CREAT)
        size = _ROOM
        while size:
            try:
                os.write(handle, bytes(size))
            except OSError:
                size //= 2
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
