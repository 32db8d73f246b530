"""Whether the code still does the same to the bit: losses, learned rows, files, pixels.

    python benchmarks/same_bits.py --save before.json
    python benchmarks/same_bits.py --compare before.json

Every case runs in a process of its own, on the embedded microworld-nano, in fp32, on one thread:
the ways to learn a word, two words in one batch, words learned together, a run that is killed and
goes on, drawings and edits. The processes are forked when the libraries are loaded, which takes
longer than any case. A case is a command line, and for what no command line can say, a call of the
package's public names; so this file knows no module but ``oneword`` and its ``cli.main``, and works
before and after files are moved. What is compared are the losses of every step, each exactly, and
SHA-256 digests.

Left out of the digests: the time that training took, which a concept file's metadata holds, the
times in metrics.jsonl, the versions in config.json, and the order of the metadata's keys in a
safetensors file, which the library draws anew in each process. The numbers depend on the processor
and on the versions of the libraries, so the saved file belongs to one machine and is not committed.
Exit status: 0, or 1 with the names of what differs.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from PIL import Image

import oneword


if TYPE_CHECKING:
    from oneword import Concept, InversionConfig, Job


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Run the cases, print their digests, and save them or compare them."""

    cases: tuple[str, ...] = ()
    """Names of cases; none: all of them."""
    jobs: int = 1
    """Processes at once."""
    save: Path | None = None
    """File to write the digests to."""
    compare: Path | None = None
    """File of an earlier run to compare with."""


Found = dict[str, Any]
"""What a case gave, by name: losses as hexadecimal floats, digests, statuses."""
MODEL = "microworld-nano"
STEPS = 12
_PICTURE_PX = 96  # more than the model draws, so that pictures are made smaller
_TIMEOUT_S = 300
_FORK = multiprocessing.get_context("fork")
_ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
_BASE = ("--model", MODEL, "--device", "cpu", "--dtype", "fp32", "--evaluation-steps", "1",
         "--early-stopping", "False", "--train-batch-size", "4", "--seed", "3")  # fmt: skip
_TRAIN = ("train", "--train-data-dir", "pictures", "--output-dir", "run", *_BASE,
          "--max-train-steps", str(STEPS), "--checkpointing-steps", "5")  # fmt: skip
_QUIET = ("--validation-steps", "0")
_NOUN = ("--initializer-token", "mug")


def main() -> int:
    """Run, print, save, compare."""
    arguments = tyro.cli(Arguments)
    names = list(arguments.cases or CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"A case must be one of {', '.join(CASES)}, got {unknown[0]!r}.", file=sys.stderr)
        return 2
    os.environ.update(_ALONE)  # before torch is loaded
    started = time.monotonic()
    _backbone()  # loads what every case needs
    found = _in_processes(names, arguments.jobs)
    cases = {name: found[name] for name in names}
    print(_table(cases))
    failed = [name for name, values in cases.items() if "error" in values]
    for name in failed:
        print(f"{name} failed: {cases[name]['error']}")
    print(f"{len(cases)} cases in {time.monotonic() - started:.0f} s")
    facts = {"machine": _machine(), "versions": _versions()}
    if arguments.save is not None and not failed:
        arguments.save.write_text(json.dumps(facts | {"cases": cases}, indent=1) + "\n")
    if arguments.compare is None:
        return 1 if failed else 0
    before = json.loads(arguments.compare.read_text())
    for name in facts:
        if before[name] != facts[name]:
            print(f"Other {name}: {before[name]} then, {facts[name]} now; bits may well differ.")
    expected = {n: v for n, v in before["cases"].items() if n in cases or not arguments.cases}
    differing = _differing(expected, cases)
    for line in differing:
        print(f"differs: {line}")
    if not differing:
        print(f"The same bits as in {arguments.compare}.")
    return 1 if differing or failed else 0


def _in_processes(names: Sequence[str], most: int) -> dict[str, Found]:
    """What each case gave, in a process of its own."""
    waiting, found = list(names), {}
    under_way: dict[Connection, tuple[str, float]] = {}
    while waiting or under_way:
        while waiting and len(under_way) < most:
            name = waiting.pop(0)
            ours, theirs = _FORK.Pipe(duplex=False)
            _FORK.Process(target=_alone, args=(name, theirs)).start()
            theirs.close()
            under_way[ours] = (name, time.monotonic())
        for done in wait(list(under_way)):
            assert isinstance(done, Connection)
            name, started = under_way.pop(done)
            try:
                found[name] = done.recv()
            except EOFError:
                found[name] = {"error": "its process died"}
            print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    return found


