"""Fuzz every reader, by hand: no error but our own may come out, and none may take long.

PYTHONPATH=tests python tests/fuzz_formats.py SECONDS [SEED [FOLDER]]

With a folder, the smallest file for each thing that a reader says is kept there: that is how
``tests/hostile`` was made, which ``tests/unit/test_hostile_files.py`` reads again.
"""

from __future__ import annotations

import io
import json
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import layouts
from oneword.cli.options import read_toml
from oneword.concepts import card, formats
from oneword.errors import UserError
from oneword.images import read_folder
from oneword.prompts import descriptions, read_prompts
from oneword.runs.folder import RunFolder
from oneword.runs.mirror import Mirror


LIMIT_S = 10
LARGEST = 8000
"""Bytes of a file that is kept."""


def embedding(folder: Path, data: bytes) -> None:
    """A file of learned words."""
    (folder / "x").write_bytes(data)
    formats.read(folder / "x")


def picture(folder: Path, data: bytes) -> None:
    """A picture, its mask and its captions in one, as far as they go."""
    for name in ("a.png", "a.mask.png"):
        (folder / name).write_bytes(data)
    read_folder(folder, resolution=32)


def beside(name: str) -> Callable[[Path, bytes], None]:
    """A text file beside a picture."""

    def read(folder: Path, data: bytes) -> None:
        Image.new("RGB", (32, 32)).save(folder / "a.png")
        (folder / name).write_bytes(data)
        read_folder(folder, resolution=32)
        descriptions.read(folder)

    return read


def text(reader: Callable[[Path], object]) -> Callable[[Path, bytes], None]:
    """A file that one function reads."""

    def read(folder: Path, data: bytes) -> None:
        (folder / "x").write_bytes(data)
        reader(folder / "x")

    return read


def run(name: str) -> Callable[[Path, bytes], None]:
    """A file of a run folder."""

    def read(folder: Path, data: bytes) -> None:
        (folder / "config.json").write_text(json.dumps(RECORD))
        (folder / name).write_bytes(data)
        opened = RunFolder(folder, steps=1)
        opened.standing(RECORD)
        opened.rewind_metrics(3)

    return read


def mirror(folder: Path, data: bytes) -> None:
    """The index of a mirror."""
    (folder / "mirror" / "objects").mkdir(parents=True)
    (folder / "mirror" / "objects" / ("a" * 32)).write_bytes(b"x")
    (folder / "mirror" / "index-00000001.json").write_bytes(data)
    Mirror(f"file://{folder}/mirror").pull(folder / "run")
    assert {p.name for p in folder.iterdir()} <= {"mirror", "run"}


RECORD = {"config": {"seed": 0, "model": {"model": "x"}}, "pictures_sha256": "0"}
READERS = {
    "embedding": embedding,
    "picture": picture,
    "caption": beside("a.txt"),
    "metadata.jsonl": beside("metadata.jsonl"),
    "descriptions": beside("descriptions.json"),
    "prompts": text(read_prompts),
    "toml": text(read_toml),
    "scores": text(card.read_scores),
    "config": run("config.json"),
    "state": run("state.safetensors"),
    "metrics": run("metrics.jsonl"),
    "mirror": mirror,
}


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Whole files of each kind."""
    image = Image.effect_noise((40, 32), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "camera"
    pictures = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000"):
        stream = io.BytesIO()
        image.save(stream, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        pictures.append(stream.getvalue())
    words = [layouts.in_memory(name, folder) for name in layouts.LAYOUTS]
    five = [["a b"] * 5]
    return {
        "embedding": words,
        "picture": pictures,
        "caption": [b"a photo of a <cat>", "a café".encode("utf-16"), "\ufeffcafé".encode()],
        "metadata.jsonl": [b'{"file_name": "a.png", "text": "a <cat>"}\n{"file_name": "./a.png"}'],
        "descriptions": [json.dumps({"short": five[0], "long": five[0]}).encode()],
        "prompts": [b"# places\na cat\n"],
        "toml": [b'seed = 1\n[[jobs]]\nname = "x"\ntrain_data_dir = "y"\n'],
        "scores": [b'{"scores": {"a": {"image_similarity": 1, "text_similarity": null}}}'],
        "config": [json.dumps(RECORD).encode()],
        "state": words[:8],
        "metrics": [b'{"step": 1, "time_s": 0.5, "loss": 1}\n{"step": 2, "time_s": 1}\n'],
        "mirror": [json.dumps({"config.json": "objects/" + "a" * 32}).encode()],
    }


_PIECES = [b"\0", b"\xff", b"[" * 5000, b"{", b"null", b"-1", b"1e999", b"../", b'"', b"\x1b[2J",
           b"9" * 5000, b"\xef\xbb\xbf", b"\xff\xfe", b"true", b"\r", b"[]", b"%!PS"]  # fmt: skip


def changed(data: bytes, draw: random.Random) -> bytes:
    """A file with some of its bytes replaced, left out, doubled or cut off."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        edge = draw.choice([len(out), min(len(out), 400)])
        place = draw.randint(0, edge)
        what = draw.random()
        if what < 0.4 and out:
            out[min(place, len(out) - 1)] = draw.randrange(256)
        elif what < 0.7:
            out[place : place + draw.randint(0, 8)] = draw.choice(_PIECES)
        elif what < 0.8:
            out[place:place] = out[place : place + draw.randint(1, 60)]
        elif what < 0.9:
            del out[place : place + draw.randint(1, 60)]
        else:
            del out[place:]
    return bytes(out)


def main() -> None:
    """Read changed files for a while, and say what should not have come out."""
    until = time.monotonic() + float(sys.argv[1])
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    warnings.simplefilter("ignore")
    count = 0
    corpus = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    kept: dict[tuple[str, str], bytes] = {}
    with tempfile.TemporaryDirectory() as made:
        known = seeds(Path(made))
        while time.monotonic() < until:
            kind = draw.choice([*READERS])
            data = changed(draw.choice(known[kind]), draw)
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic()
                try:
                    READERS[kind](Path(folder), data)
                except UserError as error:
                    # what is named differs from file to file
                    said = kind, re.sub(r"'[^']*'|b\"[^\"]*\"|\d+|\(.*\)|\S*/\S*", "", str(error))
                    if len(data) <= min(LARGEST, len(kept.get(said, bytes(LARGEST)))):
                        kept[said] = data
                except BaseException:
                    Path(f"fuzzed-{kind}-{count}").write_bytes(data)
                    print(kind, f"fuzzed-{kind}-{count}", flush=True)  # noqa: T201
                    raise
                if time.monotonic() - start > LIMIT_S:
                    raise TimeoutError(f"{kind} took {time.monotonic() - start:.0f} s")
            count += 1
    print(f"{count} files, no error but our own")  # noqa: T201
    if corpus is not None:
        corpus.mkdir(exist_ok=True)
        for i, ((kind, _), data) in enumerate(sorted(kept.items())):
            (corpus / f"{i:03}-{kind}").write_bytes(data)
        print(f"{len(kept)} of them in {corpus}")  # noqa: T201


if __name__ == "__main__":
    main()
