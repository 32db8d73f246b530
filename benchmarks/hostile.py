"""Some 300 hostile or unlucky inputs, one for each place where a verb reads a file: what comes out.

    python benchmarks/hostile.py --json hostile.json

Each place (a picture, a mask, captions, options, a concept, a run folder's files, a study's rows)
gets each content (nothing, noise, a bomb, a FIFO, a device, text of a wrong encoding, JSON that is
nested too deep, a pickle that calls a function, ...), and the verb runs as a person would start it,
on microworld-nano, in a process of its own, forked when the libraries are loaded. Wanted: an exit
status of 0, 1 or 2, a sentence where it is not 0, no traceback, an answer (a refusal within 10 s of
processor time), and less than 1 GB above what the loaded libraries hold.

Exit status: 0, or 1 with the cases that fell short.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import io
import json
import multiprocessing
import os
import pickle
import resource
import struct
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from _common import record
from PIL import Image
from safetensors.torch import save as safetensors_bytes

import oneword
from oneword.cli.main import main as command


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Give every place every content."""

    places: tuple[str, ...] = ()
    """Names of places; none: all of them."""
    contents: tuple[str, ...] = ()
    """Names of contents; none: all of them."""
    json: Path | None = None
    """File for the table."""


LIMIT_S, LIMIT_BYTES = 10, 1 << 30
HANG_S = 120  # also of a command that has work to do, on a busy machine
MODEL = ["--model", "microworld-nano", "--device", "cpu"]
QUICK = ["--max-train-steps", "2", "--validation-steps", "0", "--evaluation-steps", "1"]
DRAWN = ["--num-inference-steps", "2"]


# --- contents


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bomb() -> bytes:
    """A PNG that says it has 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0" * 99))
    )


class _Calls:
    def __reduce__(self) -> Any:
        return (os.system, ("touch ran-code",))


def _zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 200_000_000)
        archive.writestr("archive/version", "3")
    return stream.getvalue()


def _lying_header() -> bytes:
    """A safetensors file whose header speaks of more than there is."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 20, 1 << 20],
                               "data_offsets": [0, 1 << 42]}}).encode()  # fmt: skip
    return struct.pack("<Q", len(header)) + header


def _half_a_picture() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "PNG")
    return stream.getvalue()[:1500]