def _alone(name: str, told: Connection) -> None:
    """One case in an empty folder; paths in its files are relative, and so always the same."""
    try:
        with tempfile.TemporaryDirectory(prefix="same-bits-") as folder:
            os.chdir(folder)
            _draw_pictures(Path("pictures"), 0)
            _draw_pictures(Path("others"), 1)
            try:
                found = CASES[name]()
            finally:
                os.chdir("/")
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    told.send(found)


def _machine() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "")
    return f"{platform.machine()} {model}".strip()


def _versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers", "numpy", "pillow", "safetensors")
    own = {"python": platform.python_version()}
    return own | {name: importlib.metadata.version(name) for name in names}


def _differing(before: Mapping[str, Found], now: Mapping[str, Found]) -> list[str]:
    """Each value that is not the same, and where losses part."""
    lines = []
    for case in dict.fromkeys([*before, *now]):
        then, found = before.get(case, {}), now.get(case, {})
        for name in dict.fromkeys([*then, *found]):
            one, other = then.get(name), found.get(name)
            if one == other:
                continue
            if one is None or other is None:
                what = f"only {'now' if one is None else 'before'}"
            elif isinstance(one, list) and isinstance(other, list):
                pairs = enumerate(zip(one, other))  # noqa: B905  (lengths may differ)
                first = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
                what = f"from entry {first} on, {len(one)} entries then, {len(other)} now"
            else:
                what = f"{str(one)[:16]} then, {str(other)[:16]} now"
            lines.append(f"{case}, {name}: {what}")
    return lines


def _table(cases: Mapping[str, Found]) -> str:
    lines = ["| case | losses, first and last | digests |", "|---|---|---|"]
    for case, values in cases.items():
        losses = [
            f"{float.fromhex(value[0]):.6g} … {float.fromhex(value[-1]):.6g}"
            for name, value in values.items()
            if name.endswith("losses") and value
        ]
        digests = [f"{n} {v[:8]}" for n, v in values.items() if isinstance(v, str) and n != "error"]
        lines.append(f"| {case} | {'; '.join(losses)} | {', '.join(digests)} |")
    return "\n".join(lines)


# --- pictures ------------------------------------------------------------------------------------


