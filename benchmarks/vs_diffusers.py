"""`oneword train` beside diffusers' own textual-inversion script, run as it is.

    git clone https://github.com/huggingface/diffusers
    python benchmarks/vs_diffusers.py --diffusers diffusers --json vs_diffusers.json

Both learn from the same pictures on the same pipeline folder, at the same resolution, batch,
precision and number of steps, in alternation. Each command is timed as a whole process at two
lengths: the difference gives the cost of a step, the longer one the wall time with start-up.
oneword's steps include its scorings of the fixed batch; neither draws previews. Peak memory of the
host is the process's largest resident set, as the kernel counts it; of the GPU, the most that
torch's allocator held, which leaves out the driver's own.

The script wants torchvision, for one random mirroring of PIL pictures; where it is missing a
stand-in of that one class is put in its place before the script begins.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from _common import machine, pipeline_folder, record, watched

from oneword.evaluation.metrics import mean_interval
from oneword.images import from_uint8, save_png, to_images
from oneword.microworld.world import concepts
from oneword.microworld.world.drawn import concept_pictures


_PEAK = """
import atexit, os, sys

def tell():
    torch = sys.modules.get("torch")  # a mistake in the options ends before it is there
    on_gpu = torch is not None and torch.cuda.is_available()
    with open(os.environ["PEAK_FILE"], "w") as file:
        file.write(str(torch.cuda.max_memory_reserved() if on_gpu else 0))

atexit.register(tell)
"""
_ONEWORD = """
from oneword.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
_SCRIPT = """
import random, runpy, sys, types
from PIL import ImageOps
import diffusers
from transformers.utils import import_utils

class RandomHorizontalFlip:
    def __init__(self, p=0.5):
        self.p = p
    def __call__(self, picture):
        return ImageOps.mirror(picture) if random.random() < self.p else picture

if not import_utils.is_torchvision_available():  # which is asked once
    stand_in = types.ModuleType("torchvision")
    stand_in.transforms = types.ModuleType("torchvision.transforms")
    stand_in.transforms.RandomHorizontalFlip = RandomHorizontalFlip
    sys.modules |= {"torchvision": stand_in, "torchvision.transforms": stand_in.transforms}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time both trainers."""

    diffusers: Path
    """Checkout of huggingface/diffusers, or the script itself."""
    model: Literal["microworld", "sd15", "sdxl"] = "microworld"
    """The embedded pipeline, or a real architecture with random weights."""
    models_dir: Path = Path("benchmark-models")
    """Where the random weights are kept (4 GB, SDXL 14 GB)."""
    resolution: int = 128
    """Side of the pictures, px."""
    batch: int = 4
    """Samples per step."""
    dtype: Literal["fp32", "bf16", "auto"] = "fp32"
    """Compute type of both; auto: whatever each takes where it is told none."""
    options: tuple[str, ...] = ()
    """Further options of `oneword train` alone, as in "memory=low"."""
    steps: tuple[int, int] = (10, 60)
    """The two lengths."""
    repeats: int = 5
    """Times that both are run at both lengths."""
    json: Path | None = None
    """File for all numbers."""


@dataclass(frozen=True)
class _Time:
    short_s: float
    long_s: float
    short_cpu_s: float
    long_cpu_s: float
    peak_mb: float
    gpu_peak_mb: float

    def step_s(self, steps: tuple[int, int]) -> float:
        return (self.long_s - self.short_s) / (steps[1] - steps[0])


def main() -> None:
    """Run, print a table of both and of their ratios."""
    arguments = tyro.cli(Arguments)
    if wrong := [item for item in arguments.options if "=" not in item]:
        sys.exit(f"--options takes NAME=VALUE, as in memory=low; given was {', '.join(wrong)}.")
    script = arguments.diffusers
    if script.is_dir():
        suffix = "_sdxl" if arguments.model == "sdxl" else ""
        script = script / "examples" / "textual_inversion" / f"textual_inversion{suffix}.py"
    model = pipeline_folder(arguments.model, arguments.models_dir)
    found: dict[str, list[_Time]] = {"diffusers": [], "oneword": []}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pictures = _pictures(work / "pictures")
        for repeat in range(arguments.repeats):
            for trainer, times in found.items():
                times.append(_run(trainer, arguments, script, model, pictures, work))
                print(f"{trainer} {repeat + 1}/{arguments.repeats}: {times[-1]}", file=sys.stderr)
    print(_table(arguments, found))
    times = {k: [dataclasses.asdict(t) for t in v] for k, v in found.items()}
    record(arguments.json, model=None, times=times)


