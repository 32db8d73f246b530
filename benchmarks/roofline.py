"""How near a training step is to the least time that its matrix work takes on this machine.

    python benchmarks/roofline.py --model sd15 --resolution 512 --batch 4 --dtype bf16

Counts the operations of the denoiser's forward pass and its gradient with respect to the text, and
those of the text encoder; measures the machine's ceiling as the fastest of several square matrix
products in the same type, and the bare denoiser pass beside the whole step, in alternation.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from _common import Architecture, machine, pipeline_folder, record
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation.metrics import mean_interval
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.models.speed.narrow_cpu import widened
from oneword.training.job import Job, Progress
from oneword.training.loop import invert
from oneword.vocabulary.inject import injected


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Count and time."""

    model: Architecture = "microworld"
    """The embedded pipeline, or a real architecture with random weights."""
    models_dir: Path = Path("benchmark-models")
    """Where the random weights are kept."""
    resolution: int | None = None
    """Side of the pictures, px; unset: the model's own."""
    batch: int = 4
    """Samples per step."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Compute type."""
    device: str = "auto"
    """torch device."""
    steps: int = 10
    """Steps, and bare passes, timed in each alternation."""
    repeats: int = 5
    """Alternations."""
    json: Path | None = None
    """File for all numbers."""


def main() -> None:
    """Count, time, print."""
    arguments = tyro.cli(Arguments)
    folder = pipeline_folder(arguments.model, arguments.models_dir)
    backbone = load_backbone(
        ModelConfig(model=str(folder), device=arguments.device, dtype=arguments.dtype)
    )
    size_px = arguments.resolution or backbone.resolution
    text, denoise = _passes(backbone, arguments.batch, size_px)
    text_ops, denoiser_ops = _operations(text), _operations(denoise)
    denoise()  # warms up
    ceiling = max(_matrix_rate(backbone, n) for n in (512, 1024, 2048, 4096))
    bare, steps = [], []
    for repeat in range(arguments.repeats):
        bare.append(_seconds(backbone, denoise, arguments.steps))
        steps.append(_step_s(backbone, arguments, size_px))
        print(f"{repeat + 1}/{arguments.repeats}: bare {bare[-1]:.4f} s, step {steps[-1]:.4f} s",
              file=sys.stderr)  # fmt: skip
    ceiling = max(ceiling, *(_matrix_rate(backbone, n) for n in (1024, 2048)))
    floor = (text_ops + denoiser_ops) / ceiling
    over_floor = mean_interval([step / floor for step in steps])
    over_bare = mean_interval([s / b for s, b in zip(steps, bare, strict=True)])
    print(
        f"{arguments.model}, {size_px} px, batch {arguments.batch}, {arguments.dtype}, "
        f"{machine()}, {torch.get_num_threads()} threads, {arguments.repeats} alternations\n\n"
        f"| | |\n|---|---|\n"
        f"| denoiser, forward and gradient to the text | {denoiser_ops / 1e12:.3g} TFLOP |\n"
        f"| text encoder, forward and gradient, one prompt per sample | "
        f"{text_ops / 1e12:.3g} TFLOP |\n"
        f"| fastest matrix product | {ceiling / 1e12:.3g} TFLOP/s |\n"
        f"| floor of a step | {floor:.4f} s |\n"
        f"| bare denoiser pass | {sum(bare) / len(bare):.4f} s |\n"
        f"| a step | {sum(steps) / len(steps):.4f} s |\n"
        f"| step over bare pass | {over_bare.value:.2f} ± {over_bare.half_width:.2f} |\n"
        f"| step over floor | {over_floor.value:.2f} ± {over_floor.half_width:.2f} |"
    )
    record(
        arguments.json,
        model=None,
        operations={"text": text_ops, "denoiser": denoiser_ops},
        ceiling=ceiling,
        bare_s=bare,
        step_s=steps,
    )


def _passes(
    backbone: Backbone, batch: int, size_px: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The two halves of a step: prompts to a gradient of rows, noise to a gradient of text."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.rand(batch, 3, size_px, size_px, generator=draws) * 2 - 1
    x0 = backbone.encode_image(pixels).mean
    latent_size = (x0.shape[2], x0.shape[3])
    t = backbone.sample_t(torch.rand(batch, generator=draws), latent_size)
    noise = torch.randn(x0.shape, generator=draws).to(x0)
    x_t = backbone.add_noise(x0, noise, t)
    initial = {n: v.rows_of("mug") for n, v in backbone.vocabularies.items()}
    rows = {n: r.clone().float().requires_grad_() for n, r in initial.items()}
    prompts = [f"a photo of S*{' .' * i}" for i in range(batch)]  # each is encoded on its own

    def states(conditioning: Any) -> tuple[torch.Tensor, ...]:
        found = [conditioning.encoder_hidden_states, conditioning.pooled]
        return tuple(s for s in found if s is not None)

    def text() -> None:
        word = Concept(placeholder_token="S*", rows=rows, provenance={})
        with injected(backbone, [word]), widened(backbone):
            found = states(backbone.encode_prompt(prompts))
            sum(s.float().sum() for s in found).backward(inputs=list(rows.values()))

    with torch.no_grad():
        conditioning = backbone.encode_prompt(["a photo of a mug"] * batch)
    leaves = [s.detach().requires_grad_() for s in states(conditioning)]

    def denoise() -> None:
        given = replace(
            conditioning,
            encoder_hidden_states=leaves[0],
            pooled=leaves[1] if len(leaves) > 1 else None,
        )
        with widened(backbone):
            backbone.predict(x_t, t, given).sum().backward(inputs=leaves[:1])

    return text, denoise


def _operations(run: Callable[[], Any]) -> int:
    """Floating-point operations; attention as two matrix products, whatever kernel runs it."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def _matrix_rate(backbone: Backbone, size: int) -> float:
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    a = a.to(backbone.device, backbone.dtype)
    best = min(_seconds(backbone, lambda: a @ a, 3) for _ in range(3))
    return 2 * size**3 / best


def _seconds(backbone: Backbone, run: Callable[[], Any], times: int) -> float:
    _wait(backbone)
    started = time.perf_counter()
    for _ in range(times):
        run()
    _wait(backbone)
    return (time.perf_counter() - started) / times


def _wait(backbone: Backbone) -> None:
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()


def _step_s(backbone: Backbone, arguments: Arguments, size_px: int) -> float:
    """Seconds of a step of the loop, without its first step and its scorings."""
    draws = torch.Generator().manual_seed(0)
    marks: dict[int, float] = {}

    def mark(progress: Progress) -> None:
        if progress.step in (2, arguments.steps + 2):
            _wait(backbone)
            marks[progress.step] = time.perf_counter()

    job = Job(
        name="roofline",
        pictures=torch.rand(4, 3, size_px, size_px, generator=draws) * 2 - 1,
        config=InversionConfig(
            initializer_token="mug",
            train_batch_size=arguments.batch,
            max_train_steps=arguments.steps + 3,
            evaluation_steps=arguments.steps + 3,
            num_evaluation_samples=1,
        ),
    )
    invert(backbone, job, on_step=mark)
    first, last = sorted(marks)
    return (marks[last] - marks[first]) / arguments.steps


if __name__ == "__main__":
    main()