def _draw_pictures(folder: Path, which: int, count: int = 4, size: int = _PICTURE_PX) -> None:
    """Two coloured discs of a kind, before another slope of grey in each picture."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[0:size, 0:size] / (size - 1)
    colours = (((210, 60, 40), (240, 200, 60)), ((40, 90, 200), (120, 220, 140)))[which]
    for i in range(count):
        slope = 90 + 20 * i + 60 * (columns if i % 2 else rows)
        pixels = np.stack([slope, slope + 10 * which, slope - 10], axis=-1)
        for colour, radius, shift in zip(colours, (0.30, 0.14), (0.0, 0.12), strict=True):
            middle = (0.45 + 0.04 * i + shift, 0.6 - 0.05 * i - shift)
            inside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
            pixels[inside] = colour
        Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")


def _add_words(folder: Path) -> None:
    """Captions and masks beside the pictures."""
    texts = ("a photo of S*", "S* before a wall", "the S* at night", "a small S*")
    for path, text in zip(sorted(folder.glob("?.png")), texts, strict=True):
        path.with_suffix(".txt").write_text(text)
        with Image.open(path) as picture:
            mask = np.asarray(picture).astype(int).max(-1) > 150
        Image.fromarray((mask * 255).astype(np.uint8)).save(path.with_suffix(".mask.png"))


# --- digests -------------------------------------------------------------------------------------


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _tensors(tensors: Mapping[str, Any]) -> str:
    """Digest of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _file(path: Path) -> str:
    """Digest of a safetensors file, without what is meant to differ (see the top)."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = {
        name: re.sub(r'"train_time_s": [0-9.e+-]+', '"train_time_s": 0', text)
        for name, text in sorted(header.pop("__metadata__", {}).items())
    }
    return _sha256(json.dumps([metadata, header]).encode(), data[8 + length :])


def _word(concept: Concept) -> Found:
    found = {"rows": _tensors(concept.rows)}
    if concept.tensors:
        found["tensors"] = _tensors(concept.tensors)
    if concept.deltas:
        found["deltas"] = _tensors(concept.deltas)
    return found


def _run_folder(folder: Path) -> Found:
    """All of a run folder: losses, the other metrics, the word, the files and previews."""
    losses, others = [], []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        del entry["time_s"]
        losses.append(float(entry.pop("loss")).hex())
        others.append(entry)
    record = json.loads((folder / "config.json").read_text())
    del record["versions"]
    learned = folder / "learned_embeds.safetensors"
    found = {
        "losses": losses,
        "metrics": _sha256(json.dumps(others).encode()),
        **_word(oneword.load_concept(learned)),
        "concept file": _file(learned),
        "state file": _file(folder / "state.safetensors"),
        "record": _sha256(json.dumps(record).encode()),
    }
    previews = sorted((folder / "previews").glob("*.png"))
    if previews:
        found["previews"] = _sha256(*(_pixels_of(path) for path in previews))
    return found


def _pixels_of(path: Path) -> bytes:
    with Image.open(path) as picture:
        return np.asarray(picture).tobytes()


# --- the command line ----------------------------------------------------------------------------


def _verb(words: Sequence[str]) -> int:
    from oneword.cli.main import main as verb

    with Path("output.txt").open("a") as output, redirect_stdout(output), redirect_stderr(output):
        return verb(words)


def _call(*words: str) -> None:
    _check(words, _verb(words))


def _call_apart(*words: str) -> None:
    """The same by the interpreter's own command, from nothing."""
    tree = Path(oneword.__file__).resolve().parents[1]
    with Path("output.txt").open("a") as output:
        ended = subprocess.run(
            [sys.executable, "-m", "oneword.cli.main", *words],
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdout=output,
            stderr=output,
            timeout=_TIMEOUT_S,
            check=False,
        )
    _check(words, ended.returncode)


def _check(words: Sequence[str], code: int) -> None:
    if code:
        end = Path("output.txt").read_text().strip()[-600:]
        raise RuntimeError(f"`oneword {' '.join(words)}` ended with {code}: {end}")


def _trained(*words: str) -> Found:
    _call(*_TRAIN, *words)
    return _run_folder(Path("run"))


def _captioned() -> Found:
    _add_words(Path("pictures"))
    return _trained(*_QUIET, *_NOUN, "--placeholder-token", "S*")


def _resumed() -> Found:
    """A run killed as soon as its first state lies there, and its unbroken twin."""
    command = [*_TRAIN, *_QUIET, *_NOUN, "--max-train-steps", "80", "--checkpointing-steps", "40",
               "--evaluation-steps", "4"]  # fmt: skip
    folder, state = Path("run"), Path("run/state.safetensors")
    process = _FORK.Process(target=_verb, args=(command,))
    process.start()
    while process.is_alive() and not state.is_file():
        time.sleep(0.001)
    process.kill()
    process.join()
    if not state.is_file() or (folder / "learned_embeds.safetensors").exists():
        raise RuntimeError("the run was not killed half way; is the machine busy? Try again.")
    half = _file(state)
    _call(*command)
    found = {"state file half way": half} | _run_folder(folder)
    _call(*command, "--output-dir", "whole")
    differing = _differing({"": _run_folder(Path("whole"))}, {"": found})
    # the folder's own name is in its record
    known = (", state file half way", ", record")
    parted = [line for line in differing if not line.startswith(known)]
    return found | {"apart from an unbroken run": "; ".join(parted) or "nothing"}


def _many() -> Found:
    for which, name in enumerate(("first", "second")):
        _draw_pictures(Path("folders") / name, which)
    _call("train", "--jobs", "folders", "--output-dir", "runs", "--slots", "2", *_BASE, *_NOUN,
          "--max-train-steps", str(STEPS))  # fmt: skip
    found = {}
    for name in ("first", "second"):
        found |= {f"{name} {key}": v for key, v in _run_folder(Path("runs") / name).items()}
    return found