def _run(
    trainer: str,
    arguments: Arguments,
    script: Path,
    model: Path,
    pictures: Path,
    work: Path,
) -> _Time:
    walls, cpus, peak, gpu_peak = [], [], 0.0, 0.0
    for steps in arguments.steps:
        target = Path(tempfile.mkdtemp(dir=work))
        common = {
            "train_data_dir": pictures,
            "placeholder_token": "<mug>",
            "initializer_token": "mug",
            "learnable_property": "object",
            "resolution": arguments.resolution,
            "train_batch_size": arguments.batch,
            "max_train_steps": steps,
            "learning_rate": 5e-4,
            "output_dir": target,
            "seed": 0,
            "checkpointing_steps": 10_000,
        }
        if trainer == "diffusers":
            precision = {"fp32": "no", "bf16": "bf16", "auto": None}[arguments.dtype]
            more = {
                "pretrained_model_name_or_path": model,
                **({"mixed_precision": precision} if precision else {}),
                "lr_warmup_steps": 0,
                "save_steps": 10_000,
            }
            command = [sys.executable, "-c", _PEAK + _SCRIPT, str(script)]
        else:
            more = {"model": model, "dtype": arguments.dtype, "validation_steps": 0}
            more |= {"early_stopping": False}
            more |= dict(item.split("=", 1) for item in arguments.options)
            command = [sys.executable, "-c", _PEAK + _ONEWORD, "train"]
        command += [f"--{key}={value}" for key, value in (common | more).items()]
        told, log = target.with_suffix(".peak"), target.with_suffix(".log")
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PEAK_FILE": str(told)}
        with log.open("w") as file:
            usage = watched(command, env=environment, stdout=file, stderr=file)
        if usage.status != 0:
            sys.exit(f"{trainer} failed:\n{log.read_text()[-3000:]}")
        walls.append(usage.wall_s)
        cpus.append(usage.cpu_s)
        peak = max(peak, usage.peak_mb)
        gpu_peak = max(gpu_peak, int(told.read_text()) / 2**20)
    return _Time(*walls, *cpus, peak, gpu_peak)


def _table(arguments: Arguments, found: dict[str, list[_Time]]) -> str:
    rows = {
        "a step, s": lambda t: t.step_s(arguments.steps),
        f"{arguments.steps[0]} steps with start-up, s": lambda t: t.short_s,
        f"{arguments.steps[1]} steps with start-up, s": lambda t: t.long_s,
        f"{arguments.steps[0]} steps with start-up, s of all cores": lambda t: t.short_cpu_s,
        "peak memory, MB": lambda t: t.peak_mb,
    }
    if found["oneword"][0].gpu_peak_mb:
        rows["peak memory of the GPU, MB"] = lambda t: t.gpu_peak_mb
    lines = [
        f"{arguments.model}, {arguments.resolution} px, batch {arguments.batch}, "
        f"{arguments.dtype}, {machine()}, {arguments.repeats} alternations",
        "",
        "| | diffusers' script | oneword | ratio (95 % interval) |",
        "|---|---|---|---|",
    ]
    for name, value in rows.items():
        theirs, ours = ([value(t) for t in found[k]] for k in ("diffusers", "oneword"))
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        spread = mean_interval(ratios)
        width = f" ± {spread.half_width:.2f}" if len(ratios) > 1 else ""
        cells = (f"{sum(v) / len(v):.3g}" for v in (theirs, ours))
        lines.append(f"| {name} | {' | '.join(cells)} | {spread.value:.2f}{width} |")
    return "\n".join(lines)


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    drawn = from_uint8(concept_pictures(concepts.get("gold-mug"), 5))
    for i, picture in enumerate(to_images(drawn)):
        save_png(picture, folder / f"{i}.png")
    return folder


if __name__ == "__main__":
    main()