def _written(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


CONTENTS: dict[str, Callable[[Path], None]] = {
    "empty": _written(b""),
    "noise": _written(bytes(torch.randint(256, (5000,), dtype=torch.uint8).tolist())),
    "zeros": _written(bytes(100_000)),
    "half a picture": _written(_half_a_picture()),
    "picture bomb": _written(_png_bomb()),
    "zip bomb": _written(_zip_bomb()),
    "lying header": _written(_lying_header()),
    "pickle that calls": _written(pickle.dumps(_Calls())),
    "PostScript": _written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"),
    "deep JSON": _written(b"[" * 100_000 + b"]" * 100_000),
    "odd JSON": _written(
        b'{"file_name": null, "text": 1e999, "config": [], "step": "x", "a": {"": NaN}}'
    ),
    "JSON list": _written(b"[1, null, {}, \"x\"]"),
    "UTF-16 without BOM": _written("seed = 1\na photo of a cat\n".encode("utf-16-le")),
    "Latin-1": _written("caf\xe9 = \xfc\n".encode("latin-1")),
    "escapes": _written(b'seed = "\x1b[2J\x1b]0;x\x07"\n[bold]<script>alert(1)</script>\n'),
    "one huge line": _written(b"a" * 30_000_000),
    "words of nan": _written(
        safetensors_bytes({"<x>": torch.full((1, 64), float("nan")), "[red]": torch.ones(0, 64)})
    ),
    "many words": _written(
        safetensors_bytes({f"<w{i}>": torch.ones(1) for i in range(20_000)})
    ),
    "folder": lambda path: path.mkdir(),
    "FIFO": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}  # fmt: skip


# --- places: prepare a folder, and say the command that reads the hostile file in it

Place = tuple[str, list[str]]
"""Where the hostile file goes, and the command."""


def _pictures(folder: str = "pictures", num: int = 2) -> str:
    Path(folder).mkdir(parents=True)
    for i in range(num):
        Image.effect_noise((64, 64), 40 + 30 * i).convert("RGB").save(f"{folder}/{i}.png")
    return folder


def _word() -> str:
    concept = oneword.Concept(placeholder_token="<mug>", rows={"clip": torch.randn(1, 64)})
    oneword.save_concept(concept, "word.safetensors")
    return "word.safetensors"


def _run(name: str = "run") -> list[str]:
    """Train a little, so that there is a run folder; its command."""
    words = ["train", "--train-data-dir", _pictures(), "--output-dir", name, *MODEL, *QUICK]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert command(words) == 0
    return words


def _in_pictures(name: str, *options: str) -> Callable[[], Place]:
    return lambda: (
        f"{_pictures()}/{name}",
        ["train", "--train-data-dir", "pictures", "--output-dir", "run", *MODEL, *QUICK, *options],
    )


def _in_run(name: str) -> Callable[[], Place]:
    def place() -> Place:
        words = _run()
        Path("run", name).unlink(missing_ok=True)
        return f"run/{name}", words

    return place


def _option(*words: str, pictures: bool = True) -> Callable[[], Place]:
    """A command with X where the file stands."""

    def place() -> Place:
        if pictures:
            _pictures()
        _word()
        return "hostile.x", [{"X": "hostile.x"}.get(word, word) for word in words]

    return place


def _study(name: str) -> Callable[[], Place]:
    def place() -> Place:
        Path("study", name).parent.mkdir(parents=True)
        _pictures("concepts/a")
        return f"study/{name}", [
            "study", "--output-dir", "study", "--concepts", "concepts", "--setups", "one-word",
            "--seeds", "0", "--num-images-per-prompt", "1", *MODEL, "--max-train-steps", "2",
            *DRAWN, "--prompts", "a {}", "--dry-run",
        ]  # fmt: skip

    return place


def _in_jobs() -> Place:
    _pictures("jobs/good")
    _pictures("jobs/bad")
    return "jobs/bad/2.png", ["train", "--jobs", "jobs", "--output-dir", "out", *MODEL, *QUICK]


TRAIN = ("train", "--train-data-dir", "pictures", "--output-dir", "run", *MODEL, *QUICK)
PLACES: dict[str, Callable[[], Place]] = {
    "train: a picture": _in_pictures("2.png"),
    "train: a mask": _in_pictures("1.mask.png", "--masks"),
    "train: a caption": _in_pictures("1.txt", "--prefix-captions"),
    "train: metadata.jsonl": _in_pictures("metadata.jsonl", "--prefix-captions"),
    "train: descriptions.json": _in_pictures("descriptions.json", "--setup", "captions-short"),
    "train: options": _option(*TRAIN, "--config", "X"),
    "train: class pictures": _option(
        *TRAIN, "--setup", "custom-diffusion", "--class-data-dir", "X", "--num-class-images", "2"
    ),
    "train: jobs": _option("train", "--jobs", "X", "--output-dir", "run", *MODEL, *QUICK),
    "train: a job's picture": _in_jobs,
    "train: the output folder": _option(
        "train", "--train-data-dir", "pictures", "--output-dir", "X", *MODEL, *QUICK
    ),
    "train: a model": _option("train", "--train-data-dir", "pictures", "--output-dir", "run",
                              "--model", "X", *QUICK),
    "run: config.json": _in_run("config.json"),
    "run: state": _in_run("state.safetensors"),
    "run: metrics.jsonl": _in_run("metrics.jsonl"),
    "run: concept": _in_run("learned_embeds.safetensors"),
    "generate: a concept": _option(
        "generate", "--concepts", "X", "--prompts", "a {}", *MODEL, *DRAWN, "--output-dir", "out"
    ),
    "generate: a picture": _option(
        "generate", "--prompts", "a cat", "--image", "X", *MODEL, *DRAWN, "--output-dir", "out"
    ),
    "edit: a picture": _option(
        "edit", "X", "--mask", "pictures/0.png", "--prompt", "a cat", *MODEL, *DRAWN,
        "--output-dir", "out",
    ),
    "edit: a mask": _option(
        "edit", "pictures/1.png", "--mask", "X", "--prompt", "a cat", *MODEL, *DRAWN,
        "--output-dir", "out",
    ),
    "evaluate: a concept": _option(
        "evaluate", "--concept", "X", "--train-data-dir", "pictures", *MODEL, *DRAWN,
        "--num-images-per-prompt", "1", "--output-dir", "out",
    ),
    "evaluate: pictures": _option(
        "evaluate", "--concept", "word.safetensors", "--train-data-dir", "X", *MODEL, *DRAWN,
        "--num-images-per-prompt", "1", "--output-dir", "out",
    ),
    "compose: a folder": _option(
        "compose", "--images", "pictures", "X", "--placeholder-tokens", "<a>", "<b>",
        "--initializer-tokens", "mug", "mug", *MODEL, "--max-train-steps", "2",
        "--output-dir", "out",
    ),
    "debias: a folder": _option(
        "debias", "doctor", "--images", "X", *MODEL, "--max-train-steps", "2", "--num-images", "1",
        *DRAWN, "--output-dir", "out",
    ),
    "study: results": _study("results.jsonl"),
    "study: a job's rows": _study("jobs/a--one-word--seed0.jsonl"),
    "study: its record": _study("study.json"),
    "study: rows of another": _option("study", "--output-dir", "study", "--rows", "X", "--report"),
    "concept inspect": _option("concept", "inspect", "X"),
    "concept convert": _option("concept", "convert", "X", "--to", "a1111", "--output-dir", "out"),
    "concept merge": _option(
        "concept", "merge", "word.safetensors", "X", "--output", "both.safetensors"
    ),
    "concept extract": _option("concept", "extract", "X", "--output-dir", "out"),
    "concept card: scores": _option(
        "concept", "card", "word.safetensors", "--license", "mit", "--no-preview", "--scores", "X",
        *MODEL,
    ),
    "models: a folder": _option("models", "--probe", "X"),
}  # fmt: skip


# --- running


def _child(place: str, content: str, answer: Any) -> None:
    """Run one case in a folder of its own; send status, time, peak and what was printed."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        where, words = PLACES[place]()
        CONTENTS[content](Path(where))
        before = _peak()
        out, started = io.StringIO(), time.process_time()
        try:
            with redirect_stdout(out), redirect_stderr(out):
                code = command(words)
        except BaseException:  # what should not come out
            code = -1
            out.write(traceback.format_exc())
        ran = any(Path(folder).rglob("ran-code"))
        answer.send((code, time.process_time() - started, _peak() - before, ran, out.getvalue()))


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(place: str, content: str) -> dict[str, Any]:
    """One case."""
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(place, content, theirs)
    )
    process.start()
    theirs.close()
    row: dict[str, Any] = {"place": place, "content": content}
    try:
        if not ours.poll(HANG_S):
            process.kill()
            return row | {"code": None, "fault": "hangs"}
        code, seconds, peak, ran, text = ours.recv()
    except EOFError:
        process.join()
        return row | {"code": process.exitcode, "fault": f"died with {process.exitcode}"}
    process.join()
    fault = ""
    if "Traceback" in text or code not in (0, 1, 2):
        fault = "traceback"
    elif ran:
        fault = "ran code"
    elif peak > LIMIT_BYTES:
        fault = f"{peak / 1e9:.1f} GB"
    elif code != 0 and seconds > LIMIT_S:
        fault = f"{seconds:.0f} s"
    elif code != 0 and not text.strip():
        fault = "no sentence"
    elif "\x1b[2J" in text:
        fault = "escapes"
    last = [line for line in text.splitlines() if line.strip()][-1:]
    said = text[-3000:] if fault else "".join(last)
    return row | {
        "code": code, "time_s": round(seconds, 2), "peak_mb": peak >> 20, "fault": fault,
        "said": said,
    }  # fmt: skip


def main() -> int:
    """Run the command line."""
    arguments = tyro.cli(Arguments, description=__doc__)
    places, contents = arguments.places or tuple(PLACES), arguments.contents or tuple(CONTENTS)
    for kind, names, known in (("place", places, PLACES), ("content", contents, CONTENTS)):
        unknown = [name for name in names if name not in known]
        if unknown:
            print(
                f"A {kind} must be one of {', '.join(known)}, got {unknown[0]!r}.", file=sys.stderr
            )
            return 2
    torch.set_num_threads(1)
    oneword.load_backbone(oneword.ModelConfig(model="microworld-nano", device="cpu"))
    rows: list[dict[str, Any]] = []
    for place in places:
        for content in contents:
            row = run(place, content)
            rows.append(row)
            said = row.get("said", "")
            print(f"{row['fault'] or 'ok':<10} {row['code']!s:<4} {place:<26} {content:<20}",
                  said if row["fault"] else said[-100:], flush=True)  # fmt: skip
    faults = [row for row in rows if row["fault"]]
    slowest = max(row.get("time_s", 0) for row in rows)
    peak = max(row.get("peak_mb", 0) for row in rows)
    print(f"{len(rows)} inputs, {len(faults)} faults; at most {slowest:.1f} s of processor time")
    print(f"and {peak} MB above the loaded libraries")
    record(arguments.json, model=None, rows=rows)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