def _generated() -> Found:
    """A word learned and drawn by the verbs, each started anew."""
    _call_apart(*_TRAIN, *_QUIET, *_NOUN)
    _call_apart("generate", "--model", MODEL, "--device", "cpu", "--dtype", "fp32",
                "--concepts", "run", "--prompts", "a photo of a {}", "--num-images-per-prompt", "2",
                "--seed", "5", "--num-inference-steps", "6", "--output-dir", "drawn")  # fmt: skip
    files = sorted(Path("drawn").glob("*.png"))
    texts = []
    for path in files:
        with Image.open(path) as picture:
            texts.append(f"{path.name} {getattr(picture, 'text', {})}")
    return {
        "pixels": _sha256(*(_pixels_of(path) for path in files)),
        "names and texts": _sha256("\n".join(texts).encode()),
    }


# --- the library ---------------------------------------------------------------------------------


def _backbone() -> Any:
    import torch

    torch.set_num_threads(1)
    return oneword.load_backbone(oneword.ModelConfig(model=MODEL, device="cpu", dtype="fp32"))


def _job(backbone: Any, folder: str, config: InversionConfig) -> Job:
    pictures = oneword.read_folder(Path(folder), resolution=backbone.resolution)
    return oneword.Job(name=folder, pictures=pictures.pixels, config=config)


def _config(**settings: Any) -> InversionConfig:
    common = {"initializer_token": "mug", "max_train_steps": STEPS, "evaluation_steps": 1,
              "train_batch_size": 4, "early_stopping": False, "seed": 3}  # fmt: skip
    return oneword.InversionConfig(**common | settings)


def _learned(results: Sequence[Any]) -> Found:
    found = {}
    for result in results:
        name = result.job.name
        found[f"{name} losses"] = [float(loss).hex() for _, loss in result.losses]
        found |= {f"{name} {key}": value for key, value in _word(result.concept).items()}
        found[f"{name} ended"] = f"{result.status} {result.steps} {result.best_step}"
    return found


def _two_slots() -> Found:
    backbone = _backbone()
    jobs = [
        _job(backbone, "pictures", _config(placeholder_token="<one>")),
        _job(
            backbone,
            "others",
            _config(
                placeholder_token="<two>",
                initializer_token="ball",
                setup="two-words",
                max_train_steps=10,
                train_batch_size=2,
                seed=8,
                keep="average",
                random_flip=False,
                timestep_bias=0.5,
            ),
        ),
    ]
    return _learned(oneword.invert_many(backbone, jobs, slots=2))


def _composed() -> Found:
    """Two words together: by the library, for the losses, and by the verb, for its files."""
    backbone = _backbone()
    jobs = [
        _job(backbone, "pictures", _config(placeholder_token="<one>")),
        _job(backbone, "others", _config(placeholder_token="<two>", initializer_token="ball")),
    ]
    found = _learned(oneword.invert_together(backbone, jobs, paste=0.25, seed=3))
    _call("compose", "--images", "pictures", "others", "--placeholder-tokens", "<one>", "<two>",
          "--initializer-tokens", "mug", "ball", "--paste", "0.25", "--output-dir", "run", *_BASE,
          "--max-train-steps", str(STEPS))  # fmt: skip
    folder = Path("run")
    return found | {
        "concept file": _file(folder / "learned_embeds.safetensors"),
        "state file": _file(folder / "state.safetensors"),
    }


def _made_up(backbone: Any) -> Concept:
    """A word that nobody learned: waves of the length of a row."""
    import torch

    rows = {
        name: 0.4 * torch.sin(torch.arange(2 * v.dim, dtype=torch.float32)).view(2, v.dim)
        for name, v in backbone.vocabularies.items()
    }
    return oneword.Concept(placeholder_token="<made-up>", rows=rows)


def _drawn(prompts: Sequence[str], seeds: Sequence[int], **more: Any) -> Found:
    backbone = _backbone()
    word = _made_up(backbone)
    known = [word] if any(word.placeholder_token in prompt for prompt in prompts) else []
    if more.pop("over", False):
        picture, _ = oneword.read_picture(Path("pictures/0.png"), backbone)
        more |= {"image": picture, "strength": 0.6}
    drawing = oneword.generate(
        backbone,
        prompts,
        seeds,
        concepts=known,
        sampling=oneword.SamplingConfig(**more.pop("sampling", {})),
        **more,
    )
    settings = json.dumps([drawing.metadata(i) for i in range(len(drawing.pixels))])
    return {"pixels": _tensors({"": drawing.pixels}), "settings": _sha256(settings.encode())}


