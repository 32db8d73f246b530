"""What a recipe's study costs on a GPU, counted: no weights, no photographs and no GPU are needed.

    python benchmarks/study_cost.py --recipe recipes/sd15-dreambench.toml --tflops 300

Passes of the denoiser are the study's own plan, over as many concepts as DreamBench has; operations
of a pass are counted on the architecture without weights. Text encoder, VAE and scoring are left
out, which `oneword study --dry-run` counts, too, where the model is. The rate is an assumption.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from oneword.cli import options
from oneword.cli.arguments import StudyArguments
from oneword.config.scoring import StudyConfig
from oneword.study.plan import GUIDED, Study


NUM_OBJECTS, NUM_LIVE, NUM_PICTURES = 21, 9, 6
"""DreamBench: 30 subjects, nine of them cats and dogs, four to six photographs of each."""
ARCHITECTURES = {"ldm": (32, 1280), "stable_diffusion": (64, 768)}
"""Side of the latents and width of the text, by family."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Count a recipe's work."""

    recipe: Path
    """TOML file of `oneword study`."""
    tflops: float = 300.0
    """Rate to reckon with, TFLOP/s."""


def main() -> None:
    """Print the table."""
    arguments = tyro.cli(Arguments)
    chosen, _ = options.parse(StudyArguments, "study", ["--config", str(arguments.recipe)])
    fields = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(StudyConfig)}
    with tempfile.TemporaryDirectory() as place:
        concepts = photographs(Path(place))
        study = Study(StudyConfig(**fields | {"concepts": (str(concepts),)}))
        family = "ldm" if "ldm" in chosen.model.model else "stable_diffusion"
        training = sum({s.run: study.training_passes(s, family) for s in study.specs}.values())
        drawing = sum(study.drawing_passes(s) for s in study.specs)
        pictures = sum(study.pictures(s) for s in study.specs)
        guided = sum(study.drawing_passes(s) for s in study.specs if s.setup in GUIDED)
    drawn, step = pass_operations(*ARCHITECTURES[family])
    per_hour = arguments.tflops * 1e12 * 3600
    # the plan counts a step as three passes, which without gradients of weights it is not
    hours = [training * step / 3 / per_hour, drawing * drawn / per_hour]
    print(
        f"{arguments.recipe}, {drawn / 1e12:.3g} TFLOP to draw a sample once, {step / 1e12:.3g} "
        f"for its step, reckoned at {arguments.tflops:g} TFLOP/s\n\n"
        f"| | passes | GPU hours |\n|---|---|---|\n"
        f"| training, {len(study.specs)} jobs | {training:.3g} | {hours[0]:.0f} |\n"
        f"| drawing, {pictures} pictures | {drawing:.3g} | {hours[1]:.0f} |\n\n"
        f"Of the drawing {guided * drawn / per_hour:.0f} hours stand for figure 5's guided "
        "methods, which are dearer."
    )


def photographs(place: Path) -> Path:
    """Empty pictures in DreamBench's layout."""
    lines = []
    for i in range(NUM_OBJECTS + NUM_LIVE):
        name, noun = f"subject{i}", "dog" if i < NUM_LIVE else "toy"
        lines.append(f"{name},{noun}")
        (place / name).mkdir()
        for k in range(NUM_PICTURES):
            Image.new("RGB", (8, 8)).save(place / name / f"{k}.jpg")
    (place / "prompts_and_classes.txt").write_text("\n".join(lines))
    return place


def pass_operations(side: int, width: int) -> tuple[int, int]:
    """Floating-point operations of one sample: forward, and forward with the text's gradient."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=side,
            cross_attention_dim=width,
            attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280),
        )
        unet.requires_grad_(False)
        noise, text = torch.empty(1, 4, side, side), torch.empty(1, 77, width)
        t = torch.zeros(1, dtype=torch.long)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(noise, t, text)
        text.requires_grad_()
        with FlopCounterMode(display=False) as step:
            unet(noise, t, text).sample.sum().backward()
    return counter.get_total_flops(), step.get_total_flops()


if __name__ == "__main__":
    main()
