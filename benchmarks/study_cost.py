"""What a recipe's study costs on a GPU, counted: no weights, no photographs and no GPU are needed.

    python benchmarks/study_cost.py --recipe recipes/sd15-dreambench.toml --tflops 300

Passes of the denoiser are the study's own plan, over as many concepts as DreamBench has; operations
of a pass are counted on the architecture without weights. Text encoder, VAE and scoring are left
out. The rate is an assumption: `oneword study --dry-run` measures it where the model runs.
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
from oneword.study.plan import Study


NUM_OBJECTS, NUM_LIVE, NUM_PICTURES = 21, 9, 5
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
    operations = pass_operations(*ARCHITECTURES[family])
    hours = [n * operations / (arguments.tflops * 1e12) / 3600 for n in (training, drawing)]
    print(
        f"{arguments.recipe}, {operations / 1e12:.3g} TFLOP a pass, reckoned at "
        f"{arguments.tflops:g} TFLOP/s\n\n| | passes | GPU hours |\n|---|---|---|\n"
        f"| training, {len(study.specs)} jobs | {training:.3g} | {hours[0]:.0f} |\n"
        f"| drawing, {pictures} pictures | {drawing:.3g} | {hours[1]:.0f} |"
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


def pass_operations(side: int, width: int) -> int:
    """Floating-point operations of one sample through the denoiser, forward."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=side,
            cross_attention_dim=width,
            attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280),
        )
        noise, text = torch.empty(1, 4, side, side), torch.empty(1, 77, width)
        t = torch.zeros(1, dtype=torch.long)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(noise, t, text)
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