def _edited(*, masked: bool) -> Found:
    backbone = _backbone()
    word = _made_up(backbone)
    mask = None
    if masked:
        edge = np.zeros((_PICTURE_PX, _PICTURE_PX), np.uint8)
        edge[24:72, 16:80] = 255
        Image.fromarray(edge).save("mask.png")
    picture, mask = oneword.read_picture(
        Path("pictures/1.png"), backbone, mask=Path("mask.png") if masked else None
    )
    how: dict[str, Any] = {"mask": mask} if masked else {"invert": "a photo of a mug"}
    edits = oneword.edit(
        backbone,
        picture,
        "a photo of a <made-up>",
        (4, 9) if masked else (0,),
        concepts=[word],
        sampling=oneword.SamplingConfig(guidance_scale=3.0, num_inference_steps=8),
        **how,
    )
    return {"pixels": _tensors({"": edits.drawing.pixels})}


CASES: dict[str, Callable[[], Found]] = {
    # with previews, and without an initialiser, so that one is chosen
    "one-word": partial(_trained, "--validation-steps", "6"),
    "three-words": partial(_trained, *_QUIET, *_NOUN, "--setup", "three-words"),
    "per-image": partial(_trained, *_QUIET, *_NOUN, "--setup", "per-image"),
    "xti": partial(_trained, *_QUIET, *_NOUN, "--setup", "xti"),
    "neti": partial(_trained, *_QUIET, *_NOUN, "--setup", "neti"),
    "dreamartist": partial(_trained, *_QUIET, *_NOUN, "--setup", "dreamartist"),
    "pivotal": partial(_trained, *_QUIET, *_NOUN, "--setup", "pivotal", "--tuning-steps", "8"),
    "lora-dreambooth": partial(
        _trained, *_QUIET, *_NOUN, "--setup", "lora-dreambooth", "--num-class-images", "4"
    ),
    "compose": _composed,
    "two-slots": _two_slots,
    "resumed": _resumed,
    # not asked for by name, but roads of their own through the same code
    "jobs": _many,
    "progressive": partial(_trained, *_QUIET, *_NOUN, "--setup", "progressive"),
    "regularized": partial(_trained, *_QUIET, *_NOUN, "--setup", "regularized"),
    "cross-init": partial(_trained, *_QUIET, *_NOUN, "--setup", "cross-init"),
    "norm-pull": partial(_trained, *_QUIET, *_NOUN, "--norm-pull", "0.5", "--keep", "average"),
    "output-vectors": partial(_trained, *_QUIET, *_NOUN, "--vectors-at", "output"),
    "custom-diffusion": partial(
        _trained, *_QUIET, *_NOUN, "--setup", "custom-diffusion", "--num-class-images", "4"
    ),
    "paper-preset": partial(
        _trained, *_QUIET, *_NOUN, "--preset", "paper", "--learnable-property", "style"
    ),
    "captions-and-masks": _captioned,
    # drawings
    "drawing-plain": partial(_drawn, ["a photo of a mug"], [0, 1]),
    "drawing-word": partial(
        _drawn,
        ["a photo of a <made-up>", "a painting of a <made-up> in the forest"],
        [7],
        sampling={"guidance_scale": 2.5, "num_inference_steps": 9},
    ),
    "drawing-away": partial(
        _drawn,
        ["a ball on the beach"],
        [123],
        sampling={
            "negative_prompt": "night",
            "num_inference_steps": 15,
            "guidance_scale": 6.0,
            "width": 48,
        },
    ),
    "drawing-over": partial(
        _drawn,
        ["a photo of a <made-up>"],
        [2, 3],
        over=True,
        batch_size=1,
        sampling={"num_inference_steps": 10},
    ),
    "drawing-verb": _generated,
    "edit-mask": partial(_edited, masked=True),
    "edit-inverted": partial(_edited, masked=False),
}


if __name__ == "__main__":
    sys.exit(main())
